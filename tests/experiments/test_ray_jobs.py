"""Jobs as tasks of a real Ray cluster of this machine: killed workers and a stopped command.

The cluster is started once for all tests, as that takes seconds.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small import config, gentraj
from test_engine import wait_until

from gentraj import runs
from gentraj.experiments import pools
from gentraj.experiments.engine import trained
from gentraj.experiments.pools import MARKER, Job, JobsStopped, RayTasks, run_jobs
from gentraj.runs.kinds.run import RunConfig
from gentraj.training.checkpoint import has_checkpoints
from gentraj.training.loop import Interrupts

pytestmark = pytest.mark.timeout(600)  # where the machine is busy, a worker that imports torch takes half a minute
HERE = Path(__file__).parent
SWEEP = "sweep", "iql", "--over", "policy.beta=1,3"


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Ray with two workers, which find the functions of this file."""
    if find_spec("ray") is None:  # it is not imported here, as its settings are read when it is
        pytest.skip("needs Ray, of the extra scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE))))
        cluster = RayTasks(tmp_path_factory.mktemp("ray"), number=2).ray
        yield cluster
        cluster.shutdown()


def fail(problem: str) -> None:
    raise ValueError(f"a problem\n of {problem}")


def test_jobs_say_how_they_ended(ray: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "RETRIES", 0)
    some = [Job("good", print, ("not shown",), lambda: "fine"), Job("bad", fail, ("its own",), str),
            Job("exits", sys.exit, (3,), str), Job("stopped", sys.exit, (128 + signal.SIGTERM,), str),
            Job("lost", os._exit, (1,), str)]
    run_jobs(some, RayTasks(tmp_path, number=2))
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("runs: ") and not line.endswith(": started")]
    assert not out
    assert set(lines) == {"good: fine", "bad: failed: a problem of its own", "exits: failed: ended with code 3",
                          "stopped: failed: stopped by SIGTERM",
                          "lost: its worker was lost 1 times (WorkerCrashedError)"}


def train_once_killed(run_config: RunConfig, folder: Path) -> None:
    """Trains; the first attempt is killed while it trains, after a checkpoint."""
    goes_on = has_checkpoints(folder)
    if not goes_on:
        def kill() -> None:
            wait_until(lambda: (folder / "step-00000002").is_dir())
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
    trained(run_config, folder, torch.device("cpu"))
    (folder.parent / "goes-on").write_text(str(goes_on))


def test_a_killed_training_goes_on_from_its_checkpoint(ray: ModuleType, umaze: object, tmp_path: Path) -> None:
    run_config = config(steps=16)
    run_jobs([Job("training", train_once_killed, (run_config, tmp_path / "killed"), lambda: "done")],
             RayTasks(tmp_path))
    assert (tmp_path / "goes-on").read_text() == "True"
    whole = runs.train(run_config, folder=tmp_path / "whole", progress=False)
    for key, value in runs.load(tmp_path / "killed").main.state_dict().items():
        assert torch.equal(value, whole.main.state_dict()[key]), key


def save_when_stopped(folder: Path) -> None:
    (folder / "started").touch()
    with Interrupts() as interrupts:
        while interrupts.received is None:
            time.sleep(0.05)
    (folder / "saved").touch()


def test_a_stopped_command_lets_its_jobs_save(ray: ModuleType, tmp_path: Path) -> None:
    def stop() -> None:
        wait_until((tmp_path / "started").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(JobsStopped, match="SIGTERM"):
        run_jobs([Job("endless", save_when_stopped, (tmp_path,), str)], RayTasks(tmp_path))
    assert (tmp_path / "saved").exists()


def test_a_machine_that_does_not_see_the_folder_is_named(ray: ModuleType, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    pool = RayTasks(tmp_path)
    assert pool.surroundings.folder == tmp_path
    (tmp_path / MARKER).unlink()
    run_jobs([Job("job", print, (), str)], pool)
    assert re.search(f"job: failed: the machine .* does not see {tmp_path} or the working", capsys.readouterr().err)


def test_workers_look_for_datasets_where_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: str(tmp_path / name) for name in (
        "MINARI_DATASETS_PATH", "D4RL_DATASET_DIR", "OGBENCH_DATASET_DIR", "HF_HOME", "HF_LEROBOT_HOME")}
    for name, folder in folders.items():
        monkeypatch.setenv(name, folder)
    assert folders.items() <= pools.Surroundings.of(tmp_path).environment.items()


def test_a_missing_ray_is_named_in_one_line(hopper_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pools, "find_spec", lambda name: None)
    assert gentraj(*SWEEP, "--dataset", hopper_file, "--run-dir", tmp_path, "--ray") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "gentraj: error: Ray is not installed: pip install 'gentraj[scale]'"


def test_a_cluster_has_one_address(hopper_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gentraj(*SWEEP, "--dataset", hopper_file, "--run-dir", tmp_path, "--ray", "a", "b") == 2
    assert "--ray is a b; give one address" in capsys.readouterr().err
