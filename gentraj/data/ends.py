"""Whether terminated episodes end where others do not go on, as they do if the flags are right."""

from __future__ import annotations

import numpy as np

from .episodes import Episodes

NEIGHBOURS = 5  # of each step that terminates
TERMINATIONS = 200  # that are looked at, at most
OUTCOMES = 50_000  # that they are compared with, at most
FEWEST_EXPECTED = 5.0  # neighbours that terminate, below which their number says nothing
BY_CHANCE = 2.5  # times the share of all steps that terminate; where flags were right, it was 4 to 40 times
MORE = 0.1  # than that share, where it is large
MOST = 0.5  # of the neighbours, above which they are ends whatever the share is


def ends_like_any(e: Episodes) -> bool:
    """Whether what terminated steps lead to looks like what any step leads to; false where they are too few to tell.

    Of a fall, a trip or a goal, the nearest neighbours among the outcomes of all steps of other episodes, (o', r), are
    such ends, too. Of a time limit or a cut, they end as rarely as all steps do (a test of two samples by nearest
    neighbours: Schilling 1986).
    """
    rng = np.random.default_rng(0)
    rows = np.arange(e.num_steps)
    if len(rows) > OUTCOMES:
        rows = np.sort(rng.choice(rows, OUTCOMES, replace=False))
    episode_S = np.repeat(np.arange(len(e)), e.lengths)
    ended_R, episode_R = e.terminated[rows], episode_S[rows]
    ends = np.flatnonzero(ended_R)
    if len(ends) > TERMINATIONS:
        ends = rng.choice(ends, TERMINATIONS, replace=False)
    share = ended_R.mean()
    x_RX = np.column_stack([e.obs[rows + episode_S[rows] + 1], e.reward[rows]]).astype(np.float64)
    few = NEIGHBOURS * len(ends) * share < FEWEST_EXPECTED or len(rows) <= NEIGHBOURS
    if few or not np.isfinite(x_RX).all():
        return False
    spread_X = x_RX.std(0)
    x_RX = ((x_RX - x_RX.mean(0)) / np.where(spread_X > 0, spread_X, 1)).astype(np.float32)
    size_R = (x_RX**2).sum(1)
    distance_NR = size_R[ends, None] + size_R - 2 * x_RX[ends] @ x_RX.T
    distance_NR[episode_R[ends, None] == episode_R] = np.inf
    near_NK = np.argpartition(distance_NR, NEIGHBOURS, 1)[:, :NEIGHBOURS]
    return bool(ended_R[near_NK].mean() < min(BY_CHANCE * share, share + MORE, MOST))
