"""A CUDA device that is simulated over CPU memory: CUDA's rules of devices, and a count of what the host waits for.

    PYTEST_PLUGINS=simulated_device PYTHONPATH=tests/device python -m pytest tests/device    # `make device`

This has to be imported before torch, whose build must be one for CPUs. `torch.device("cuda")` is then a device with
the CPU's numbers. As on a GPU, tensors of two devices in one operation raise (but for numbers without axes, indices
and copies), generators must be of the tensor's device, `.numpy()` raises, and so do operations that have no
deterministic kernel on CUDA, under deterministic algorithms. `counted` lists the waits of a block:

    with counted() as waits:
        model.update(step)
    assert not waits, waits

These are values that the host reads (`item`, `bool`, `tolist`), copies from and to memory that is not page-locked,
and operations whose result has a size that depends on values, such as `nonzero` and masks as indices.
Not simulated: rounding, the caching allocator, graphs, Triton. Streams are names alone, by which
test_streams_on_a_device.py finds races.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).with_name("simulated.cc")
NAME = "simulated"
COMPILER = os.environ.get("CXX", "c++")
LIBRARIES = ("libc10.so", "libtorch_cpu.so", "libtorch.so", "libtorch_python.so")
WAITS = ("read", "d2h", "h2d", "synchronize")  # and not h2d-async, d2h-async and scalar
OURS = ("/gentraj/", "/agents/", "/envs/")


def _folder() -> Path:
    """The folder of the program, beside torch's own extensions; other versions of torch and of the source have
    others."""
    own = os.environ.get("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache" / "torch_extensions"))
    key = hashlib.sha256(SOURCE.read_bytes() + sys.version.encode()).hexdigest()[:12]
    return Path(own) / f"gentraj-{version('torch')}-{key}"


def _build(program: Path, torch_folder: Path) -> None:
    """Compiles the program, which takes a minute once. It is moved to its place when it is whole."""
    program.parent.mkdir(parents=True, exist_ok=True)
    made = program.with_name(f"{os.getpid()}.so")
    include = torch_folder / "include"
    where = [f"-I{include}", f"-I{include / 'torch/csrc/api/include'}", f"-I{sysconfig.get_path('include')}"]
    subprocess.run([COMPILER, "-O0", "-w", "-shared", "-fPIC", "-std=c++20",
                    f"-DTORCH_EXTENSION_NAME={NAME}", *where, str(SOURCE), "-o", str(made)], check=True)
    made.replace(program)


def _load() -> ModuleType:
    """Loads the program before torch, which asks for CUDA only once. Raises ImportError where that is impossible."""
    if "torch" in sys.modules:
        raise ImportError("torch was imported before the simulated device")
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        raise ImportError("torch is missing")
    torch_folder = Path(found.submodule_search_locations[0])
    if list((torch_folder / "lib").glob("libtorch_cuda*")):
        raise ImportError("this build of torch is for CUDA")
    program = _folder() / f"{NAME}.so"
    if not program.exists():
        if shutil.which(COMPILER) is None:
            raise ImportError("no compiler")
        _build(program, torch_folder)
    for name in LIBRARIES:
        ctypes.CDLL(str(torch_folder / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(program), mode=ctypes.RTLD_GLOBAL)
    import torch  # noqa: F401

    spec = importlib.util.spec_from_file_location(NAME, program)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SimulatedStream:
    """A stream, in which operations are done at once. `test_streams` looks at what would be done by turns on a GPU."""

    def __init__(self, device: object = None, cuda_stream: int | None = None):
        self.device = device
        self.cuda_stream = id(self) if cuda_stream is None else cuda_stream

    def wait_stream(self, other: SimulatedStream) -> None:
        for listener in stream_listeners:
            listener("wait", self, other)

    def synchronize(self) -> None:
        _heard("synchronize", "stream", 0)


class _Current(threading.local):
    """The stream of a thread, by default the one that all share."""

    stream: SimulatedStream | None = None


_shared = SimulatedStream(cuda_stream=0)
_current = _Current()
stream_listeners: list[Callable[[str, SimulatedStream, SimulatedStream | None], None]] = []
"""Are told of the waits of streams: "wait" for another one, and "host" where the host waits for one."""


def current_stream(device: object = None) -> SimulatedStream:
    return _current.stream or _shared


@contextmanager
def _on_stream(stream: SimulatedStream | None) -> Iterator[None]:
    before, _current.stream = _current.stream, stream or _current.stream
    try:
        yield
    finally:
        _current.stream = before


class Waits(list[str]):
    """One line for each wait: what it was, and the innermost line of the library that it came from."""

    def __str__(self) -> str:
        return "\n".join(sorted({f"{self.count(line)} x {line}" for line in self}))


_open: list[Waits] = []


@contextmanager
def counted() -> Iterator[Waits]:
    """Counts the waits within the block."""
    waits = Waits()
    _open.append(waits)
    try:
        yield waits
    finally:
        _open.pop()


def _heard(kind: str, operation: str, size: int) -> None:
    if kind in WAITS:
        for listener in stream_listeners:
            listener("host", current_stream(), None)
        for waits in _open:
            waits.append(f"{kind} of {operation} at {_place()}")


def _place() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        start = max(name.rfind(folder) for folder in OURS)
        if start >= 0 and "site-packages" not in name:
            return f"{name[start + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "a backward pass, or no line of the library"


def _install(program: ModuleType) -> None:
    """Lets the Python side of torch, which a build for CPUs lacks, take the device for a GPU."""
    import torch

    program.listen(_heard)
    generator = torch.Generator(device="cuda")
    patches = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: 1, "current_device": lambda: 0, "set_device": lambda device: None,
        "Stream": SimulatedStream, "current_stream": current_stream, "stream": _on_stream,
        "synchronize": lambda device=None: _heard("synchronize", "torch.cuda.synchronize", 0),
        "get_device_name": lambda device=None: "simulated", "get_device_capability": lambda device=None: (9, 0),
        "manual_seed": lambda seed: None, "manual_seed_all": lambda seed: None, "empty_cache": lambda: None,
        "set_sync_debug_mode": lambda mode: None,
        "is_bf16_supported": lambda *_, **__: True, "is_current_stream_capturing": lambda: False,
        "get_rng_state": lambda device="cuda": generator.get_state(),
        "set_rng_state": lambda state, device="cuda": generator.set_state(state),
        "get_rng_state_all": lambda: [generator.get_state()], "set_rng_state_all": lambda states: None,
        "default_generators": (generator,),
    }
    for name, value in patches.items():
        setattr(torch.cuda, name, value)
    torch._C._cuda_isCurrentStreamCapturing = lambda: False
    torch.accelerator.synchronize = patches["synchronize"]
    clone = torch.UntypedStorage.clone

    def cloned(storage: torch.UntypedStorage) -> torch.UntypedStorage:  # by `copy.deepcopy`
        if storage.device.type != "cuda":
            return clone(storage)
        made = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cuda")
        made.copy_(torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage))
        return made.untyped_storage()

    torch.UntypedStorage.clone = cloned


missing = ""
"""Why there is no simulated device, or nothing if there is one."""
try:
    _install(_load())
except ImportError as error:
    missing = str(error)


def pytest_collection_modifyitems(items: list) -> None:
    import pytest

    for item in items:
        if missing:
            item.add_marker(pytest.mark.skip(reason=missing))
