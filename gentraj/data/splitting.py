"""Joining datasets, and taking them apart: into held-out data, halves, and episodes that end where they terminate."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .episodes import ARRAYS, DataError, Episodes, last_steps, spans

CONDITIONED_ON = {"goal", "task"}  # extras that policies may be conditioned on
LONGEST_PIECE_STEPS = 1000  # steps; most episodes are shorter and stay whole
FEWEST_PIECES = 20  # where the data have that many steps


def concatenate(datasets: Sequence[Episodes]) -> Episodes:
    """Joins several datasets of one environment.

    Extras are kept where all datasets have them; a warning says where goals or tasks are lost. Where some datasets mark
    synthetic data, the others count as real. The environment is that of the first dataset which names one; a warning
    says where another one names another. Raises `DataError` for no datasets and for datasets whose observations,
    actions or extras differ in layout, or whose entries have other names; some may have none.
    """
    if not datasets:
        raise DataError("no datasets to join; give at least one")
    if len(datasets) == 1:
        return datasets[0]
    if any("imagined" in d.extras for d in datasets):
        datasets = [replace(d, extras={"imagined": np.zeros((len(d.obs), 1))} | dict(d.extras)) for d in datasets]
    first = datasets[0]
    env = next((d.env for d in datasets if d.env is not None), None)
    names = {key: next(filter(None, (getattr(d, key) for d in datasets)), ()) for key in ("obs_names", "act_names")}
    shared = {key for key in first.extras if all(key in d.extras for d in datasets)}
    for other in datasets[1:]:
        layouts = [{"obs_dim": d.obs_dim, "act_dim": d.act_dim, "goal_dims": d.goal_dims, "obs_keys": d.obs_keys}
                   | {f"the width of {key}": d.extras[key].shape[1] for key in shared} for d in (other, first)]
        for layout, d in zip(layouts, (other, first), strict=True):
            layout |= {key: getattr(d, key) or known for key, known in names.items()}
        for key, value in layouts[0].items():
            if value != layouts[1][key]:
                raise DataError(f"{other.name}: {key} is {value} but {layouts[1][key]} in {first.name}; only datasets "
                                "of one environment can be joined")
        if other.env is not None and environment_name(other.env) != environment_name(env):
            warnings.warn(f"{other.name} is of {environment_name(other.env)}; the joined data count as those of "
                          f"{environment_name(env)}", stacklevel=2)
    for key in CONDITIONED_ON - shared:
        if having := [d.name for d in datasets if key in d.extras]:
            warnings.warn(f"only {', '.join(having)} of the datasets to join have {key} beside their observations; the "
                          "joined data have none", stacklevel=2)
    joined: dict[str, Any] = {key: np.concatenate([d.arrays[key] for d in datasets]) for key in ARRAYS}
    joined["extras"] = {key: np.concatenate([d.extras[key] for d in datasets]) for key in first.extras if key in shared}
    return replace(first, name="+".join(d.name for d in datasets), env=env, **names, **joined)


def environment_name(env: str | None) -> str:
    """The id in Gymnasium's EnvSpec as JSON without its version, such as PointMaze_UMaze; the text if it is no such."""
    try:
        return re.sub(r"-v\d+$", "", json.loads(env or "")["id"])
    except (ValueError, TypeError, KeyError):
        return str(env)


def continues(e: Episodes) -> np.ndarray:
    """(E - 1,) true where the next episode continues a truncated one: it starts with the observation that the truncated
    episode ends with. If that also started with it, as where observations never change, nothing tells that the next one
    continues it."""
    ends = e.last_rows[:-1]
    moved = (e.obs[ends] != e.obs[ends - e.lengths[:-1]]).any(1)
    return moved & (e.obs[ends] == e.obs[ends + 1]).all(1) & ~e.terminated[e.starts[1:] - 1]


def stitch(e: Episodes) -> Episodes:
    """Joins each truncated episode with the next one where that continues it.

    Recordings of one endless run are often truncated at every goal. After stitching, windows may cross a goal, so a
    model also learns what happens beyond it.
    """
    joins = continues(e)
    if not joins.any():
        return e
    keep = np.ones(len(e.obs), dtype=bool)
    keep[e.last_rows[:-1][joins]] = False  # this observation is also the first of the next episode
    truncated = e.truncated.copy()
    truncated[e.starts[1:][joins] - 1] = False
    first = np.flatnonzero(np.concatenate([[True], ~joins]))
    return replace(e, truncated=truncated, validate=False).pick(slice(None), keep, np.add.reduceat(e.lengths, first))


def hold_out(episodes: Episodes, share: float, seed: int, *, whole: bool = False) -> tuple[Episodes, Episodes]:
    """Splits the data at random into a training set and a held-out set with about `share` of the steps.

    The pieces drawn are whole episodes; long episodes are split into several pieces. With `whole`, only an episode that
    has more than 1,000 steps, and more than are to be held out, is split, and so is a single one. Each side gets at
    least one piece. Raises ValueError for data of a single step.
    """
    longest = min(LONGEST_PIECE_STEPS, max(1, episodes.num_steps // FEWEST_PIECES))
    if whole and len(episodes) > 1:
        longest = max(LONGEST_PIECE_STEPS, int(share * episodes.num_steps))
    pieces = np.array([(e, at, min(at + longest, T)) for e, T in enumerate(episodes.lengths.tolist())
                       for at in range(0, T, longest)])
    if len(pieces) < 2:
        raise ValueError(f"{episodes.name} has a single step; nothing can be held out of it")
    order = np.random.default_rng(seed).permutation(len(pieces))
    steps_before = np.cumsum(np.diff(pieces[order, 1:]).ravel())
    held = 1 + int(np.searchsorted(steps_before, share * episodes.num_steps))
    held = min(held, len(pieces) - 1)  # at least one, and not all
    return take(episodes, *pieces[np.sort(order[held:])].T), take(episodes, *pieces[np.sort(order[:held])].T)


def halves(episodes: Episodes) -> tuple[Episodes, Episodes]:
    """Splits the data into the even and the odd episodes. A single episode is returned twice."""
    if len(episodes) == 1:
        return episodes, episodes
    return episodes[::2], episodes[1::2]


def split_at_terminations(e: Episodes) -> Episodes:
    """Ends an episode at each terminal step, and makes the steps after it an episode of their own.

    `e` need not be valid, as terminal steps within an episode are refused.
    """
    episode_S = np.repeat(np.arange(len(e.lengths)), e.lengths)
    ends = np.flatnonzero(e.terminated | last_steps(e.lengths)) + 1
    begins = np.concatenate([[0], ends[:-1]])
    offsets = e.starts[episode_S[begins]]
    return take(replace(e, validate=False, truncated=e.truncated & ~e.terminated), episode_S[begins], begins - offsets,
                ends - offsets)


def take(e: Episodes, episode_K: np.ndarray, first_K: np.ndarray, end_K: np.ndarray) -> Episodes:
    """The K pieces of these episodes as episodes, each from its first step up to, and without, the step `end`; one that
    ends early in its episode is truncated."""
    lengths_K = end_K - first_K
    step_K = e.starts[episode_K] + first_K
    taken = e.pick(spans(step_K, lengths_K), spans(step_K + episode_K, lengths_K + 1), lengths_K)
    return replace(taken, truncated=taken.truncated | (last_steps(taken.lengths) & ~taken.terminated))
