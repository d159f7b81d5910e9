"""Checkpoints: folders that are complete, with hashes that hold, or not there under their final names.

    RUN/step-00001234/model.safetensors ...  the tensors of each component
    RUN/step-00001234/meta.json              format, versions, hashes, the caller's meta

This holds even if the process is killed while it saves. Loading executes no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..config import escaped
from ..files import sync
from ..progress import one_line

FORMAT = 1
LOCK = ".lock"  # the file in a run folder that the process which trains there holds
FOLDER_NAME = re.compile(r"step-[0-9]{8,}")
SECONDS_TO_NOTE_PID = 0.05  # after a process has taken a lock


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read or used; the message is one line that names it and the reason."""

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


class NothingSaved(CheckpointError):
    """The folder holds no checkpoint yet."""


class RunLocked(CheckpointError):
    """Another process is training in this folder."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was skipped, or it was written with another version of torch."""


@dataclass(frozen=True)
class Checkpoint:
    """What `load` read from `folder`: the arguments of `save`, with all tensors on the CPU."""

    step: int
    components: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]
    folder: Path


def name_of(step: int) -> str:
    """The name of the folder with the checkpoint of a step."""
    return f"step-{step:08d}"


# -- writing


def save(folder: Path, step: int, components: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, object],
         keep: int = 3) -> Path:
    """Writes `components` ({file name: {tensor name: tensor}}) and `meta` (JSON values) as the checkpoint of `step`.

    Deletes all but the `keep` (at least 1) newest checkpoints afterwards, and returns the folder of the new one. A
    damaged one of the same step is set aside. Raises `CheckpointError` where it cannot be written, and where `step` has
    a valid one; the earlier checkpoints are then intact.
    """
    final, temporary = folder / name_of(step), folder / f".tmp-{os.getpid()}-{name_of(step)}"
    files = {f"{name}.safetensors": _to_bytes(tensors) for name, tensors in components.items()}
    body = {"format": FORMAT, "step": step, "torch": torch.__version__, "meta": dict(meta),
            "files": {name: _sha256(data) for name, data in files.items()}}
    files["meta.json"] = meta_json(body)
    try:
        _set_aside_if_damaged(final)
        temporary.mkdir(parents=True)
        for name, data in files.items():
            (temporary / name).write_bytes(data)
            sync(temporary / name)
        sync(temporary)
        os.replace(temporary, final)
        sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        needed = sum(len(data) for data in files.values())
        free = shutil.disk_usage(next(p for p in final.parents if os.path.isdir(p))).free
        raise CheckpointError(f"{final}: cannot be written: {error.strerror}; {needed} bytes are needed, {free} are "
                              "free; the checkpoints before it are intact") from error
    _prune(folder, step, keep)
    return final


def meta_json(body: Mapping[str, object]) -> bytes:
    """The bytes of meta.json: its fields, and their hash. Raises ValueError for numbers that are not finite."""
    text = json.dumps(body, allow_nan=False)
    return json.dumps({**body, "sha256": _sha256(text.encode())}).encode()


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # Copied, because safetensors refuses tied weights: two names for the same memory.
    return safetensors.torch.save({key: t.detach().to("cpu", copy=True).contiguous() for key, t in tensors.items()})


def _set_aside_if_damaged(final: Path) -> None:
    """Renames a damaged checkpoint out of the way of a new one of the same step."""
    if not os.path.lexists(final):
        return
    try:
        _read(final)
    except CheckpointError:
        os.replace(final, final.with_name(f"broken-{final.name}-{os.getpid()}"))
    else:
        raise CheckpointError(f"{final}: exists already, and a checkpoint is never overwritten")


def _prune(folder: Path, step: int, keep: int) -> None:
    older = [path for path in _folders(folder) if _step(path) < step]  # damaged checkpoints may be newer
    for path in older[keep - 1:]:
        doomed = folder / f".tmp-{os.getpid()}-{path.name}"  # a half-deleted folder must not keep its final name
        try:
            os.replace(path, doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            warnings.warn(f"{path}: cannot be deleted: {error.strerror}", CheckpointWarning, stacklevel=3)


# -- reading


def load(folder: Path, step: int | None = None) -> Checkpoint:
    """Reads the newest valid checkpoint of a run folder, or the checkpoint of `step`.

    Damaged checkpoints are skipped with a `CheckpointWarning`. Raises `NothingSaved` where the folder has no
    checkpoint yet, and `CheckpointError` where none is valid.
    """
    candidates = _folders(folder)
    if not candidates:
        raise NothingSaved(f"{folder}: nothing saved yet; train first")
    if step is not None:
        if (path := folder / name_of(step)) not in candidates:
            raise CheckpointError(f"{folder}: no checkpoint of step {step}; there are those of "
                                  f"{', '.join(str(_step(each)) for each in reversed(candidates))}")
        return _read(path)
    reasons = []
    for path in candidates:
        try:
            return _read(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; this checkpoint is skipped", CheckpointWarning, stacklevel=2)
            reasons.append(str(error))
    raise CheckpointError(f"{folder}: none of its {len(candidates)} checkpoints is valid ({reasons[0]}); restore a "
                          "copy of one, or train in another folder (nothing here is overwritten)")


def has_checkpoints(folder: Path) -> bool:
    """Whether the folder contains checkpoints, valid or not."""
    return bool(_folders(folder))


def saved_steps(folder: Path) -> list[int]:
    """The training steps of the checkpoints, valid or not, in increasing order."""
    return sorted(map(_step, _folders(folder)))


def saved_step(folder: Path) -> int:
    """The training step of the newest checkpoint, valid or not; 0 if there is none."""
    return max(saved_steps(folder), default=0)


def _folders(folder: Path) -> list[Path]:
    """The checkpoints, newest first by the step in their names: clocks jump, and copies change modification times."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted((folder / name for name in names if FOLDER_NAME.fullmatch(name)), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _read(path: Path) -> Checkpoint:
    body = _read_meta(path / "meta.json")
    if path.name != name_of(body["step"]):
        raise CheckpointError(f"{path}: its meta.json belongs to step {body['step']}")
    components = {}
    for name, sha256 in body["files"].items():
        data = _read_bytes(path / name)
        if _sha256(data) != sha256:
            raise CheckpointError(f"{path / name}: its hash differs from the one in meta.json; the file is damaged")
        try:
            components[name.removesuffix(".safetensors")] = safetensors.torch.load(data)
        except SafetensorError as error:
            raise CheckpointError(f"{path / name}: is not a safetensors file: {one_line(error)}") from error
    if body["torch"] != torch.__version__:
        warnings.warn(f"{path}: was written with torch {body['torch']} and this is {torch.__version__}; "
                      "the results may differ in the last bits", CheckpointWarning, stacklevel=3)
    return Checkpoint(body["step"], components, body["meta"], path)


def _read_meta(path: Path) -> dict[str, Any]:
    """The fields of meta.json. Raises `CheckpointError` unless they are, to the byte, what `meta_json` wrote."""
    data = _read_bytes(path)
    with suppress(ValueError, RecursionError):
        body = json.loads(data)
        if isinstance(body, dict):
            if body.get("format", FORMAT) != FORMAT:
                raise CheckpointError(f"{path.parent}: has format {body['format']!r}, and this gentraj reads format "
                                      f"{FORMAT}; use it with the gentraj that wrote it, or train it again")
            body.pop("sha256", None)
            if meta_json(body) == data:
                return body
    raise CheckpointError(f"{path}: is not what was saved; the file is damaged")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- one live trainer per run folder


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Locks a run folder, which is created if it is missing, while the `with` block runs.

    The kernel releases the lock if the process dies. Raises `RunLocked`, naming the process that holds the lock, and
    `CheckpointError` where the folder cannot be created. Once the lock is held, what interrupted saves have left is
    removed: no other process can be writing it.
    """
    import fcntl  # not on every platform, and only training needs it

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be used as a run folder: {error.filename} cannot be made "
                              f"({error.strerror}); give another place") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(SECONDS_TO_NOTE_PID)
            lock.seek(0)
            raise RunLocked(f"{folder}: process {lock.read().strip() or 'unknown'} is training here; wait for it, stop "
                            "it, or give another folder") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        for stale in folder.glob(".tmp-*"):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)
        yield
