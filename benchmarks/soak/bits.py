"""The bits that a training leaves, which must not depend on whether it was interrupted."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gentraj.training import checkpoint
from gentraj.training.log import read_metrics, read_rows


def fingerprint(folder: Path) -> tuple[dict[str, str], list[dict], list[dict]]:
    """What a training leaves: hashes of the newest checkpoint's tensors, which are the weights and the states of the
    optimisers, the rows of metrics without their wall-clock seconds, and the learning curve."""
    files = checkpoint.load(folder).folder.glob("*.safetensors")
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(folder)]
    return ({f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}, rows,
            read_rows(folder / "scores.jsonl"))
