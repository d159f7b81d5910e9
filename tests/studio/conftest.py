"""Tiny runs that the studio shows, and a server to draw on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("viser")
pytest.importorskip("mjviser")

from gentraj import runs
from gentraj.networks import ResidualMLPConfig
from gentraj.runs.kinds.presets import PRESETS, SHORT_PLANS, VETERAN_PLUS
from gentraj.studio.loading import Loaded, load_runs
from gentraj.studio.local_server import LocalServer
from gentraj.studio.session import Session
from gentraj.training import TrainingConfig


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    server = LocalServer()
    yield server
    server.stop()


class Client:
    """A browser that shows what is on a server."""

    def __init__(self, server: LocalServer):
        server.gui.reset()
        server.scene.reset()
        self.gui, self.scene, self.camera = server.gui, server.scene, server.initial_camera


@pytest.fixture
def client(server: LocalServer) -> Any:
    return Client(server)


@pytest.fixture(scope="session")
def bodies(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Loaded]:
    """In Hopper, a planner that values 3 plans, and a policy."""
    folder = tmp_path_factory.mktemp("bodies")
    brief = TrainingConfig(4, warmup=1, threads=1)
    model = replace(SHORT_PLANS, network=ResidualMLPConfig(8, 1, frequencies=0))
    planner = replace(VETERAN_PLUS, dataset=str(hopper_file), model=model, batch_size=8, training=brief,
                      planner=replace(VETERAN_PLUS.planner, candidates=3))
    runs.train(planner, folder=folder / "planner")
    runs.train(replace(PRESETS["bc-gaussian"], dataset=str(hopper_file), training=brief), folder=folder / "policy")
    return load_runs([folder / "planner", folder / "policy"])


@pytest.fixture(scope="session")
def mazes(small_run: Path) -> list[Loaded]:
    """The planner of `small_run` in UMaze, twice."""
    return load_runs([small_run, small_run])


@pytest.fixture
def session(mazes: list[Loaded]) -> Iterator[Session]:
    """A session of `mazes`."""
    session = Session(mazes)
    yield session
    session.close()


@pytest.fixture(scope="session")
def far(far_run: Path) -> list[Loaded]:
    """A planner with a roadmap in one of OGBench's mazes."""
    return load_runs([far_run])
