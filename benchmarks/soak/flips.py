"""Single flipped bits and cut ends in every kind of file: what is loaded is what was saved, or nothing.

A file is refused in one line, or what comes out of it equals the original in what it means. Lines of a log that are
damaged are left out, with a warning.
"""

from __future__ import annotations

import os
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gentraj.config import read_json
from gentraj.data import load_episodes, load_npz
from gentraj.data.episodes import episodes_hash
from gentraj.runs.folder import load, read_config
from gentraj.runs.model_card import read_scores
from gentraj.runs.records import read_learning_curve, read_starts
from gentraj.runs.reference import read_reference
from gentraj.training import checkpoint
from gentraj.training.log import LogWarning, read_metrics

from .attempt import apart, attempt
from .material import DATASET, Material, make

FLIPS, CUTS = 9_000, 1_000


@dataclass(frozen=True)
class Target:
    """A kind of file, and how what it means is read."""

    paths: list[Path]
    read: Callable[[], Any]
    is_log: bool = False
    """Whether it is a file of rows, of which some may be missing if a warning says so, or if the end is cut off."""
    through: Callable[..., tuple[Any, str]] = attempt


def run(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Damages files 10,000 times, as often for each kind, or for so many minutes.

    Raises AssertionError, with the file and the place of the damage, for one that is read as something else, for any
    error that is no refusal, and for a hang.
    """
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")
    rng, deadline, targets = random.Random(seed), time.monotonic() + 60 * minutes, find_targets(make(folder))
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in targets}
    wanted = [(kind, target, cut) for number in range(FLIPS + CUTS) for cut in [number >= FLIPS]
              for kind, target in [list(targets.items())[number % len(targets)]]]
    rng.shuffle(wanted)
    originals = {kind: target.through(target.read, kind)[0] for kind, target in targets.items()}
    for kind, target, cut in wanted:
        if time.monotonic() > deadline:
            break
        outcomes[kind][damage(kind, target, originals[kind], rng, cut)] += 1
    done = sum(each.total() for each in outcomes.values())
    return {"damages": done, "of": FLIPS + CUTS, "silently_wrong": 0,
            "kinds": {kind: dict(sorted(each.items())) for kind, each in outcomes.items()}}


def find_targets(material: Material) -> dict[str, Target]:
    """The kinds of files, by name."""
    run = material.run("planner")
    newest, loaded = checkpoint.load(run).folder, load(run)
    reference, context = run / "reference.safetensors", loaded.data.context_dim
    sha256 = str(read_json(run / "config.json")["reference_sha256"])
    weights = sorted(newest.glob("*.safetensors"))
    return {
        "safetensors": Target(weights, partial(_tensors, run)),
        "meta.json": Target([newest / "meta.json"], partial(_tensors, run)),
        "config.json": Target([run / "config.json"], partial(read_config, run)),
        "reference.safetensors": Target([reference], lambda: _hash(
            *vars(read_reference(reference, sha256, loaded.model.spec, context)).values())),
        "evaluation.json": Target([run / "evaluation.json"], lambda: read_scores(run, loaded.step, loaded.step)[0]),
        "provenance.json": Target([run / "provenance.json"], lambda: read_starts(run)),
        "metrics.jsonl": Target([run / "metrics.jsonl"], lambda: read_metrics(run), is_log=True),
        "scores.jsonl": Target([run / "scores.jsonl"], lambda: read_learning_curve(run), is_log=True),
        "npz": Target(material.npz[:1], lambda: _meaning(load_npz(material.npz[0]))),
        "hdf5": Target([material.minari / "main_data.hdf5", material.minari / "metadata.json"],
                       lambda: _meaning(load_episodes(DATASET)), through=apart),
    }


def damage(kind: str, target: Target, original: Any, rng: random.Random, cut: bool) -> str:
    """Flips a random bit, or cuts off a random part of the end, of a file of this kind, reads it, and restores it.

    Returns what came out: "refused", "the same" or "rows left out".
    """
    path = rng.choice(target.paths)
    data = path.read_bytes()
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    damaged = data[:place] if cut else data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    what = f"{path.name}, " + (f"cut to {place} bytes" if cut else f"bit {bit} of byte {place} flipped")
    path.write_bytes(damaged)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found, refusal = target.through(target.read, what)
    finally:
        path.write_bytes(data)
    if refusal:
        return "refused"
    if target.is_log and len(found) < len(original):
        told = cut or any(isinstance(one.message, LogWarning) for one in warned)
        assert told and all(any(covers(row, one) for one in original) for row in found), f"{what}: {kind} lost rows"
        return "rows left out"
    assert covers(found, original), f"{what}: {kind} is read as something else: {found!r:.2000} != {original!r:.2000}"
    return "the same"


def covers(found: Any, original: Any) -> bool:
    """Whether all values of the original are there. A damaged hash that is no hash any more is one more value."""
    if isinstance(original, dict) and isinstance(found, dict):
        return all(key in found and covers(found[key], value) for key, value in original.items())
    if isinstance(original, list) and isinstance(found, list):
        return len(found) == len(original) and all(map(covers, found, original))
    return bool(found == original)


def _tensors(run: Path) -> Any:
    saved = checkpoint.load(run)
    return saved.step, saved.meta, _hash(*(tensor for tensors in saved.components.values() for tensor in
                                           tensors.values()))


def _hash(*tensors: torch.Tensor | None) -> list[bytes]:
    return [b"" if tensor is None else tensor.numpy().tobytes() for tensor in tensors]


def _meaning(episodes: Any) -> tuple[Any, ...]:
    return episodes_hash(episodes), episodes.env, episodes.obs_keys, episodes.goal_dims
