"""Planning in an environment of your own with data of your own: a boat learns to cross a river.

    python examples/plan_on_your_own.py       # writes data, a run and a picture to runs/river, and prints scores
"""

import sys
from pathlib import Path

import gymnasium
import numpy as np
import torch

import gentraj
from gentraj.data import Episodes
from gentraj.envs import environment_factory
from gentraj.plots.figures import plot_paths

HARBOUR, LENGTH = np.array([0.8, 0.5], np.float32), 60


class River(gymnasium.Env):
    """A boat at (x, y) in a current that is strongest in the middle; its reward is higher the nearer the harbour is."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform([-1, -1], [-0.7, 1]).astype(np.float32)
        return self.at, {}

    def step(self, action):
        current = np.array([0, self.at[0] ** 2 - 1], np.float32)
        self.at = np.clip(self.at + 0.1 * (action + 0.5 * current), -1, 1, dtype=np.float32)
        return self.at, 1 - float(np.linalg.norm(self.at - HARBOUR)), False, False, {}


gymnasium.register("River-v0", f"{__name__}:River", max_episode_steps=LENGTH)


def your_arrays(number, seed=0):
    """Returns the arrays of aimless crossings, in which a random action is repeated for five steps."""
    env, rng, obs, act, reward = River(), np.random.default_rng(seed), [], [], []
    for episode in range(number):
        obs.append(env.reset(seed=episode)[0])
        act += list(rng.uniform(-1, 1, (LENGTH // 5, 2)).repeat(5, 0))
        for action in act[-LENGTH:]:
            next_obs, r, *_ = env.step(action)
            obs.append(next_obs)
            reward.append(r)
    return np.array(obs), np.array(act), np.array(reward)


def main(folder="runs/river", steps=1000, episodes=20):
    obs, act, reward = your_arrays(number=200)  # an episode of T steps has T + 1 observations and T actions
    ends = np.arange(len(act)) % LENGTH == LENGTH - 1
    data = Episodes(obs, act, reward, terminated=np.zeros_like(ends), truncated=ends, lengths=np.full(200, LENGTH),
                    env=environment_factory("River-v0").spec_json)

    run = gentraj.train("veteran+", data, steps=int(steps), settings={"horizon": 12}, folder=folder)
    scores = run.evaluate(episodes=int(episodes))
    print(f"the data earn {data.returns.mean():.1f}, random actions {scores['random']['return_mean']:.1f}, "
          f"the planner {scores['return_mean']:.1f}")

    paths = [episode.obs for episode in scores.recorded][:4]
    starts = torch.from_numpy(np.stack([path[0] for path in paths]))
    condition = gentraj.Condition.empty(run.model.spec, len(paths)).with_obs(0, starts)
    plans = run.model.sample(condition, num_samples=16)[..., :2].numpy()
    return plot_paths(paths, np.tile(HARBOUR, (4, 1)), Path(folder) / "paths.png", plans=plans)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
