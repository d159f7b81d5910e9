"""The zoo: small trained runs that come with the package. `zoo:NAME` stands for one wherever a run is expected.

    gentraj/zoo/NAME/config.json            as in the folder of a run
                     weights.safetensors    the weights of all parts
                     reference.safetensors  fewer windows of the data, and what else the run keeps of them
                     evaluation.json        what `gentraj evaluate zoo:NAME` gives
                     world.json             of a world model, what `gentraj judge` gives
                     provenance.json        the command that trained the run
                     commands.txt           the commands to type for its data and its training

Of a network and the moving average of its weights only the average is packed, without optimisers, and all matrices in
half precision. A run is unpacked once, to runs/zoo/NAME, which is then the folder of a run like any other.
`python -m benchmarks.zoo` trains and packs the runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ...config import JsonObject, check_known, read_json
from ...data.sources import dataset_names
from ...files import write_file
from ...progress import say
from ...training import checkpoint
from ...training.checkpoint import CheckpointError
from ...training.optimization import MovingAverage
from ...training.state import module_tensors, restore_module
from .folder import RunFolder, fingerprint, run_class
from .run import Run

PREFIX = "zoo:"
PACKED = Path(__file__).parents[2] / "zoo"
UNPACKED = Path("runs", "zoo")
WEIGHTS = "weights.safetensors"
COMMANDS_FILE = "commands.txt"
HASH = "packed.sha256"  # in an unpacked run: which one it is
ABOUT = "about"  # the only entry of its metadata, as safetensors writes several in any order
WINDOWS = 64  # of the data that are packed with a run
SMALLER = {torch.float32: torch.float16, torch.int64: torch.int16}
LARGER = {small: large for large, small in SMALLER.items()}


def run_folder(name: Path | str) -> Path:
    """The folder of a run: that of `zoo:NAME`, which is unpacked first if it is not there, or else `name` itself,
    also where it is a run of that name.

    Where something else is in runs/zoo/NAME, such as what an earlier gentraj unpacked, the folder is beside it, and its
    name ends in eight digits of a hash. Raises ValueError for a name that the zoo does not have, and `CheckpointError`
    where the run cannot be unpacked.
    """
    if not str(name).startswith(PREFIX) or (Path(name) / RunFolder.CONFIG).exists():
        return Path(name)
    entry = str(name).removeprefix(PREFIX)
    check_known([entry], names(), "run of the zoo")
    packed = PACKED / entry
    folder = UNPACKED / entry
    digest = hash_of(packed)
    if os.path.lexists(folder) and not _is_unpacked(folder, digest):
        folder = folder.with_name(f"{entry}-{digest[:8]}")
    if _is_unpacked(folder, digest):
        return folder
    try:
        unpack(packed, folder)
    except CheckpointError:
        if not _is_unpacked(folder, digest):  # else another process was faster
            raise
    say(f"{name} is unpacked to {folder}")
    return folder


def _is_unpacked(folder: Path, digest: str) -> bool:
    """Whether the packed run with this hash was unpacked to the folder."""
    mark = folder / HASH
    return mark.is_file() and mark.read_text() == digest


def names() -> list[str]:
    """The names of the runs in the zoo, in alphabetical order."""
    return sorted(path.parent.name for path in PACKED.glob(f"*/{WEIGHTS}"))


@dataclass(frozen=True)
class Entry:
    """What `gentraj zoo` lists of a run."""

    name: str
    size: int
    """Bytes of its files in the package."""
    scores: JsonObject
    """What evaluation.json holds."""
    open_loop: JsonObject
    """Of a world model, the errors of its predictions by group and prediction, as `OpenLoop.errors`; or else empty."""
    commands: list[str]
    """The commands that make its data, where its training does not, and train it."""


def entry(name: str) -> Entry:
    """The run of this name in the zoo."""
    folder = RunFolder(PACKED / name)
    size = sum(path.stat().st_size for path in folder.path.iterdir())
    judged = folder / RunFolder.WORLD
    open_loop = read_json(judged)["open_loop"] if judged.exists() else {}
    commands = (folder / COMMANDS_FILE).read_text().splitlines()
    return Entry(name, size, read_json(folder / RunFolder.EVALUATION), open_loop, commands)


# -- packing


def pack(run: Run, folder: Path, windows: int = WINDOWS) -> None:
    """Packs a trained run into a new folder, as the runs of the zoo are packed, with at most so many windows of its
    data. Its scores and the commands that trained it are copied from its folder."""
    few = copy(run)
    few.config = replace(run.config, dataset="+".join(dataset_names(run.config.dataset)))
    few.reference = run.reference.take(slice(windows))
    RunFolder(folder).write(few)
    kept = folder / RunFolder.REFERENCE
    write_file(kept, safetensors.torch.save(_smaller(safetensors.torch.load(kept.read_bytes()))))
    weights = dict[str, Tensor]()
    for name, part in run.components.items():
        averaged = _averaged(part)
        weights |= {f"{name}/{key}": tensor.cpu().contiguous() for key, tensor in module_tensors(part).items()
                    if key not in averaged}
    about = json.dumps({"step": run.step, "dataset_hash": run.dataset_hash})
    write_file(folder / WEIGHTS, safetensors.torch.save(_smaller(weights), {ABOUT: about}))
    _copy_cards(run.folder, folder)


def unpack(packed: Path, folder: Path) -> None:
    """Makes the folder of a run from what `pack` wrote. The folder appears whole or not at all.

    Raises `CheckpointError` if it cannot be written, as where it exists already, and for files that do not fit.
    """
    file = RunFolder(packed).read()
    run = run_class(file.run).build(file.run, file.data)
    with safe_open(packed / WEIGHTS, "pt") as weights:
        about = json.loads(weights.metadata()[ABOUT])
        tensors = _larger({key: weights.get_tensor(key) for key in weights.keys()})  # noqa: SIM118  it is no dict
    for name, part in run.components.items():
        own = {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}
        restore_module(part, own | {key: module_tensors(part)[key] for key in _averaged(part)}, name)
        for average in _averages(part):
            average.averaged[0].load_state_dict(average.module.state_dict())
    kept = _larger(safetensors.torch.load((packed / RunFolder.REFERENCE).read_bytes()))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as unfinished:
            made = Path(unfinished) / folder.name
            checkpoint.save(made, about["step"], {name: module_tensors(part)
                                                       for name, part in run.components.items()},
                            fingerprint(run) | {"dataset_hash": about["dataset_hash"]})
            write_file(made / RunFolder.CONFIG, (packed / RunFolder.CONFIG).read_bytes())
            write_file(made / RunFolder.REFERENCE, safetensors.torch.save(kept))
            _copy_cards(packed, made)
            write_file(made / HASH, hash_of(packed).encode())
            os.replace(made, folder)
    except OSError as error:
        raise CheckpointError(f"{folder.absolute()}: cannot be written: {error.strerror or error}; a run of the zoo is "
                              "unpacked below the current folder, so go to another one") from error


def hash_of(packed: Path) -> str:
    """SHA-256 of the settings, the weights and the kept data of a packed run."""
    files = (packed / name for name in (RunFolder.CONFIG, WEIGHTS, RunFolder.REFERENCE))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _copy_cards(source: Path, target: Path) -> None:
    for name in (RunFolder.EVALUATION, RunFolder.WORLD, RunFolder.PROVENANCE):
        if (source / name).exists():
            write_file(target / name, (source / name).read_bytes())


def _averages(part: nn.Module) -> list[MovingAverage]:
    return [module for module in part.modules() if isinstance(module, MovingAverage)]


def _averaged(part: nn.Module) -> set[str]:
    """The names of the tensors of networks whose average the part has too."""
    networks = [average.averaged[0] for average in _averages(part)]
    prefixes = tuple(f"{name}." for name, module in part.named_modules(remove_duplicate=False)
                     if any(module is network for network in networks))
    return {key for key in module_tensors(part) if key.startswith(prefixes)}


def _smaller(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in half precision, or whole numbers in 16 bits, unless they are too large for it; vectors stay."""
    return {key: _narrowed(tensor) if tensor.dim() > 1 else tensor for key, tensor in tensors.items()}


def _narrowed(tensor: Tensor) -> Tensor:
    small = tensor.to(SMALLER.get(tensor.dtype, tensor.dtype))
    if tensor.is_floating_point():
        holds = bool(torch.isfinite(small).all())
    else:
        holds = torch.equal(small.to(tensor.dtype), tensor)
    return small if holds else tensor


def _larger(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.to(LARGER.get(tensor.dtype, tensor.dtype)) for key, tensor in tensors.items()}
