"""Model-predictive control: simulates many sequences of actions in a world model, and takes the first of their mean.

    python examples/mpc_in_a_world_model.py RUN [EPISODES]    # RUN: gentraj train world-ensemble --dataset ...
    python examples/mpc_in_a_world_model.py demo              # trained on random actions in InvertedPendulum
"""

import sys
from dataclasses import replace

import gentraj
from gentraj.agents import MPC, MPCConfig, WorldModelSimulator
from gentraj.data import save_npz
from gentraj.envs import RandomAgent, environment_factory, rollout

ENV_ID = "InvertedPendulum-v5"


def random_actions(folder):
    """Saves 300 episodes of random actions, in which the pole falls in 5 steps, and returns the file."""
    agent, factory = RandomAgent([-3.0], [3.0]), environment_factory(ENV_ID, {"max_episode_steps": 100})
    return save_npz(rollout(agent, factory, 300, seed=1, record=True, progress=False).recorded, f"{folder}-data.npz")


def learn_from_random_actions(folder, steps):
    """Trains a world model on random actions and returns its run."""
    preset = gentraj.PRESETS["world-ensemble"]
    config = replace(preset, dataset=str(random_actions(folder)), world=replace(preset.world, width=64),
                     training=replace(preset.training, steps=int(steps)))
    return gentraj.train(config, folder=folder)


def main(folder, episodes=5):
    run = gentraj.load(folder)
    space, data = run.action_space(), run.data
    agent = MPC(WorldModelSimulator(run.world_model), MPCConfig(horizon=16, samples=64), space.low, space.high)
    scores = gentraj.evaluate(agent, data.env, int(episodes), obs_keys=data.obs_keys)
    print(f"MPC earns {scores['return_mean']:.1f}, random actions {scores['random']['return_mean']:.1f}")
    return scores


def demo(folder="runs/pendulum", steps="300", episodes="5"):
    return main(learn_from_random_actions(folder, steps).folder, episodes)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    demo(*sys.argv[2:]) if sys.argv[1:2] == ["demo"] else main(*sys.argv[1:])
