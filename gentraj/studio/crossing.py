"""Which parts of a drawn path cross a wall or an obstacle: constraints hold at its timesteps, not between them."""

from __future__ import annotations

import numpy as np


def cross_boxes(places_H2: np.ndarray, low_W2: np.ndarray, high_W2: np.ndarray) -> np.ndarray:
    """(H - 1,) whether the straight line from each place to the next one enters any of the open boxes.

    Bounds may be infinite.
    """
    start_S12, step_S12 = places_H2[:-1, None].astype(float), np.diff(places_H2.astype(float), axis=0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # a line along a border is NaN, and enters nothing
        ends_2SW2 = np.stack([(low_W2 - start_S12) / step_S12, (high_W2 - start_S12) / step_S12])
    enters_SW, leaves_SW = ends_2SW2.min(0).max(-1), ends_2SW2.max(0).min(-1)  # as parts of the line
    return (np.maximum(enters_SW, 0) < np.minimum(leaves_SW, 1)).any(1)


def cross_disc(places_H2: np.ndarray, centre_2: np.ndarray, radius: float) -> np.ndarray:
    """(H - 1,) whether the straight line from each place to the next one enters the open disc."""
    start_S2, step_S2 = places_H2[:-1] - centre_2, np.diff(places_H2, axis=0)
    part_S = -(start_S2 * step_S2).sum(1) / np.maximum((step_S2**2).sum(1), 1e-12)
    nearest_S2 = start_S2 + np.clip(part_S, 0, 1)[:, None] * step_S2
    return np.linalg.norm(nearest_S2, axis=1) < radius
