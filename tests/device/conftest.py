"""The simulated device takes a process of its own, which `make device` starts: it has to be there before torch."""

import sys
from pathlib import Path

import numpy as np
import pytest

from gentraj.data import Episodes, save_npz

if "simulated_device" not in sys.modules:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Files of three short walks of a body that pushes another one now and then; with goals, or with rewards."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    lengths = np.array([60, 70, 50])
    rows = lengths.sum() + len(lengths)
    pushed = (np.arange(rows) // 20)[:, None] * [[0.3, -0.2]]
    obs = np.concatenate([pushed, 0.1 * rng.normal(size=(rows, 2)).cumsum(0)], 1).astype(np.float32)
    act = rng.uniform(-1, 1, (lengths.sum(), 2)).astype(np.float32)
    cut = np.isin(np.arange(len(act)), np.cumsum(lengths) - 1)
    files = dict[bool, Path]()
    for goals in (False, True):
        walks = Episodes(obs, act, rng.normal(size=len(act)).astype(np.float32), cut & False, cut, lengths,
                         goal_dims=(0, 1) if goals else ())
        files[goals] = save_npz(walks, folder / f"{goals}.npz")
    return files
