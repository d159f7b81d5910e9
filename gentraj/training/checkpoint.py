"""Checkpoints: folders that are either complete, with hashes that hold, or not there under their final names.

    RUN/step-00001234/model.safetensors ...  the tensors of each component
    RUN/step-00001234/meta.json              format, versions, size and hash of each file, the caller's meta

This holds even if the process is killed while it saves. Loading executes no code and opens nothing outside the folder.
This module has `save` and `load`, and the lock of a run folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import reprlib
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..config import MAX_BYTES, ConfigError, escaped, from_json, parse_json, to_json
from ..files import FileRefused, open_plain, physical_memory, read_file
from ..progress import one_line

FORMAT_VERSION = 3  # 2: every config names its kind; 3: control.prior_fraction was control.drawn
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
FOLDER = re.compile(r"step-[0-9]{8,18}")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read or used; the message is one line that names it and the reason."""

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


class NothingSaved(CheckpointError):
    """The folder holds no checkpoint yet."""


class NewerFormat(CheckpointError):
    """The checkpoint was written by a newer gentraj."""


class RunLocked(CheckpointError):
    """Another process is training in this folder."""


class OlderFormat(CheckpointError):
    """The checkpoint was written by an older gentraj."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was skipped, or it was written with another version of torch."""


@dataclass(frozen=True)
class Checkpoint:
    """What `load` read from `folder`: the arguments of `save`, with all tensors on the CPU."""

    step: int
    components: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]
    folder: Path

    def text(self, key: str) -> str:
        """The string `key` in the caller's meta. Raises `CheckpointError` if there is none."""
        if not isinstance(value := self.meta.get(key), str):
            raise CheckpointError(f"{self.folder / 'meta.json'}: meta.{key} is {reprlib.repr(value)}; str is expected")
        return value


@dataclass(frozen=True)
class _File:
    size: int
    sha256: str


@dataclass(frozen=True)
class _Meta:
    format_version: int
    step: int
    versions: dict[str, str]
    files: dict[str, _File]
    meta: dict[str, Any]


def name_of(step: int) -> str:
    """The name of the folder with the checkpoint of a step."""
    return f"step-{step:08d}"


# -- writing


def save(folder: Path, step: int, components: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any],
         keep: int = 3) -> Path:
    """Writes `components` ({file name: {tensor name: tensor}}) and `meta` (JSON values) as the checkpoint of `step`.

    Deletes all but the `keep` (at least 1) newest checkpoints afterwards, and returns the folder of the new one.
    Raises `CheckpointError` where it cannot be written; the earlier checkpoints are then intact.
    """
    final, temporary = folder / name_of(step), folder / f".tmp-{step}-{os.getpid()}"
    contents = {f"{name}.safetensors": _to_bytes(name, tensors) for name, tensors in components.items()}
    files = {name: _File(len(data), _sha256(data)) for name, data in contents.items()}
    contents["meta.json"] = meta_json(to_json(_Meta(FORMAT_VERSION, step, _versions(), files, dict(meta))))
    try:
        _set_aside_if_broken(final)
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, data in contents.items():
            _write(temporary / name, data)
        _sync_folder(temporary)
        os.replace(temporary, final)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_cannot_write(final, error, sum(map(len, contents.values())))) from error
    _prune(folder, step, keep)
    return final


def _to_bytes(name: str, tensors: Mapping[str, Tensor]) -> bytes:
    if not NAME.fullmatch(name):
        raise ValueError(f"the component name '{name}' is not a file name; use letters, digits, '_', '-' and '.'")
    # Copied, because safetensors refuses tied weights: two names for the same memory.
    return safetensors.torch.save({key: t.detach().to("cpu", copy=True).contiguous() for key, t in tensors.items()})


def _write(path: Path, data: bytes) -> None:
    """Writes a new file and waits until it is on the disk; the writer of safetensors does not fsync."""
    fd = open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest):]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _set_aside_if_broken(final: Path) -> None:
    """Renames a damaged checkpoint out of the way of a new one of the same step; a valid one is never replaced."""
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
        doomed = folder / f".tmp-old-{path.name}-{os.getpid()}"  # a half-deleted folder must not keep its final name
        try:
            os.replace(path, doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            warnings.warn(f"{path}: cannot be deleted: {error.strerror}", CheckpointWarning, stacklevel=3)


def _cannot_write(path: Path, error: OSError, needed: int) -> str:
    parent = next(p for p in path.parents if os.path.isdir(p))
    free = shutil.disk_usage(parent).free
    return (f"{path}: cannot be written: {error.strerror}; {needed} bytes are needed, {free} are free; "
            "the checkpoints before it are intact")


# -- reading


def load(folder: Path, step: int | None = None) -> Checkpoint:
    """Reads the newest valid checkpoint of a run folder, or the checkpoint of `step`.

    Damaged checkpoints are skipped with a `CheckpointWarning`. Raises `NothingSaved` where the folder has no
    checkpoint yet, `NewerFormat` or `OlderFormat` for one that this version cannot read, and `CheckpointError` where
    no checkpoint is valid.
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
        except (NewerFormat, OlderFormat):
            raise
        except CheckpointError as error:
            warnings.warn(f"{error}; this checkpoint is skipped", CheckpointWarning, stacklevel=2)
            reasons.append(str(error))
    raise CheckpointError(f"{folder}: none of its {len(candidates)} checkpoints is valid ({reasons[0]}); restore a "
                          "copy of one, or train in another folder (nothing here is overwritten)")


def has_checkpoints(folder: Path) -> bool:
    """Whether the folder contains checkpoints, valid or not."""
    return bool(_folders(folder))


def discard(folder: Path) -> None:
    """Deletes all checkpoints in a folder, so that another training can begin there."""
    with RunLock(folder):
        for path in _folders(folder):
            shutil.rmtree(path)


def saved_bytes(folder: Path) -> int:
    """The size of the largest checkpoint, as the newest may be damaged; 0 if there is none."""
    sizes = (sum(path.lstat().st_size for path in each.glob("*.safetensors")) for each in _folders(folder))
    return max(sizes, default=0)


def saved_step(folder: Path) -> int:
    """The training step of the newest checkpoint, valid or not; 0 if there is none."""
    return next(map(_step, _folders(folder)), 0)


def _folders(folder: Path) -> list[Path]:
    """The checkpoints, newest first by the step in their names: clocks jump, and copies change modification times."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted((folder / name for name in names if FOLDER.fullmatch(name)), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _read(path: Path) -> Checkpoint:
    if path.is_symlink():
        raise CheckpointError(f"{path}: is a link; a folder is expected")
    meta = _read_meta(path / "meta.json")
    if path.name != name_of(meta.step):
        raise CheckpointError(f"{path}: its meta.json belongs to step {meta.step}")
    components = {}
    for name, file in meta.files.items():
        if not (name.endswith(".safetensors") and NAME.fullmatch(name)):
            raise CheckpointError(f"{path / 'meta.json'}: '{name}' is not the name of a tensor file")
        data = _read_bytes(path / name, file.size)
        if _sha256(data) != file.sha256:
            raise CheckpointError(f"{path / name}: its hash differs from the one in meta.json; the file is damaged")
        components[name.removesuffix(".safetensors")] = _tensors(path / name, data)
    if (written := meta.versions.get("torch")) != torch.__version__:
        warnings.warn(f"{path}: was written with torch {written} and this is {torch.__version__}; "
                      "the results may differ in the last bits", CheckpointWarning, stacklevel=3)
    return Checkpoint(meta.step, components, meta.meta, path)


def _read_meta(path: Path) -> _Meta:
    data = _read_bytes(path)
    try:
        body = parse_json(data, str(path))
        if meta_json(body) != data:
            raise ConfigError(f"{path}: its hash does not match; the file is damaged")
        del body["sha256"]
        check_format(body.get("format_version"), str(path.parent))
        return from_json(_Meta, body, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def check_format(version: object, where: str) -> None:
    """Raises `NewerFormat` or `OlderFormat`, naming both versions, unless `version` is this gentraj's format.

    Raises `CheckpointError` for what no gentraj ever wrote.
    """
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{where}: format_version is {reprlib.repr(version)}; a whole number of at least 1 is "
                              f"expected, and this gentraj reads format {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise NewerFormat(f"{where}: has format {version} and this gentraj reads format {FORMAT_VERSION}; install a "
                          "newer gentraj")
    if version < FORMAT_VERSION:
        raise OlderFormat(f"{where}: has format {version} and this gentraj reads format {FORMAT_VERSION}; train it "
                          "again, or use it with the gentraj that wrote it")


def _read_bytes(path: Path, size: int | None = None) -> bytes:
    """Reads a file of exactly `size` bytes, by default of at most `MAX_BYTES`."""
    try:
        data = read_file(path, MAX_BYTES if size is None else min(size, physical_memory() // 2))
    except FileRefused as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if size is not None and len(data) != size:
        raise CheckpointError(f"{path}: has {len(data)} bytes; {size} are expected")
    return data


def _tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)  # checks the lengths in the header against the data
    except (SafetensorError, KeyError, RuntimeError) as error:  # a dtype or a shape that torch does not have
        raise CheckpointError(f"{path}: is not a safetensors file: {one_line(error)}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def meta_json(fields: Mapping[str, Any]) -> bytes:
    """The bytes of a meta.json: the fields as JSON, and the hash of the other fields under `sha256`."""
    body = {key: value for key, value in fields.items() if key != "sha256"}
    return json.dumps({"sha256": _sha256(json.dumps(body).encode()), **body}).encode()


# -- one live trainer per run folder


class RunLock:
    """Locks a run folder, which is created if it is missing, while the `with` block runs.

    The kernel releases the lock if the process dies. Raises `RunLocked`, naming the process that holds the lock, and
    `CheckpointError` where the folder cannot be created. Once the lock is held, folders `.tmp-*` that interrupted
    saves have left are removed: no other process can be writing them.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> RunLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.fd = open_plain(self.folder / ".lock", os.O_RDWR | os.O_CREAT)
            self._take()
        except OSError as error:
            what = error if isinstance(error, FileRefused) else error.strerror
            raise CheckpointError(f"{self.folder}: cannot be used as a run folder: {what}") from error
        for stale in self.folder.glob(".tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _take(self) -> None:
        import fcntl  # not on every platform, and only training needs it

        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # the holder may be about to write its process id
            holder = os.pread(self.fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self.fd)
            raise RunLocked(f"{self.folder}: process {holder} is training here; wait for it, stop it, "
                            "or give another folder") from None
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
