"""Branches: short synthetic episodes that a world model rolls out from states of the data (MBPO: Janner et al. 2019).

A branch is truncated before the first step that is not trusted, or terminates with it
(`ImaginedConfig.termination_cost`). Branch i is a function of (seed, i), whatever the other branches are. In shapes, K
is the largest number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gentraj.data import Episodes, Windows
from gentraj.data.episodes import last_steps
from gentraj.progress import bar
from gentraj.randomness import fold
from gentraj.trajectory import Agent, TrajectorySpec
from gentraj.worlds.model import WorldModel

from .imagined import ImaginedConfig, ImaginedEpisodes, Reward

FEWEST, MOST = 16, 1024  # branches that are rolled out together
# Give up if, after so many branches or in the end, less than this share of their steps is trusted.
ENOUGH, RARE = 1000, 0.01


class Starts(NamedTuple):
    """The starts of branches, and their actions unless an agent acts."""

    obs_BO: np.ndarray
    goal_BG: np.ndarray
    """The goals; G is 0 for data without goals."""
    limit_B: np.ndarray
    """The largest number of steps of each branch."""
    act_BKA: np.ndarray | None = None
    """The actions; those beyond a branch's limit do not count."""
    past_BPD: np.ndarray | None = None
    """The steps before the starts that a world model with a history remembers; None is the beginning of an episode."""


SampleStarts = Callable[[Sequence[int]], Starts]
"""A function of one seed per branch."""


class Branches(NamedTuple):
    """B branches of at most K steps; entries of a branch beyond its `steps_B` do not count."""

    goal_BG: np.ndarray
    limit_B: np.ndarray
    obs_BKO: np.ndarray
    """(B, K + 1, O) observations, the final one included."""
    act_BKA: np.ndarray
    reward_BK: np.ndarray
    steps_B: np.ndarray
    """The number of steps that are kept."""
    terminated_B: np.ndarray
    why_B: np.ndarray
    """Why the step was not trusted before which a branch was truncated, or with which it terminated; ""."""

    def counts(self) -> dict[str, Any]:
        """Returns how much was kept, and for each reason for distrust the number of branches that it stopped and of
        steps that they lost."""
        missing_B = self.limit_B - self.steps_B
        untrusted = {str(why): {"branches": int((self.why_B == why).sum()),
                                "steps": int(missing_B[self.why_B == why].sum())}
                     for why in sorted(set(self.why_B) - {""})}
        return {"branches": len(self.steps_B), "branches kept": int((self.steps_B > 0).sum()),
                "steps": int(self.steps_B.sum()), "terminated": int(self.terminated_B.sum()),
                "terminated by the unknown": int((self.terminated_B & (self.why_B != "")).sum()),
                "untrusted": untrusted}

    def episodes(self, like: Episodes) -> Episodes:
        """Returns the branches that have steps as a dataset that describes its environment and goals as `like` does."""
        kept_B = self.steps_B > 0
        steps_B = self.steps_B[kept_B]
        k_K = np.arange(self.act_BKA.shape[1] + 1)
        taken_BK = k_K[:-1] < steps_B[:, None]
        last_S = last_steps(steps_B)
        terminated = last_S & np.repeat(self.terminated_B[kept_B], steps_B)
        goals = {"goal": np.repeat(self.goal_BG[kept_B], steps_B + 1, axis=0)} if "goal" in like.extras else {}
        return replace(like, obs=self.obs_BKO[kept_B][k_K <= steps_B[:, None]], act=self.act_BKA[kept_B][taken_BK],
                       reward=self.reward_BK[kept_B][taken_BK], terminated=terminated, truncated=last_S & ~terminated,
                       lengths=steps_B, extras=goals, name=f"imagined beside {like.name}")


def from_data(episodes: Episodes, length: int, noise: float | None,
              memory: TrajectorySpec | None = None) -> SampleStarts:
    """Returns a function that samples starts uniformly from the steps of the data, with their goals.

    Their actions are those that follow in the data until the episode ends, at most `length`, with Gaussian noise whose
    standard deviation is `noise` times half the range of the data's actions, clipped to that range. With `noise` None
    an agent must act. `memory` says which steps before the starts a world model remembers.
    """
    S = episodes.num_steps
    lengths = episodes.lengths
    row_S = np.arange(S) + np.repeat(np.arange(len(lengths)), lengths)
    left_S = np.repeat(np.cumsum(lengths), lengths) - np.arange(S)
    goal_NG = episodes.extras.get("goal", np.zeros((len(episodes.obs), 0), np.float32))
    low_A = episodes.act.min(0)
    high_A = episodes.act.max(0)
    windows = Windows(episodes, memory) if memory is not None and memory.past else None

    def sample_starts(seeds: Sequence[int]) -> Starts:
        rngs = [np.random.default_rng(seed) for seed in seeds]
        step_B = np.array([rng.integers(S) for rng in rngs])
        past_BPD = None if windows is None else windows.past(windows.at(step_B))
        start = Starts(episodes.obs[row_S[step_B]], goal_NG[row_S[step_B]], np.full(len(seeds), length),
                       past_BPD=past_BPD)
        if noise is None:
            return start
        eps_BKA = np.stack([rng.normal(size=(length, episodes.act_dim)) for rng in rngs])
        act_BKA = episodes.act[np.minimum(step_B[:, None] + np.arange(length), S - 1)]
        act_BKA = np.clip(act_BKA + noise * (high_A - low_A) / 2 * eps_BKA, low_A, high_A).astype(np.float32)
        return start._replace(limit_B=np.minimum(left_S[step_B], length), act_BKA=act_BKA)

    return sample_starts


def imagine(world: WorldModel, sample_starts: SampleStarts, steps: int, config: ImaginedConfig, seed: int = 0,
            agent: Agent | None = None, reward: Reward | None = None, *, progress: bool = True) -> Branches:
    """Rolls out branches of at most `config.max_episode_steps` steps until `steps` steps are kept.

    Actions are those of `agent`, or those of the starts if there is none. Rewards are those of `reward`, a function of
    observations and goals, or those that the world model predicts if there is none. Raises ValueError if hardly any
    step is trusted.
    """
    parts: list[Branches] = []
    begun = kept = 0
    with bar(steps, "imagined", shown=progress) as done:
        while kept < steps:
            number = min(max(-(-(steps - kept) // config.max_episode_steps), FEWEST), MOST)
            seeds = [fold(seed, begun + i) for i in range(number)]
            parts.append(_branch(ImaginedEpisodes(world, number, config, reward), sample_starts(seeds), seeds, agent))
            begun += number
            kept += int(parts[-1].steps_B.sum())
            done.update(min(kept, steps) - done.n)
            if begun >= ENOUGH or kept >= steps:
                _check_trusted(_joined(parts))
    branches = _joined(parts)
    enough = 1 + int(np.searchsorted(np.cumsum(branches.steps_B), steps))
    return Branches(*(x[:enough] for x in branches))


def follow(episodes: ImaginedEpisodes, limit_B: np.ndarray, act: Callable[[int], np.ndarray]) -> Branches:
    """Rolls out one branch from each of the episodes' states. `act(k)` returns the actions (B, A) of step k."""
    batch, K = len(limit_B), episodes.config.max_episode_steps
    obs_BKO = np.zeros((batch, K + 1, episodes.obs_BO.shape[1]), np.float32)
    obs_BKO[:, 0] = episodes.obs_BO
    act_BKA = np.zeros((batch, K, episodes.world.spec.act_dim), np.float32)
    reward_BK = np.zeros((batch, K), np.float32)
    why_B = episodes.distrust(np.zeros(batch))
    steps_B = np.zeros(batch, int)
    terminated_B = np.zeros(batch, bool)
    cost = episodes.config.termination_cost
    for k in range(K):
        moving_B = (why_B == "") & ~terminated_B & (k < limit_B)
        if not moving_B.any():
            break
        act_BKA[:, k] = act(k)
        before_BO = episodes.obs_BO
        happened = episodes.step(act_BKA[:, k], moving_B)
        # unlike in `step`, of terminated episodes too
        why_B = np.where(moving_B, episodes.distrust(happened.uncertainty), why_B)
        trusted_B = why_B == ""
        obs_BKO[:, k + 1] = np.where(trusted_B[:, None], episodes.obs_BO, before_BO)
        reward_BK[:, k] = np.where(trusted_B, happened.reward, -(cost or 0))
        kept_B = moving_B & (trusted_B | (cost is not None))
        steps_B += kept_B
        terminated_B |= kept_B & happened.terminated
    return Branches(episodes.goal_BG, limit_B, obs_BKO, act_BKA, reward_BK, steps_B, terminated_B, why_B)


def _branch(episodes: ImaginedEpisodes, start: Starts, seeds: Sequence[int], agent: Agent | None) -> Branches:
    """One branch from each start."""
    episodes.rngs = [np.random.default_rng(fold(seed, 1)) for seed in seeds]
    episodes.place(start.obs_BO, start.goal_BG, start.past_BPD)
    if agent is not None:
        agent.reset([fold(seed, 2) for seed in seeds])
        agent.pad_batches()
        return follow(episodes, start.limit_B, lambda k: episodes.ask(agent))
    act_BKA = start.act_BKA
    if act_BKA is None:
        raise ValueError("the starts have no actions and there is no agent; give one of them")
    return follow(episodes, start.limit_B, lambda k: act_BKA[:, k])


def _check_trusted(made: Branches) -> None:
    counts = made.counts()
    possible = int(made.limit_B.sum())
    trusted = counts["steps"] - counts["terminated by the unknown"]
    if trusted < RARE * possible:
        reasons = ", ".join(f"{why} {n['branches']}" for why, n in counts["untrusted"].items())
        raise ValueError(f"of {possible} synthetic steps only {trusted} can be trusted; reasons, and how many of "
                         f"{counts['branches']} branches they stopped: {reasons}. Allow more uncertainty, or train the "
                         "world model for longer")


def _joined(parts: Sequence[Branches]) -> Branches:
    return Branches(*(np.concatenate(each) for each in zip(*parts, strict=True)))
