"""Trains on 10 million steps from each kind of file, and measures the memory that this takes beside the arrays.

The files are written in pieces. `gentraj train` reads them in processes of their own, and what it takes for a small
file is subtracted: that is the libraries and the model.
"""

from __future__ import annotations

import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gentraj.data.npz import FORMAT

from .small_run import Meter, mib, started

STEPS, SMALL, LENGTH = 10_000_000, 10_000, 1000  # steps of the datasets, and of an episode
OBS, ACT = 10, 2
UPDATES = 300
TRAINER, TOGETHER = 1.2, 2.4  # bounds on peak memory over the arrays: of the trainer, and with the reader of the file
TRAIN = ("bc-gaussian", "--steps", str(UPDATES), "--no-stitch", "--policy.model.network.width", "32")


def run(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Trains from each kind of file, however many `minutes` are given. Raises AssertionError above the bounds."""
    arrays = STEPS * (4 * (OBS + ACT + 1) + 2)
    base = trained(write_npz(folder / "small", SMALL, seed), folder / "run-small")[0]
    figures: dict[str, Any] = {"steps": STEPS, "updates": UPDATES, "arrays_mib": mib(arrays), "base_mib": mib(base)}
    for kind, write in WRITERS.items():
        source = write(folder / kind, STEPS, seed)
        start = time.perf_counter()
        peaks = trained(source, folder / f"run-{kind}")
        trainer, together = ((each - base) / arrays for each in peaks)
        figures |= {f"{kind}_seconds": round(time.perf_counter() - start, 1), f"{kind}_peak_mib": mib(peaks[0]),
                    f"{kind}_peak_per_array": round(trainer, 3), f"{kind}_together_per_array": round(together, 3)}
        assert trainer <= TRAINER and together <= TOGETHER, (
            f"training on {STEPS:,} steps from {kind} took {trainer:.2f} times the memory of the arrays, and "
            f"{together:.2f} with the process that reads the file; at most {TRAINER} and {TOGETHER} are expected")
    return figures


def pieces(steps: int, seed: int) -> Iterator[dict[str, Any]]:
    """Episodes of a random walk that its actions drive, one after another: (T + 1) observations and T of the rest."""
    for episode in range(steps // LENGTH):
        rng = np.random.default_rng([seed, episode])
        act = rng.uniform(-1, 1, (LENGTH, ACT)).astype(np.float32)
        obs = rng.normal(size=(LENGTH + 1, OBS)).astype(np.float32)
        obs[1:, :ACT] = obs[0, :ACT] + 0.1 * act.cumsum(0)
        end = np.arange(LENGTH) == LENGTH - 1
        yield {"obs": obs, "act": act, "reward": obs[1:, 0], "terminated": np.zeros(LENGTH, bool), "truncated": end}


def write_npz(path: Path, steps: int, seed: int) -> Path:
    """An npz as `save_npz` writes it."""
    path = path.with_suffix(".npz")
    episodes, rows = steps // LENGTH, {"obs": steps + steps // LENGTH}
    with zipfile.ZipFile(path, "w") as archive:
        for key, first in next(pieces(steps, seed)).items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                header = {"descr": first.dtype.str, "fortran_order": False,
                          "shape": (rows.get(key, steps), *first.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
                for piece in pieces(steps, seed):
                    file.write(np.ascontiguousarray(piece[key]).data)
        for key, value in {"lengths": np.full(episodes, LENGTH), "format": np.array(FORMAT), "env": np.array(""),
                           "obs_keys": np.array([], str), "goal_dims": np.array([], np.int64)}.items():
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array(file, value)
    return path


def write_hdf5(path: Path, steps: int, seed: int) -> Path:
    """A file in D4RL's layout."""
    import h5py

    path = path.with_suffix(".hdf5")
    names = {"observations": "obs", "actions": "act", "rewards": "reward", "terminals": "terminated",
             "timeouts": "truncated"}
    with h5py.File(path, "w") as file:
        for episode, piece in enumerate(pieces(steps, seed)):
            for name, key in names.items():
                rows = piece[key][:LENGTH]
                array = file.require_dataset(name, (steps, *rows.shape[1:]), rows.dtype)
                array[episode * LENGTH : (episode + 1) * LENGTH] = rows
    return path


def write_minari(path: Path, steps: int, seed: int) -> str:
    """A Minari dataset, whose id is returned."""
    os.environ["MINARI_DATASETS_PATH"] = str(path.parent)
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    buffers: Any = (EpisodeBuffer(observations=piece["obs"], actions=piece["act"], rewards=piece["reward"],
                                  terminations=piece["terminated"], truncations=piece["truncated"])
                    for piece in pieces(steps, seed))
    name = f"soak/{path.name}-v0"
    minari.create_dataset_from_buffers(name, buffers, observation_space=Box(-np.inf, np.inf, (OBS,), np.float32),
                                       action_space=Box(-1, 1, (ACT,), np.float32), data_format="hdf5",
                                       description="long", algorithm_name="none", author="none",
                                       author_email="none", code_permalink="none")
    return name


WRITERS: dict[str, Callable[[Path, int, int], Path | str]] = {
    "npz": write_npz, "hdf5": write_hdf5, "minari": write_minari}


def trained(source: Path | str, run_dir: Path) -> tuple[int, int]:
    """The peak memory of a training in bytes: of its process, and of that and its children together.

    Raises AssertionError where it fails.
    """
    command = [sys.executable, "-m", "gentraj", "train", *TRAIN, "--dataset", str(source), "--run-dir", str(run_dir)]
    with (run_dir.parent / "output.txt").open("w+") as output:
        with started(command, output) as process, Meter(process.pid) as meter:
            process.wait()
        output.seek(0)
        assert process.returncode == 0, f"{' '.join(command)} ended with code {process.returncode}: {output.read()}"
    return meter.own, meter.peak
