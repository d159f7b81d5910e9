"""An adapter that gives an agent the `predict` of stable-baselines3, as its `evaluate_policy` expects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gentraj.randomness import fold
from gentraj.trajectory import Agent

Observation = np.ndarray | Mapping[str, np.ndarray]


class SB3Policy:
    """An agent with the `predict` of stable-baselines3's policies.

    `obs_keys` are the keys of a dict observation whose arrays the agent's data joined, in that order. The agent must
    not be used elsewhere meanwhile, as it remembers the rest of its chunks or plans.
    """

    def __init__(self, agent: Agent, obs_keys: Sequence[str] = (), seed: int = 0):
        self.agent = agent
        self.obs_keys = tuple(obs_keys) or ("observation",)
        self.seed = seed
        self.episodes = 0

    def predict(self, observation: Observation, state: tuple[np.ndarray, ...] | None = None,
                episode_start: np.ndarray | None = None,
                deterministic: bool = False) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Returns the action (A,) for one observation, or (B, A) for several, and the state to pass to the next call.

        The state holds the seeds of the episodes. The entry "desired_goal" of a dict observation is the goal, and
        its other arrays are flattened; it is a single one if an array has one axis. An
        episode begins where `episode_start` is true, and everywhere if `state` is None: without the state, every action
        is decided anew. With `deterministic` all episodes have the same seed, so that equal observations lead to equal
        actions; otherwise each episode has a seed of its own. Raises ValueError for an observation or a state of
        another shape.
        """
        goal = None
        parts = [observation]
        if isinstance(observation, Mapping):
            goal = observation.get("desired_goal")
            parts = [observation[key] for key in self.obs_keys]
        obs = [np.asarray(part, np.float32) for part in parts]
        single = min(part.ndim for part in obs) == 1
        try:
            obs_BO = np.concatenate([part.reshape(1 if single else len(part), -1) for part in obs], 1)
        except ValueError as error:
            raise ValueError(f"observations of shape {[part.shape for part in obs]} were given; (O,) or (B, O) are "
                             "expected") from error
        goal_BG = None
        if goal is not None:
            goal_BG = np.asarray(goal, np.float32).reshape(len(obs_BO), -1)
        seed_B = np.zeros(len(obs_BO), np.int64) if state is None else state[0].copy()
        if len(seed_B) != len(obs_BO):
            raise ValueError(f"a state of {len(seed_B)} episodes was given with {len(obs_BO)} observations; give back "
                             "what the last call returned, or None if all episodes begin")
        fresh_B = np.full(len(obs_BO), state is None)
        if episode_start is not None:
            fresh_B |= np.asarray(episode_start, bool)
        for i in np.flatnonzero(fresh_B):
            seed_B[i] = self.seed if deterministic else fold(self.seed, self.episodes)
            self.episodes += 1
        if fresh_B.any():
            self.agent.reset(seed_B.tolist(), fresh_B)
        act_BA = self.agent.act(obs_BO, goal_BG)
        if single:
            act_BA = act_BA[0]
        return act_BA, (seed_B,)
