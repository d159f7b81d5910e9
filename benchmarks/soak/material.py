"""Small files of every kind that gentraj reads: run folders, and the same episodes in every layout of a dataset."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gentraj import runs
from gentraj.config import write_json
from gentraj.data import Episodes, load_npz, save_minari, save_npz
from gentraj.data.episodes import take
from gentraj.envs.evaluation.evaluate import EvaluationConfig
from gentraj.runs.evaluation import evaluate_and_save
from gentraj.runs.measures import measure_run

from .trainings import TRAINING, record_hopper, tiny

DATASET = "soak/hopper-v0"
EPISODES = 4
KINDS = {"planner": "veteran", "policy": "td3bc", "world-model": "world-ensemble"}


@dataclass(frozen=True)
class Material:
    """Where the files are: `folder` has the runs, named by their kinds, and the files of data."""

    folder: Path

    def run(self, kind: str) -> Path:
        return self.folder / kind

    @property
    def npz(self) -> list[Path]:
        """The episodes in gentraj's, D4RL's and OGBench's layout."""
        return [self.folder / f"{name}.npz" for name in ("own", "d4rl", "ogbench")]

    @property
    def hdf5(self) -> Path:
        """The episodes in D4RL's layout."""
        return self.folder / "d4rl.hdf5"

    @property
    def minari(self) -> Path:
        """The folder of `DATASET` in `Material.datasets`, which MINARI_DATASETS_PATH must name."""
        return self.datasets / DATASET / "data"

    @property
    def datasets(self) -> Path:
        return self.folder / "minari"


def make(folder: Path) -> Material:
    """Writes the files; the planner's run has a file of each kind that a run folder may have."""
    material, training = Material(folder), replace(TRAINING, steps=6, log_every=1, keep=1, eval_episodes=2)
    if not (folder / "hopper.npz").exists():
        record_hopper(folder)
    for kind, preset in KINDS.items():
        config = replace(training, eval_every=3 * (kind == "planner"))
        runs.train(tiny(preset, folder, training=config), folder / kind, progress=False)
    run = runs.load(folder / "planner")
    evaluate_and_save(run, EvaluationConfig(episodes=2))
    write_json(run.folder / "measures.json", measure_run(run, num=64, progress=False))
    _write_data(material, load_npz(folder / "hopper.npz"))
    return material


def copy_of(material: Material, folder: Path) -> Material:
    """A copy that may be changed."""
    return Material(Path(shutil.copytree(material.folder, folder)))


def _write_data(material: Material, hopper: Episodes) -> None:
    episodes = take(hopper, [(e, 0, int(hopper.lengths[e])) for e in range(EPISODES)])
    own, d4rl, ogbench = material.npz
    save_npz(episodes, own)
    arrays = flat(episodes)
    np.savez(d4rl, **arrays)
    ends = arrays["terminals"] | arrays["timeouts"]
    np.savez(ogbench, observations=arrays["observations"], actions=arrays["actions"], terminals=ends.astype(np.float32))
    with h5py.File(material.hdf5, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array)
        file["metadata/env_id"] = "Hopper-v5"
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(material.datasets)
    try:
        save_minari(episodes, DATASET, description="for the soak")
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        os.environ |= {} if before is None else {"MINARI_DATASETS_PATH": before}


def flat(episodes: Episodes) -> dict[str, Any]:
    """The episodes under D4RL's names."""
    first = np.delete(np.arange(len(episodes.obs)), np.cumsum(episodes.lengths + 1) - 1)
    return {"observations": episodes.obs[first], "next_observations": episodes.obs[first + 1], "actions": episodes.act,
            "rewards": episodes.reward, "terminals": episodes.terminated, "timeouts": episodes.truncated}
