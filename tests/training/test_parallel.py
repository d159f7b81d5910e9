"""Trainings by two processes are those by one: real processes on the CPU, which gloo connects."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import Forked
from two_processes import CONFIGS, STEPS, child, run

from gentraj.config import ConfigError
from gentraj.training.checkpoint import load
from gentraj.training.log import read_metrics
from gentraj.training.parallel import SINGLE, Processes, launched, launched_in_bf16

pytest.importorskip("accelerate")
PATIENCE = 500  # seconds: on a busy machine two processes are slow to start
pytestmark = pytest.mark.timeout(PATIENCE + 60)
ROOT = Path(__file__).parents[2]
# Metrics that are roots and counts, whose means over two halves of a batch are not those of the batch.
OTHERWISE = {"latent": ("reconstruction",), "gan": ("spread", "variety", "duplicates", "coverage"),
             "world": ("error",)}


def two(folder: Path, *jobs: str) -> list[Forked]:
    """Starts two processes of one training, as a launcher does."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [Forked(child, rank, port, folder, jobs) for rank in range(2)]


def ends(pair: list[Forked]) -> list[int | None]:
    """Waits for both processes; their exit codes."""
    codes = [process.wait() for process in pair]
    for process in pair:
        process.close()
    return codes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left of trainings that end."""
    folder = tmp_path_factory.mktemp("parallel")
    run("planner", folder / "resumed")
    lose(folder / "resumed", 6, 8)
    pair = two(folder, "all_kinds", "resumed", "spoiled", "failing")
    assert ends(pair) == [0, 0], [path.read_text() for path in folder.glob("*.txt")]
    return folder


def lose(folder: Path, *steps: int) -> None:
    for step in steps:
        shutil.rmtree(folder / f"step-{step:08}")


def weights(folder: Path) -> torch.Tensor:
    """All weights and states of optimisers, but not the averages of metrics that a GAN keeps (`OTHERWISE`)."""
    tensors = {(name, key): t for name, each in load(folder).components.items() for key, t in each.items()
               if not key.startswith("health.")}
    return torch.cat([tensors[key].flatten().double() for key in sorted(tensors)])


def same_curves(one: Path, two: Path, otherwise: tuple[str, ...] = ()) -> None:
    rows = read_metrics(one), read_metrics(two)
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == list(range(1, STEPS + 1))
    for row, other in zip(*rows, strict=True):
        assert row.keys() == other.keys()
        for key in row.keys() - {"seconds", "cpu_seconds"}:
            if not key.endswith(otherwise):
                assert other[key] == pytest.approx(row[key], rel=1e-5, abs=1e-5), key


@pytest.mark.parametrize("kind", CONFIGS)
def test_two_processes_train_what_one_trains(kind: str, folder: Path, tmp_path: Path) -> None:
    """The same losses at the same global batch, and equal weights in both processes, bit for bit."""
    run(kind, tmp_path)
    same_curves(tmp_path, folder / kind, OTHERWISE.get(kind, ()))
    ranks = [(folder / kind / f"rank-{rank}").read_text() for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert torch.allclose(weights(tmp_path), weights(folder / kind), rtol=0, atol=2e-4)


def test_a_run_goes_from_one_process_to_two_and_back(folder: Path, tmp_path: Path) -> None:
    """Steps 1 to 3 by one process, 4 to 6 by two, 7 and 8 by one again."""
    run("planner", tmp_path)
    shutil.copytree(folder / "resumed", again := tmp_path / "again")
    lose(again, 8)
    run("planner", again, resume=True)
    same_curves(tmp_path, again)
    assert torch.allclose(weights(tmp_path), weights(again), rtol=0, atol=2e-4)


def test_a_number_that_is_not_finite_in_one_process_stops_both(folder: Path) -> None:
    zero, one = ((folder / "spoiled" / f"rank-{rank}").read_text() for rank in (0, 1))
    assert zero == one and zero.startswith("step 3, component 'policy': the loss is nan; ")
    assert load(folder / "spoiled").step == 3 and "step-00000003 is kept" in zero


def test_what_the_main_process_cannot_do_ends_all(folder: Path) -> None:
    zero, one = ((folder / f"failing-{rank}").read_text() for rank in (0, 1))
    assert zero == "OSError rank 0 has no environment at step 2"
    assert one == "ProcessLost process 1 of 2 ends, as the main process failed; its message says why"


@pytest.fixture
def endless(tmp_path: Path) -> list[Forked]:
    """Two processes in a training that does not end, in `tmp_path` / "endless"."""
    pair = two(tmp_path / "endless", "endless")
    while not (tmp_path / "endless" / "step-00000000" / "meta.json").exists():
        assert not [process for process in pair if process.poll() is not None]
        time.sleep(0.02)
    return pair


def test_a_signal_to_one_process_saves_and_stops_both(endless: list[Forked], tmp_path: Path) -> None:
    endless[1].terminate()
    assert ends(endless) == [143, 143]
    step = load(tmp_path / "endless").step
    for rank in range(2):
        assert f"SIGTERM at step {step}, which is saved" in (tmp_path / "endless" / f"{rank}.txt").read_text()


def test_when_the_main_process_is_killed_the_other_ends(endless: list[Forked], tmp_path: Path) -> None:
    endless[0].kill()
    assert ends(endless) == [-signal.SIGKILL, 1]
    assert (tmp_path / "endless" / "1.txt").read_text().startswith("ProcessLost: process 1 of 2 ends")
    assert load(tmp_path / "endless").step == 0


def test_the_command_under_accelerate_launch(hopper_file: Path, tmp_path: Path) -> None:
    """Everything is written and said once, and the mixed precision of the launcher is that of the training."""
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "bf16", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    command = ["gentraj", "train", "bc-gaussian", "--device", "cpu", "--dataset", hopper_file, "--run-dir",
               tmp_path / "run", "--steps", "4", "--policy.batch-size", "16", "--policy.model.network.width", "8",
               "--eval-every", "4", "--eval-episodes", "1"]
    done = subprocess.run([sys.executable, "-m", *launch, *command], capture_output=True, text=True, timeout=PATIENCE,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: gentraj evaluate") == 1 and done.stderr.count("trained 4 steps") == 1
    assert done.stderr.count("step 4: return") == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"]["training"]["bf16"] is True
    (start,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["starts"]
    assert (start["processes"], start["device"]) == (2, "cpu")
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [4]


# -- in one process


def test_what_cannot_be_divided_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\w+' has batches of \d+ windows, which 7 processes cannot divide"):
        run("planner", tmp_path, Processes(0, 7))
    with Processes(0, 2).drawing(), pytest.raises(ConfigError, match="randperm draws numbers"):
        torch.randperm(4, generator=torch.Generator())


DRAWS = {
    "rand": lambda n, g: torch.rand(n, 3, generator=g),
    "randn": lambda n, g: torch.randn((n, 3), generator=g),
    "named": lambda n, g: torch.randn(size=(n,), generator=g),
    "scalar": lambda n, g: torch.rand((), generator=g).expand(n),
    "randint": lambda n, g: torch.randint(5, 90, (n, 2), generator=g),
    "poisson": lambda n, g: torch.poisson(torch.full((n, 2), 3.0), generator=g),
    "bernoulli": lambda n, g: torch.bernoulli(torch.full((n,), 0.5), generator=g),
    "in place": lambda n, g: torch.empty(n, 4).exponential_(generator=g),
}


@pytest.mark.parametrize("name", DRAWS)
def test_shares_draw_the_rows_of_the_whole_batch(name: str) -> None:
    """Also the second time: all shares leave the generator in the same state."""
    draw, whole, shares = DRAWS[name], torch.Generator().manual_seed(0), []
    expected = [draw(12, whole) for _ in range(2)]
    for rank in range(6):
        own = torch.Generator().manual_seed(0)
        with (one := Processes(rank, 6)).drawing():
            shares.append((one.rows, [draw(2, own) for _ in range(2)]))
    for rows, drawn in shares:
        for all_rows, some in zip(expected, drawn, strict=True):
            assert torch.equal(all_rows[rows], some)
    assert sorted(i for rows, _ in shares for i in range(12)[rows]) == list(range(12))


def test_a_launcher_is_joined_only_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", number)
        with launched() as alone:
            assert alone == SINGLE
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="--device is cuda:0, but each of the 2 processes"), launched("cuda:0"):
        pass
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigError, match=r"2 processes were launched.* pip install 'gentraj\[scale\]'"), launched():
        pass
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ConfigError, match=r"mixed precision fp16.*give --mixed_precision bf16"):
        launched_in_bf16()

