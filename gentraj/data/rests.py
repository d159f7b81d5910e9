"""Where positions come to rest, as objects do, which an arm moves one after another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

FLIP = 1e6  # the distance between two positions that differ by a switch; more than any other
PACE_STEPS = 12  # environment steps over which the speed is measured, so that noise of single steps does not count
SPEED_QUANTILE = 0.9
STILL = 1e-4  # of the longest way in PACE_STEPS: what goes less, does not move
SLOW = 0.01  # of the speed: who moves less in a step, rests
REST_STEPS = 3  # at least, of a rest
QUIET = 0.2  # share of the steps in which entries rest at least: their differences show the noise
GROWN = 2.0  # times by which differences are larger over `PACE_STEPS`, at least, where entries move
NOISY = 0.1  # of the speed: where noise looks like this much, means over more steps are compared
WINDOWS = (1, 2, 3, 5, 8, 12)  # steps of these means
DEVIATIONS = 4  # of the noise, which nothing at rest goes beyond


def scales(position_NG: np.ndarray) -> np.ndarray:
    """(G,) what to multiply the entries of positions by, so that positions which differ by a switch, an entry that is
    0 or 1, are far from each other."""
    is_binary_G = ((position_NG == 0) | (position_NG == 1)).all(0)
    return np.where(is_binary_G & (np.ptp(position_NG, 0) > 0), FLIP, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Rests:
    """The rests in N recorded positions of G entries, in their order."""

    scale_G: np.ndarray
    """What the entries are multiplied by, so that two positions that differ by a switch are far from each other."""
    speed: float
    """Distance in one step, as a mean over a few steps, that 90 % of the recorded steps stay below in which the
    position moves; 1 where there are only switches."""
    noise_G: np.ndarray
    """The standard deviation of the noise of each entry at rest, or up to twice as much; 0 for switches."""
    since_N: np.ndarray
    """The row in which the rest began that each row belongs to; the row itself where the position moves."""
    next_N: np.ndarray
    """The row in which the position comes to rest next, elsewhere than now, in the same episode; N if it never does."""

    @classmethod
    def of(cls, position_NG: np.ndarray, episode_N: np.ndarray) -> Rests:
        """Finds the rests of recorded positions, given the number of the episode of each.

        Raises ValueError for data in which nothing moves.
        """
        N, scale_G = len(position_NG), scales(position_NG)
        speed = speed_of(position_NG[:, scale_G == 1], episode_N) or float(scale_G.max() > 1)
        if not speed > 0:
            raise ValueError("the entries of the goal do not change within the episodes, so that there are no ways "
                             "between places; name other goal_dims")
        scaled_NG = position_NG * scale_G
        row_N = np.arange(N)
        begins_N = np.concatenate([[True], episode_N[1:] != episode_N[:-1]])
        noise_G = np.where(scale_G == 1, noise_of(position_NG, episode_N), 0.0)
        window = _window(speed, noise_G)
        if window is None:  # what looks like noise is nearly as fast as they go: they walk about
            noise_G, window = np.zeros_like(noise_G), 1
        moves_N = begins_N.copy()
        moves_N[1:] |= (np.diff(position_NG[:, scale_G == FLIP], axis=0) != 0).any(1)
        moves_N |= _moves(position_NG[:, scale_G == 1].astype(np.float64), begins_N, speed, noise_G, window)
        since_N = np.maximum.accumulate(np.where(moves_N, row_N, 0))
        start = np.flatnonzero(moves_N)
        start = start[np.diff(np.append(start, N)) >= REST_STEPS]
        moved = np.linalg.norm(np.diff(scaled_NG[start], axis=0), axis=1) > speed
        start = start[np.concatenate([[True], moved | (np.diff(episode_N[start]) != 0)])] if len(start) else start
        start = np.append(start, N)
        next_N = start[np.searchsorted(start, row_N, side="right")]
        episode_M = np.append(episode_N, episode_N[-1] + 1)
        return cls(scale_G, speed, noise_G, since_N, np.where(episode_M[next_N] == episode_N, next_N, N))

    @property
    def still(self) -> float:
        """The distance within which two recorded positions are the same at rest."""
        return max(SLOW * self.speed, DEVIATIONS * math.sqrt(2 * np.square(self.noise_G).sum()))

    @property
    def share(self) -> float:
        """The share of the rows in which the position rests."""
        return float((self.since_N != np.arange(len(self.since_N))).mean())


def speed_of(position_NG: np.ndarray, episode_N: np.ndarray) -> float:
    """The speed of positions, as in `Rests`; 0 where nothing moves."""
    span = min(PACE_STEPS, int(np.unique(episode_N, return_counts=True)[1].max()) - 1)
    if span < 1:
        return 0.0
    moved_MG = (position_NG[span:] - position_NG[:-span])[episode_N[span:] == episode_N[:-span]]
    moved_M = np.linalg.norm(moved_MG, axis=1)
    moved_M = moved_M[moved_M > STILL * moved_M.max(initial=0.0)]
    return float(np.quantile(moved_M, SPEED_QUANTILE)) / span if len(moved_M) else 0.0


def noise_of(position_NG: np.ndarray, episode_N: np.ndarray) -> np.ndarray:
    """(G,) the standard deviation of noise of entries at rest, by the smallest `QUIET` of their differences from step
    to step; up to twice as much if they rest half of the time, and 0 where differences grow with time: they move."""
    differences = []
    for span in (1, PACE_STEPS):
        apart_NG = np.abs(position_NG[span:] - position_NG[:-span])[episode_N[span:] == episode_N[:-span]]
        if not len(apart_NG):
            return np.zeros(position_NG.shape[1])
        differences.append(np.quantile(apart_NG, QUIET, axis=0))
    at_once_G, later_G = differences
    noise_G = at_once_G / (math.sqrt(2) * NormalDist().inv_cdf((1 + QUIET) / 2))
    return np.where(later_G <= GROWN * at_once_G, noise_G, 0.0)


def _window(speed: float, noise_G: np.ndarray) -> int | None:
    """The steps of the shortest means by which this speed is told from noise at rest; None where none of them do."""
    for window in WINDOWS:
        if _noise_of_means(window, noise_G) <= NOISY * speed:
            return window
    return None


def _noise_of_means(window: int, noise_G: np.ndarray) -> float:
    """What the pace between two means over so many steps does not go beyond at rest."""
    return DEVIATIONS * math.sqrt(2 * np.square(noise_G).sum() / window) / window


def _moves(position_NG: np.ndarray, begins_N: np.ndarray, speed: float, noise_G: np.ndarray, window: int) -> np.ndarray:
    """(N,) whether each position is elsewhere than the one before: by means over so many steps."""
    noise = _noise_of_means(window, noise_G)
    row_N, N = np.arange(len(begins_N)), len(begins_N)
    first_N = np.maximum.accumulate(np.where(begins_N, row_N, 0))
    last_N = np.append(np.flatnonzero(begins_N)[1:], N)[np.cumsum(begins_N) - 1]
    total_MG = np.concatenate([np.zeros_like(position_NG[:1]), np.cumsum(position_NG, 0)])
    before_N, after_N = np.maximum(row_N - window, first_N), np.minimum(row_N + window, last_N)
    mean_before_NG = (total_MG[row_N] - total_MG[before_N]) / np.maximum(row_N - before_N, 1)[:, None]
    mean_after_NG = (total_MG[after_N] - total_MG[row_N]) / (after_N - row_N)[:, None]
    return (np.linalg.norm(mean_after_NG - mean_before_NG, axis=1) / window >= max(SLOW * speed, noise)) & ~begins_N
