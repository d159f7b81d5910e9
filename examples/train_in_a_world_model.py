"""Trains stable-baselines3's SAC only inside a world model, and scores it in the environment that the data come from.

    python examples/train_in_a_world_model.py RUN [--steps N]    # RUN: gentraj train world-ensemble --dataset ...
    python examples/train_in_a_world_model.py demo               # trained on random actions in InvertedPendulum

Needs pip install 'gentraj[sb3]'. SAC must not exploit the model's errors: synthetic episodes are short and start
anywhere in the data (MBPO), uncertainty costs reward (MOPO), and too much of it terminates an episode (MOReL).
"""

import sys
from pathlib import Path

import numpy as np
import torch
import tyro
from stable_baselines3 import SAC, HerReplayBuffer

import gentraj
from gentraj.envs import SB3Vector
from gentraj.runs.kinds.environment import make_vec
from gentraj.trajectory import Agent


class Trained(Agent):
    """An `Agent` that acts by a model of stable-baselines3."""

    def __init__(self, model, goal_dims):
        self.model, self.goal_dims = model, list(goal_dims)

    def _act(self, obs_BO, goal_BG):
        obs = obs_BO.numpy() if goal_BG is None else {
            "observation": obs_BO.numpy(), "achieved_goal": obs_BO[:, self.goal_dims].numpy(),
            "desired_goal": goal_BG.numpy()}
        return torch.from_numpy(self.model.predict(obs, deterministic=True)[0])


def learn(run, steps, seed=0, *, updates=8, penalty=1.0, termination_cost=0.0, max_episode_steps=50):
    """Trains SAC on synthetic episodes only, 32 at a time."""
    envs = SB3Vector(make_vec(run, 32, penalty=penalty, max_episode_steps=max_episode_steps,
                              starts="anywhere", termination_cost=termination_cost))
    model = SAC("MultiInputPolicy" if run.data.context_dim else "MlpPolicy", envs, gradient_steps=updates, seed=seed,
                learning_starts=min(steps // 10, 5_000), policy_kwargs={"net_arch": [128, 128]}, device="cpu")
    return Trained(model.learn(steps), run.data.goal_dims)


def learn_by_hindsight(run, steps, seed=0, *, updates=8, max_episode_steps=100):
    """Trains SAC to reach goals, with hindsight experience replay (Andrychowicz et al. 2017).

    Rewards are those of the environment's `compute_reward`.
    """
    envs = SB3Vector(make_vec(run, 32, max_episode_steps=max_episode_steps, own_rewards=True, starts="anywhere",
                              termination_cost=0.0))
    begin = 32 * (max_episode_steps + 1)  # whole episodes
    if steps <= begin:
        raise ValueError(f"steps is {steps}; give more than {begin}, the first episodes of "
                         f"{max_episode_steps} steps")
    model = SAC("MultiInputPolicy", envs, gradient_steps=updates, seed=seed, learning_starts=begin,
                policy_kwargs={"net_arch": [128, 128]}, device="cpu", replay_buffer_class=HerReplayBuffer,
                learning_rate=1e-3, gamma=0.98, ent_coef="auto_0.1")
    return Trained(model.learn(steps), run.data.goal_dims)


def main(folder: tyro.conf.Positional[Path], steps: int = 200_000, penalty: float = 1.0, max_episode_steps: int = 50,
         termination_cost: float = 0.0, updates: int = 8, hindsight: bool = False, seed: int = 0, episodes: int = 20):
    """Trains SAC with `updates` updates for every step of 32 synthetic episodes, and evaluates it.

    A unit of uncertainty costs the reward `penalty`, and an end by uncertainty costs `termination_cost`; give one where
    rewards are negative, or the agent will seek such ends. `hindsight`, for data with goals whose environment has
    `compute_reward`, uses neither.
    """
    run = gentraj.load(folder)
    run.action_space()  # raises ValueError if the environment is unknown
    if hindsight:
        agent = learn_by_hindsight(run, steps, seed, updates=updates, max_episode_steps=max_episode_steps)
    else:
        agent = learn(run, steps, seed, updates=updates, penalty=penalty, termination_cost=termination_cost,
                      max_episode_steps=max_episode_steps)
    data = run.data
    scores = gentraj.evaluate(agent, data.env, episodes, seed=seed, obs_keys=data.obs_keys)
    behaviour = np.average([r.mean for r in data.returns], weights=[r.episodes for r in data.returns])
    print(f"SAC earns {scores['return_mean']:.1f} in the real environment, the data's behaviour {behaviour:.1f}")
    return scores["return_mean"], behaviour


def demo(folder="runs/pendulum", steps="300"):
    from mpc_in_a_world_model import learn_from_random_actions

    return main(learn_from_random_actions(folder, steps).folder, steps=3_000)


if __name__ == "__main__":
    demo(*sys.argv[2:]) if sys.argv[1:2] == ["demo"] else tyro.cli(main)
