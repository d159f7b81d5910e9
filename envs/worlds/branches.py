"""Branches: short episodes that a world model imagines from where data were (MBPO: Janner et al. 2019).

A branch is truncated before the first step that is not to be trusted, or ends for good with it, where it was
(`ImaginedConfig.unknown`). Branch i is a function of (seed, i), whatever is imagined beside it. Shapes beside the
legend: K steps of a branch at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gentraj.data import Episodes
from gentraj.progress import bar
from gentraj.randomness import fold
from gentraj.trajectory import Agent
from gentraj.worlds.model import WorldModel

from .imagined import ImaginedConfig, ImaginedEpisodes, Reward

FEWEST, MOST = 16, 1024  # branches that are imagined at once
ENOUGH, RARE = 1000, 0.01  # branches that tell whether it is worth it: less than this share of their steps is kept


class Starts(NamedTuple):
    """Where branches start, and what they do there unless an agent acts."""

    obs_BO: np.ndarray
    goal_BG: np.ndarray
    """No columns without goals."""
    limit_B: np.ndarray
    """Steps, at most."""
    act_BKA: np.ndarray | None = None
    """Within each limit."""


SampleStarts = Callable[[Sequence[int]], Starts]  # a seed for each branch


class Branches(NamedTuple):
    goal_BG: np.ndarray
    limit_B: np.ndarray
    obs_BKO: np.ndarray
    """One row more than K; what lies past `steps_B` does not count."""
    act_BKA: np.ndarray
    reward_BK: np.ndarray
    steps_B: np.ndarray
    """Those that are kept."""
    terminated_B: np.ndarray
    why_B: np.ndarray
    """Why a step was not believed, before which it was truncated, or which ended it; "" where there was none."""

    @property
    def by_unknown_B(self) -> np.ndarray:
        """Whose last step is none to be trusted, and ended it for good."""
        return self.terminated_B & (self.why_B != "")

    def counts(self) -> dict[str, Any]:
        """What was kept; and of each reason not to believe in a step the branches that have one, and the steps of these
        that are not made."""
        missing_B = self.limit_B - self.steps_B
        untrusted = {str(why): {"branches": int((self.why_B == why).sum()),
                                "steps": int(missing_B[self.why_B == why].sum())}
                     for why in sorted(set(self.why_B) - {""})}
        return {"branches": len(self.steps_B), "branches kept": int((self.steps_B > 0).sum()),
                "steps": int(self.steps_B.sum()), "terminated": int(self.terminated_B.sum()),
                "terminated by the unknown": int(self.by_unknown_B.sum()), "untrusted": untrusted}

    def episodes(self, like: Episodes) -> Episodes:
        """Those with a step left, beside such data: of their environment, and with goals where they have some."""
        kept_B = self.steps_B > 0
        steps_B, terminated_B = self.steps_B[kept_B], self.terminated_B[kept_B]
        k_K = np.arange(self.act_BKA.shape[1] + 1)
        taken_BK, last_S = k_K[:-1] < steps_B[:, None], np.cumsum(steps_B) - 1
        ends = np.zeros((2, steps_B.sum()), bool)  # terminated, truncated
        ends[:, last_S] = terminated_B, ~terminated_B
        goals = {"goal": np.repeat(self.goal_BG[kept_B], steps_B + 1, axis=0)} if "goal" in like.extras else {}
        return replace(like, obs=self.obs_BKO[kept_B][k_K <= steps_B[:, None]], act=self.act_BKA[kept_B][taken_BK],
                       reward=self.reward_BK[kept_B][taken_BK], terminated=ends[0], truncated=ends[1],
                       lengths=steps_B, extras=goals, name=f"imagined beside {like.name}")


def from_data(episodes: Episodes, length: int, noise: float | None) -> SampleStarts:
    """Starts at steps of the data, with the goals there, each equally likely. Actions are those that followed, as far
    as the episode goes, with normal noise in half ranges of the actions, within their limits; None leaves them to an
    agent."""
    S, lengths = episodes.num_steps, episodes.lengths
    row_S = np.arange(S) + np.repeat(np.arange(len(lengths)), lengths)
    left_S = np.repeat(np.cumsum(lengths), lengths) - np.arange(S)
    goal_NG = episodes.extras.get("goal", np.zeros((len(episodes.obs), 0), np.float32))
    low_A, high_A = episodes.act.min(0), episodes.act.max(0)

    def sample_starts(seeds: Sequence[int]) -> Starts:
        rngs = [np.random.default_rng(seed) for seed in seeds]
        step_B = np.array([rng.integers(S) for rng in rngs])
        start = Starts(episodes.obs[row_S[step_B]], goal_NG[row_S[step_B]], np.full(len(seeds), length))
        if noise is None:
            return start
        eps_BKA = np.stack([rng.normal(size=(length, episodes.act_dim)) for rng in rngs])
        act_BKA = episodes.act[np.minimum(step_B[:, None] + np.arange(length), S - 1)]
        act_BKA = np.clip(act_BKA + noise * (high_A - low_A) / 2 * eps_BKA, low_A, high_A).astype(np.float32)
        return start._replace(limit_B=np.minimum(left_S[step_B], length), act_BKA=act_BKA)

    return sample_starts


def imagine(world: WorldModel, sample_starts: SampleStarts, steps: int, config: ImaginedConfig, seed: int = 0,
            agent: Agent | None = None, reward: Reward | None = None, *, progress: bool = True) -> Branches:
    """As many branches as have `steps` steps to keep; they are at most `config.max_episode_steps` long.

    `agent` acts in the imagined states; without one actions are those that were drawn. `reward` is what being somewhere
    earns; without one rewards are imagined too. Raises ValueError where hardly a step is to be trusted.
    """
    parts: list[Branches] = []
    made = kept = believed = 0
    with bar(steps, "imagined", shown=progress) as done:
        while kept < steps:
            number = min(max(-(-(steps - kept) // config.max_episode_steps), FEWEST), MOST)
            seeds = [fold(seed, made + i) for i in range(number)]
            parts.append(follow(ImaginedEpisodes(world, number, config, reward), sample_starts(seeds), seeds, agent))
            made, more = made + number, int(parts[-1].steps_B.sum())
            done.update(min(more, steps - kept))
            kept, believed = kept + more, believed + more - int(parts[-1].by_unknown_B.sum())
            asked = sum(int(part.limit_B.sum()) for part in parts)
            if made >= ENOUGH and believed < RARE * asked:
                reasons = ", ".join(f"{why} {n['branches']}" for why, n in _joined(parts).counts()["untrusted"].items())
                raise ValueError(f"of {asked} synthetic steps only {believed} are to be trusted; of {made} branches "
                                 f"failed: {reasons}. Allow more uncertainty, or train the world model for longer")
    branches = _joined(parts)
    enough = 1 + int(np.searchsorted(np.cumsum(branches.steps_B), steps))
    return Branches(*(x[:enough] for x in branches))


def follow(episodes: ImaginedEpisodes, start: Starts, seeds: Sequence[int], agent: Agent | None = None) -> Branches:
    """A branch from each start."""
    batch, K = len(seeds), episodes.config.max_episode_steps
    episodes.rngs = [np.random.default_rng(fold(seed, 1)) for seed in seeds]
    episodes.place(start.obs_BO, start.goal_BG)
    if agent is not None:
        agent.reset(None, [fold(seed, 2) for seed in seeds])
    obs_BKO = np.zeros((batch, K + 1, start.obs_BO.shape[1]), np.float32)
    act_BKA, reward_BK = np.zeros((batch, K, episodes.world.spec.act_dim), np.float32), np.zeros((batch, K), np.float32)
    why_B, steps_B, terminated_B = episodes.distrust(np.zeros(batch)), np.zeros(batch, int), np.zeros(batch, bool)
    obs_BKO[:, 0] = episodes.obs_BO
    for k in range(K):
        moving_B = (why_B == "") & ~terminated_B & (k < start.limit_B)
        if not moving_B.any():
            break
        act_BKA[:, k] = _actions(episodes, start, k, agent)
        before_BO, happened = episodes.obs_BO, episodes.step(act_BKA[:, k], moving_B)
        # of ends too, which `step` may believe
        why_B = np.where(moving_B, episodes.distrust(happened.uncertainty), why_B)
        believed_B = why_B == ""
        obs_BKO[:, k + 1] = np.where(believed_B[:, None], episodes.obs_BO, before_BO)
        reward_BK[:, k] = np.where(believed_B, happened.reward, -episodes.config.cost)
        kept_B = moving_B & (believed_B | (episodes.config.unknown == "end"))
        steps_B += kept_B
        terminated_B |= kept_B & happened.terminated
    return Branches(start.goal_BG, start.limit_B, obs_BKO, act_BKA, reward_BK, steps_B, terminated_B, why_B)


def _actions(episodes: ImaginedEpisodes, start: Starts, k: int, agent: Agent | None) -> np.ndarray:
    if agent is not None:
        return episodes.ask(agent)
    if start.act_BKA is None:
        raise ValueError("nobody says what to do: the starts have no actions, and there is no agent")
    return start.act_BKA[:, k]


def _joined(parts: Sequence[Branches]) -> Branches:
    return Branches(*(np.concatenate(each) for each in zip(*parts, strict=True)))
