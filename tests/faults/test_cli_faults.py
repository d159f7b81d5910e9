"""Faults through the real command: one line that helps, the promised code, no traceback."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small
from forked import Forked
from small import DATASET, gentraj

from gentraj import cli
from gentraj.data import DataError
from gentraj.training import TrainingStopped
from gentraj.training.checkpoint import CheckpointError, NothingSaved, RunLocked, load
from gentraj.training.loop import Interrupted

TRIALS = int(os.environ.get("GENTRAJ_TRIALS", "1"))  # of kills at random moments; 50 before a release


@pytest.fixture
def place(tmp_path: Path, small_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: it holds a run, `run`, and a plain file, `file`."""
    shutil.copytree(small_run, tmp_path / "run")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture, *words: object, code: int = 2) -> str:
    """The one line that a refused command says, but for progress."""
    assert gentraj(*words) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line and "episodes/s" not in line and not line.endswith(" ...")]
    assert not out and len(lines) == 1 and lines[0].startswith("gentraj: error: "), err
    return lines[0].removeprefix("gentraj: error: ")


@pytest.mark.parametrize(("words", "message"), [
    ("trian", "unknown command 'trian'; did you mean 'train'?"),
    ("train --resume run pointmaze", "a preset and --resume was given, and one of"),
    ("train pointmaze-umase", "unknown preset 'pointmaze-umase'; did you mean 'pointmaze-umaze'?"),
    ("train iql --dataset data.npz -steps 5", "-steps is no option"),
    ("train pointmaze", "preset 'pointmaze' needs --dataset"),
    ("train pointmaze --dataset DATA --horizon 30", "horizon 30 cannot be halved 2 times; use 28 or 32"),
    ("train pointmaze --dataset DATA --conditioning.goal-dims 9", "(9,)"),
    ("train pointmaze --dataset DATA --device abacus", "device 'abacus' cannot be used here: "),
    ("train pointmaze --dataset DATA --run-dir file", "file is a file, so there can be no folder file"),
    ("train pointmaze --dataset DATA --run-dir run", "run holds a training already; continue it with --resume run"),
    ("train pointmaze --dataset gentraj/umaze-v0", "gentraj/umaze-v0: no such dataset"),
    ("train pointmaze --dataset missing.hdf5", "missing.hdf5: no such file"),
    ("train --resume nowhere", "nowhere: no run there (config.json is missing)"),
    ("train --resume run --model.levels 30", "run.model.levels was 20 and is 30"),
    ("evaluate run --env-id PointMaze_UMase-v3", "unknown environment 'PointMaze_UMase-v3'; did you mean"),
    ("evaluate run --env-id CartPole-v1", "CartPole-v1"),
    ("evaluate run --out run", "--out is run, which is a folder; give a file"),
    ("evaluate run --save-rollout mine", "'mine' is not a Minari id"),
    ("sample run --out a.txt", "--out is a.txt; a file that ends in .npz is expected"),
    ("sample run --out a.npz --goal 1 2 3", "--goal has 3 numbers; 2"),
    ("sample run --out a.npz --goal 1 nan", "--goal[1] is 'nan'"),
    ("data lisp", "'data lisp'; did you mean 'data list'?"),
    ("data import file", "--id"), ("data make pointmaze-umaze --step 3", "--step is unknown; did you mean '--steps'?"),
    ("data make pointmaze-umaze --id DATA", "DATA exists already"),
    ("data import file --id mine/a-v0", "'file' is a file whose name"),
    ("data import nothing --id mine/a-v0", "'nothing' names no dataset; give "),
    ("train pointmaze-umaze --model.learning-rate nan", "--model.learning-rate is 'nan'"),
    ("evaluate run --acting.replan 0", "--acting.replan is 0; "),
    ("evaluate run run", "'run' is an argument too many"),
    ("train iql plant.csv", "--dataset plant.csv"), ("train iql --dataset plant.csv", "gentraj data import plant.csv"),
    ("train iql plant.npz", "--dataset plant.npz"), ("train plant.npz", "gentraj train iql --dataset plant.npz"),
    ("evaluate --run run", "--run is unknown; RUN is an argument"),
    ("evaluate run --episodes", "--episodes has no value"),
    ("evaluate run --protocol ogbnch", "did you mean 'ogbench'?"),
    ("evaluate run --episodes x", "--episodes is 'x'"), ("evaluate", "missing: RUN"),
    ("distill run --method foo --run-dir x", "--method is 'foo'; 'decision', "),
])
def test_bad_input_is_one_line_and_code_2(place: Path, capsys: pytest.CaptureFixture, words: str, message: str) -> None:
    before = sorted(place.rglob("*"))
    line = refused(capsys, *words.replace("DATA", DATASET).split())
    assert message.replace("DATA", DATASET) in line
    assert sorted(place.rglob("*")) == before  # nothing is left behind


# -- a broken run folder


def edit(change: Callable[[dict], object]) -> Callable[[Path], object]:
    return lambda run: small.edit(run, change)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(("harm", "code", "message"), [
    (edit(lambda c: c["run"].update(colour=1)), 2, "config.json: run.colour is unknown"),
    (edit(lambda c: c["run"]["model"].update(levels=30)), 2, "run.model.levels was 20 and is 30"),
    (edit(lambda c: c["data"].update(obs_dim=5)), 2, "data.obs_dim was 4 and is 5"),
    (lambda run: cut(run / "config.json"), 2, "config.json: is not valid JSON"),
    (lambda run: (run / "config.json").unlink(), 2, "no run there (config.json is missing)"),
    (lambda run: [shutil.rmtree(step) for step in run.glob("step-*")], 2, "nothing saved yet"),
    (lambda run: (run / "reference.safetensors").unlink(), 1, "reference.safetensors: "),
    (lambda run: cut(run / "reference.safetensors"), 1, "reference.safetensors: "),
])
def test_a_broken_run_is_named(place: Path, capsys: pytest.CaptureFixture, harm: Callable, code: int,
                               message: str) -> None:
    harm(place / "run")
    assert message in refused(capsys, "sample", "run", "--out", "a.npz", code=code)


def test_a_broken_checkpoint_is_skipped_with_a_line(place: Path, capsys: pytest.CaptureFixture) -> None:
    cut(place / "run" / "step-00000006" / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert gentraj("sample", "run", "--out", "a.npz") == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("gentraj: run/step-00000006/model.safetensors: ") and first.endswith("is skipped")


def test_a_report_of_broken_scores_names_the_file(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "run" / "evaluation.json").write_text('{"episodes": 3}')
    assert "run/evaluation.json: " in refused(capsys, "report", "run")


# -- codes


@pytest.mark.parametrize(("error", "code"), [
    (NothingSaved("x"), 2), (RunLocked("x"), 2), (DataError("x"), 2), (ImportError("x"), 2), (CheckpointError("x"), 1),
    (TrainingStopped("x"), 1), (RuntimeError("x"), 1), (KeyboardInterrupt(), 130),
    (Interrupted(signal.SIGTERM, 3), 143)])
def test_codes_mean_what_help_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
                                   error: BaseException, code: int) -> None:
    def fail(words: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "_call", fail)
    refused(capsys, "train", code=code)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_call", lambda words: [][1])
    with pytest.raises(IndexError):
        gentraj("train", "iql")


# -- processes


@pytest.fixture
def spawn(place: Path) -> Iterator[Callable[..., Forked]]:
    """Starts the command in a process of its own; what still runs at the end of the test is killed."""
    started: list[Forked] = []

    def start(*words: object) -> Forked:
        started.append(Forked(gentraj, *words))
        return started[-1]

    yield start
    for process in started:
        process.close()


def wait_for(step: int, folder: Path, process: Forked) -> None:
    """Until the process has saved that step or a later one."""
    while not any(int(path.name[5:]) >= step for path in folder.glob("step-*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize(("trial", "more"), [
    (0, []), *(pytest.param(k, ["--joint"] if k % 2 else [], marks=pytest.mark.slow) for k in range(1, TRIALS))])
def test_killed_interrupted_and_resumed_it_gives_the_same_bits(place: Path, spawn, fingerprint, trial: int,
                                                               more: list[str]) -> None:
    """With the real models: SIGKILL at a random moment, resume, Ctrl-C, resume."""
    sizes = small.JOINT_WORDS if "--joint" in more else small.WORDS
    words = "--dataset", DATASET, *sizes, "--steps", 50, "--training.save-every", 5, *more
    rng = random.Random(trial)
    assert gentraj("train", "pointmaze", "--run-dir", "whole", *words) == 0

    process = spawn("train", "pointmaze", "--run-dir", "torn", *words)
    wait_for(5 * rng.randrange(1, 4), place / "torn", process)
    time.sleep(rng.uniform(0, 0.1))
    process.kill()
    assert process.wait() == -signal.SIGKILL

    killed = load(place / "torn").step
    process = spawn("train", "--resume", "torn")
    wait_for(killed + 5, place / "torn", process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    stopped = load(place / "torn").step
    assert process.returncode == 130 and killed < stopped < 50
    assert f"gentraj: error: stopped by SIGINT at step {stopped}, which is saved; go on with --resume\n" in stderr

    assert gentraj("train", "--resume", "torn") == 0
    assert fingerprint(place / "torn") == fingerprint(place / "whole")
    for name in ("config.json", "reference.safetensors"):
        assert (place / "torn" / name).read_bytes() == (place / "whole" / name).read_bytes()


def test_a_reader_that_goes_away_is_no_error(place: Path, spawn) -> None:
    """`gentraj ... | head -1`."""
    process = spawn("sample", "run", "--out", "a.npz")
    process.stdout.close()
    assert process.wait() == 0 and (place / "a.npz").exists()
    assert process.stderr.read() == "16 trajectories of 32 timesteps, 5 environment steps apart\n"
