"""Settings of all tests (one thread, deterministic kernels, headless rendering, no network), and shared fixtures."""

from __future__ import annotations

import ctypes.util
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Set before torch, mujoco and minari are imported; processes that tests start inherit it.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", CUBLAS_WORKSPACE_CONFIG=":4096:8", HF_HUB_OFFLINE="1")
os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "disabled")

import hypothesis
import pytest
import torch

# A background job ignores Ctrl-C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

# There is no deadline, as the machine may be shared. Use `--hypothesis-profile=thorough` before a release.
hypothesis.settings.register_profile("few", deadline=None, max_examples=20)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("few")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


# Garbage is looked for in what the tests make, not again and again in the modules that all have imported, and more
# rarely than after every 700 objects: a traced network has 100,000 of them.
gc.disable()
gc.set_threshold(10_000)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if started := os.environ.get("CI_STARTED"):
        terminalreporter.write_line(f"total time of .ci/run: {time.time() - int(started):.0f} s")


@pytest.fixture(scope="session", autouse=True)
def own_dataset_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gives tests their own dataset folders, so that they neither see nor change those of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        patch.setenv("D4RL_DATASET_DIR", str(tmp_path_factory.mktemp("d4rl")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Makes every name look-up and connection beyond this machine fail with an error that says so."""

    def local(real: Callable, host_of: Callable) -> Callable:
        def guarded(*args, **kwargs):
            host = host_of(*args)
            if host not in (None, "", "localhost", "127.0.0.1", "::1", b"localhost"):
                raise OSError(f"tests use no network; this one connects to {host}")
            return real(*args, **kwargs)

        return guarded

    def peer(sock: socket.socket, address) -> str | None:
        return address[0] if isinstance(address, tuple) else None  # a path is a Unix socket, which is local

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local(socket.socket.connect, peer))
        patch.setattr(socket, "getaddrinfo", local(socket.getaddrinfo, lambda host, *_: host))
        yield


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the episodes that begin in this process, as they begin."""
    from gentraj.envs.evaluation.vector import VectorEnvironment

    seeds: list[int] = []
    reset = VectorEnvironment.reset

    def noted(envs: VectorEnvironment, mask_B: Any, given: Any) -> None:
        seeds.extend(seed for seed, begins in zip(given, mask_B, strict=True) if begins)
        reset(envs, mask_B, given)

    monkeypatch.setattr(VectorEnvironment, "reset", noted)
    return seeds


@pytest.fixture(scope="session")
def umaze(own_dataset_folders: None):
    """2,000 steps of PointMaze-UMaze as `Episodes`, saved as the Minari dataset `small.DATASET`."""
    from small import DATASET

    from gentraj.data import save_minari
    from gentraj.envs.recording.pointmaze import record

    episodes = record("pointmaze-umaze", 2_000, progress=False)
    save_minari(episodes, DATASET, description="small")
    return episodes


@pytest.fixture(scope="session")
def small_run(umaze, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planner's run, trained for 6 steps on `umaze`, with checkpoints 2, 4 and 6. Copy it before changing it."""
    import small

    folder = tmp_path_factory.mktemp("small") / "run"
    small.train(folder)
    return folder


@pytest.fixture(scope="session")
def far_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planner's run with a roadmap, trained for 2 steps on one walk through OGBench's medium maze."""
    pytest.importorskip("ogbench")
    import small

    folder = tmp_path_factory.mktemp("far") / "run"
    small.train_far(folder)
    return folder


@pytest.fixture(scope="session")
def hopper():
    """12 episodes of random actions in Hopper-v5 as `Episodes`; each ends in a fall."""
    from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
    from gentraj.envs.making import environment_factory
    from gentraj.envs.recording.baselines import RandomAgent

    factory = environment_factory("Hopper-v5")
    return rollout(RandomAgent(factory().action_space), factory, 12,
                   settings=RolloutSettings(num_envs=6), record=True, progress=False).recorded


@pytest.fixture(scope="session")
def hopper_file(hopper, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file hopper.npz with the episodes of `hopper`."""
    from gentraj.data import save_npz

    return save_npz(hopper, tmp_path_factory.mktemp("hopper") / "hopper.npz")


@pytest.fixture(scope="session")
def hopper_run(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy's run, trained by the command for 4 steps on `hopper_file`. Copy it before changing it."""
    from small import gentraj

    folder = tmp_path_factory.mktemp("bc") / "run"
    options = "--dataset", hopper_file, "--run-dir", folder, "--steps", 4, "--seed", 3
    narrow = ("--policy.batch-size", 16, "--policy.model.network.width", 8, "--policy.model.network.depth", 1,
              "--training.warmup", 2, "--training.log-every", 2)
    assert gentraj("train", "bc-gaussian", *options, *narrow) == 0
    return folder
