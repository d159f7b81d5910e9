"""Trainings by two processes are those by one: real processes on the CPU, which gloo connects."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from two_processes import CONFIGS, STEPS, run

from gentraj.config import ConfigError
from gentraj.training.checkpoint import load
from gentraj.training.log import read_metrics
from gentraj.training.parallel import SINGLE, Processes, Shard, current_shard, launched, launched_in_bf16

pytest.importorskip("accelerate")
PATIENCE = 500  # seconds: on a busy machine two processes are slow to start
pytestmark = pytest.mark.timeout(PATIENCE + 60)
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("two_processes.py")
# Metrics that are roots and counts, whose means over two halves of a batch are not those of the batch.
OTHERWISE = {"latent": ("reconstruction",), "gan": ("spread", "variety", "duplicates", "coverage"),
             "world": ("error",)}


class Pairs:
    """A process that starts pairs of processes; they have a group of their own."""

    def __init__(self, folder: Path):
        self.folder, self.ids = folder, dict[tuple[str, int], int]()
        self.ended = dict[str, list[int]]()
        self.process = subprocess.Popen([sys.executable, SCRIPT, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)

    def start(self, **jobs: str) -> None:
        """Starts pairs, and waits until their processes have ids."""
        self.process.stdin.write("".join(f"{pair}={each}\n" for pair, each in jobs.items()))
        self.process.stdin.flush()
        while not all((pair, rank) in self.ids for pair in jobs for rank in range(2)):
            self._read()

    def codes(self, pair: str) -> list[int]:
        """Waits until a pair has ended; its exit codes."""
        while pair not in self.ended:
            self._read()
        return self.ended[pair]

    def said(self) -> list[str]:
        """What processes have said in the end."""
        return [path.read_text() for path in self.folder.glob("*.txt")]

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def _read(self) -> None:
        event, pair, *numbers = self.process.stdout.readline().split()
        if event == "ended":
            self.ended[pair] = list(map(int, numbers))
        else:
            self.ids[pair, int(numbers[0])] = int(numbers[1])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    made = Pairs(tmp_path_factory.mktemp("parallel"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(pairs: Pairs) -> Path:
    """What two processes have left of trainings that end."""
    folder = pairs.folder / "two"
    run("planner", folder / "resumed")
    lose(folder / "resumed", 6, 8)
    pairs.start(two="all_kinds,resumed,spoiled,failing")
    assert pairs.codes("two") == [0, 0], pairs.said()
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
        for key in row.keys() - {"seconds"}:
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


@pytest.fixture(scope="module")
def endless(pairs: Pairs) -> Pairs:
    """Three pairs of processes in trainings that do not end."""
    names = "stopped", "main", "other"
    pairs.start(**dict.fromkeys(names, "endless"))
    while not all((pairs.folder / name / "step-00000000" / "meta.json").exists() for name in names):
        assert not [each for name in names for each in pairs.folder.glob(f"{name}-?.txt")], pairs.said()
        time.sleep(0.02)
    return pairs


def test_a_signal_to_one_process_saves_and_stops_both(endless: Pairs) -> None:
    os.kill(endless.ids["stopped", 1], signal.SIGTERM)
    assert endless.codes("stopped") == [143, 143]
    step = load(endless.folder / "stopped").step
    for rank in range(2):
        assert (endless.folder / f"stopped-{rank}.txt").read_text() == (
            f"Interrupted: stopped by SIGTERM at step {step}, which is saved; go on with --resume")


@pytest.mark.parametrize(("pair", "killed"), [("main", 0), ("other", 1)])
def test_when_one_process_is_killed_the_other_ends(endless: Pairs, pair: str, killed: int) -> None:
    os.kill(endless.ids[pair, killed], signal.SIGKILL)
    codes = endless.codes(pair)
    assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 1)
    assert (endless.folder / f"{pair}-{1 - killed}.txt").read_text() == (
        f"ProcessLost: process {1 - killed} of 2 ends, as another process of this training failed or was killed; its "
        "checkpoints are kept, go on with --resume")
    assert load(endless.folder / pair).step == 0


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


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_train_what_the_batch_trains(parts: int, tmp_path: Path) -> None:
    """The loss of the critic is a mean over rows; that of the model is divided by the real entries of each part."""
    run("planner", tmp_path / "whole")
    run("planner", tmp_path / "parts", accumulate=parts)
    for whole, split in zip(read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "parts"), strict=True):
        assert split["critic/loss"] == pytest.approx(whole["critic/loss"], rel=1e-5)
        assert split["model/grad_norm"] == pytest.approx(whole["model/grad_norm"], rel=0.5)


def test_what_cannot_be_divided_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\w+' has batches of \d+ windows, which 1 processes with 5 parts each"):
        run("planner", tmp_path, accumulate=5)
    with pytest.raises(ConfigError, match=r"accumulate is 2, but the component 'policy' has the optimisers critic,"):
        run("iql", tmp_path, accumulate=2)
    with Shard(Processes(0, 2)).computed(), pytest.raises(ConfigError, match="randperm draws numbers"):
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
    for rank, part in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]:
        own = torch.Generator().manual_seed(0)
        with (one := Shard(Processes(rank, 3), part, 2)).computed():
            shares.append((one.rows, [draw(2, own) for _ in range(2)]))
    for rows, drawn in shares:
        for all_rows, some in zip(expected, drawn, strict=True):
            assert torch.equal(all_rows[rows], some)
    assert current_shard().shards == 1 and sorted(i for rows, _ in shares for i in range(12)[rows]) == list(range(12))


@pytest.mark.parametrize("number", ["", "1", "many"])
def test_variables_of_no_launcher_leave_one_process(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", number)
    with launched() as processes:
        assert processes == SINGLE


def test_a_launcher_is_joined_only_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched() as alone:
        assert (alone.world_size, alone.is_main, alone.device) == (1, True, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="--device is cuda:0, but each of the 2 processes"), launched("cuda:0"):
        pass
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigError, match=r"2 processes were launched.* pip install 'gentraj\[scale\]'"), launched():
        pass
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="the launcher is set to FSDP"), launched():
        pass
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ConfigError, match=r"mixed precision fp16.*give --mixed_precision bf16"):
        launched_in_bf16()

