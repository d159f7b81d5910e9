"""An adapter that gives an agent the `predict` of stable-baselines3, as its `evaluate_policy` expects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

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

        The state holds the seeds of the episodes. The entry "desired_goal" of a dict observation is the goal. An
        episode begins where `episode_start` is true, and everywhere if `state` is None: without the state, every action
        is decided anew. With `deterministic` all episodes have the same seed, so that equal observations lead to equal
        actions; otherwise each episode has a seed of its own. Raises ValueError for an observation or a state of
        another shape.
        """
        obs_BO, goal_BG, single = self._read(observation)
        seed_B = np.zeros(len(obs_BO), np.int64)
        if state is not None:
            seed_B = state[0].copy()
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
            self.agent.reset(torch.from_numpy(fresh_B), seed_B.tolist())
        act_BA = self.agent.act(obs_BO, goal_BG).detach().cpu().numpy()
        if single:
            act_BA = act_BA[0]
        return act_BA, (seed_B,)

    def _read(self, observation: Observation) -> tuple[Tensor, Tensor | None, bool]:
        """Observations (B, O), goals (B, G) or None, and whether a single observation without a batch was given.

        The arrays of a dict are flattened; it is a single observation if one of them has a single axis.
        """
        goal = None
        parts: list[np.ndarray] = []
        in_parts = isinstance(observation, Mapping)
        if in_parts:
            goal = observation.get("desired_goal")
            parts = [observation[key] for key in self.obs_keys]
        else:
            parts = [observation]
        obs = [np.asarray(part) for part in parts]
        axes = [part.ndim for part in obs]
        single = min(axes) == 1
        if 0 in axes or (max(axes) > 2 and not in_parts) or (not single and len({len(part) for part in obs}) > 1):
            raise ValueError(f"observations of shape {[part.shape for part in obs]} were given; (O,) or (B, O) are "
                             "expected")
        rows = torch.cat([_rows(part, single) for part in obs], 1)
        return rows, None if goal is None else _rows(goal, single), single


def _rows(x: np.ndarray, single: bool) -> Tensor:
    return torch.from_numpy(np.asarray(x, np.float32).reshape(1 if single else len(x), -1))
