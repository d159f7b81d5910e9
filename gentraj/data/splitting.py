"""Data that are held out: pieces of episodes that training does not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .episodes import Episodes

LONGEST = 1000  # steps of a piece; most episodes are one
PIECES = 20  # at least, where the data have as many steps


def hold_out(episodes: Episodes, share: float, seed: int) -> tuple[Episodes, Episodes]:
    """The data without `share` of their steps, about, and these: pieces drawn at random, at least one on either side.

    Pieces are whole episodes, but for long ones, which are cut. Raises ValueError for data of a single step.
    """
    longest = min(LONGEST, max(1, episodes.num_steps // PIECES))
    pieces = [(e, at, min(at + longest, T)) for e, T in enumerate(episodes.lengths.tolist())
              for at in range(0, T, longest)]
    if len(pieces) < 2:
        raise ValueError(f"{episodes.name} has a single step; nothing can be held out of it")
    order, steps = np.random.default_rng(seed).permutation(len(pieces)), 0
    number = 0
    while number < 1 or (steps < share * episodes.num_steps and number < len(pieces) - 1):
        _, first, last = pieces[order[number]]
        number, steps = number + 1, steps + last - first
    held = set(order[:number].tolist())
    return tuple(_take(episodes, [piece for i, piece in enumerate(pieces) if (i in held) == which])
                 for which in (False, True))  # pyright: ignore[reportReturnType]


def halves(episodes: Episodes) -> tuple[Episodes, Episodes]:
    """Every other episode, and the others; twice the same where there is but one."""
    whole = [(i, 0, T) for i, T in enumerate(episodes.lengths.tolist())]
    return (_take(episodes, whole[::2]), _take(episodes, whole[1::2])) if len(whole) > 1 else (episodes, episodes)


def _take(e: Episodes, pieces: list[tuple[int, int, int]]) -> Episodes:
    """Episodes of their own; one that goes on in the data is truncated."""
    starts = e.starts
    steps = np.concatenate([np.arange(starts[i] + a, starts[i] + b) for i, a, b in pieces])
    rows = np.concatenate([np.arange(starts[i] + i + a, starts[i] + i + b + 1) for i, a, b in pieces])
    lengths = np.array([b - a for _, a, b in pieces])
    truncated, terminated, ends = e.truncated[steps].copy(), e.terminated[steps], np.cumsum(lengths) - 1
    truncated[ends] |= ~terminated[ends]
    return replace(e, obs=e.obs[rows], act=e.act[steps], reward=e.reward[steps], terminated=terminated,
                   truncated=truncated, lengths=lengths, extras={key: x[rows] for key, x in e.extras.items()})
