"""In one process: what stops a training, what does not, and resuming to the same bits."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Tiny, run_tiny, tiny_episodes

from gentraj import runs
from gentraj.config import ConfigError
from gentraj.data import Episodes
from gentraj.training import TrainingStopped
from gentraj.training.checkpoint import CheckpointError, CheckpointWarning, NothingSaved, load
from gentraj.training.log import LogWarning, read_metrics
from gentraj.training.loop import Interrupted


def harmed(at: int, harm: Callable[[Tiny], object]) -> Tiny:
    """A part to which something happens at the start of its step `at` (counted from 0)."""
    component, steps = Tiny(), iter(range(10**6))
    component.before_step = lambda: next(steps) == at and harm(component)
    return component


def kill(*numbers: int) -> Callable[[Tiny], object]:
    return lambda _: [os.kill(os.getpid(), number) for number in numbers]


@settings(max_examples=8)
@given(at=st.integers(0, 58), number=st.sampled_from([signal.SIGTERM, signal.SIGINT]))
def test_a_signal_saves_at_that_very_step_and_resuming_gives_the_same_bits(
        tmp_path_factory: pytest.TempPathFactory, fingerprint, at: int, number: int) -> None:
    whole = tmp_path_factory.getbasetemp() / "uninterrupted"
    if not whole.exists():
        run_tiny(whole)
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(Interrupted, match=f"at step {at + 1}, which is saved; go on with resume=True") as error:
        run_tiny(folder, component=harmed(at, kill(number, signal.SIGTERM)))  # a later SIGTERM says nothing new
    assert error.value.exit_code == 128 + number
    assert load(folder).step == read_metrics(folder)[-1]["step"] == at + 1
    run_tiny(folder, resume=True)
    assert fingerprint(folder) == fingerprint(whole)


def test_a_signal_during_a_save_finishes_the_save(tmp_path: Path, fingerprint, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, iter(range(10**6))

    def interrupted_fsync(fd: int) -> None:
        if next(calls) == 7:  # in the second save
            os.kill(os.getpid(), signal.SIGINT)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", interrupted_fsync)
    with pytest.raises(Interrupted, match="at step 20"):
        run_tiny(tmp_path / "run")
    run_tiny(tmp_path / "run", resume=True)
    run_tiny(tmp_path / "whole")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_a_second_interrupt_stops_at_once_without_damage(tmp_path: Path, fingerprint) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path / "run", component=harmed(33, kill(signal.SIGINT, signal.SIGINT)))
    assert load(tmp_path / "run").step == 20
    run_tiny(tmp_path / "run", resume=True)
    run_tiny(tmp_path / "whole")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_an_ignored_signal_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A background process of a shell script must not stop at the Ctrl-C that is meant for the script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_tiny(tmp_path / "run", component=harmed(3, kill(signal.SIGINT)), steps=6).step == 6
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_full_disk_under_the_log_costs_only_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr("gentraj.training.log.write_rows", lambda path, rows: path.symlink_to("/dev/full"))
    with pytest.warns(LogWarning, match=r"metrics\.jsonl: cannot be written: .*; training goes on") as seen:
        assert run_tiny(folder).step == 60
    assert len(seen) == 1 and load(folder).step == 60


def test_a_row_cut_by_a_crash_is_dropped_on_resume(tiny_run: Path) -> None:
    with (tiny_run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 61, "tiny/lo')
    run_tiny(tiny_run, steps=75, resume=True)
    assert [row["step"] for row in read_metrics(tiny_run)] == [15, 30, 45, 60, 75]


@pytest.mark.parametrize("where", ["file/run", "proc"])
def test_a_folder_that_cannot_be_is_an_error_before_any_step(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    folder = Path("/proc/run") if where == "proc" else tmp_path / where
    with pytest.raises(CheckpointError, match=f"^{folder}: cannot be used as a run folder: "
                       "/.* cannot be made"):
        run_tiny(folder, component=harmed(0, lambda _: pytest.fail("a step was made")))
    with pytest.raises(NothingSaved):
        run_tiny(folder, resume=True)


def test_a_folder_that_is_deleted_during_the_training_is_written_whole_again(
        umaze: Episodes, small_run: Path, tmp_path: Path) -> None:
    """Also where an evaluation has made it anew meanwhile."""
    config, folder = small.config(), tmp_path / "run"
    config = replace(config, training=replace(config.training, eval_every=4, eval_episodes=1))
    with pytest.warns(CheckpointWarning, match="run was moved or deleted during the training, and is written anew"):
        run = runs.train(config, folder=folder, data=umaze, progress=False,
                         on_row=lambda row: row["step"] == 3 and shutil.rmtree(folder))
    loaded = runs.load(folder)
    assert loaded.step == run.step == 6 and torch.equal(loaded.reference.x_BHD, runs.load(small_run).reference.x_BHD)
    assert runs.read_data(loaded.config, folder) == umaze
    longer = replace(config.training, steps=8)
    again = runs.train(replace(config, training=longer), umaze, folder=folder, resume=True, progress=False)
    assert again.step == 8


def test_odd_names_and_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "é 中 " + "x" * 200
    run_tiny(Path(name), component=harmed(30, lambda _: os.chdir("/")))
    assert load(tmp_path / name).step == 60 and len(read_metrics(tmp_path / name)) == 4


def test_resume_with_other_settings_lists_each(tiny_run: Path, fingerprint) -> None:
    before, episodes = fingerprint(tiny_run), tiny_episodes()
    other = replace(episodes, obs=episodes.obs + np.float32(1e-3))
    with pytest.raises(ConfigError) as error:
        run_tiny(tiny_run, component=Tiny(horizon=8), episodes=other, seed=1, resume=True, meta={"path": "cosine"})
    for component in ("training.seed was 0 and is 1", "components.tiny.spec.horizon was 16 and is 8",
                      "dataset_hash was", "path was None and is 'cosine'"):
        assert component in str(error.value)
    assert "\n" not in str(error.value) and fingerprint(tiny_run) == before


def test_resume_may_go_further_and_log_otherwise(tiny_run: Path) -> None:
    assert run_tiny(tiny_run, steps=80, log_every=7, save_every=11, keep=1, resume=True).step == 80
    assert [row["step"] for row in read_metrics(tiny_run)] == [15, 30, 45, 60, 63, 70, 77, 80]
    assert run_tiny(tiny_run, steps=80, resume=True).step == 80  # all done already
    with pytest.raises(ConfigError, match=r"training\.steps is 40, and 80 steps are done already; give at least"):
        run_tiny(tiny_run, steps=40, resume=True)


def test_resume_past_a_broken_checkpoint_gives_the_same_bits(tmp_path: Path, fingerprint) -> None:
    run_tiny(tmp_path / "run")
    run_tiny(tmp_path / "whole")
    os.truncate(tmp_path / "run" / "step-00000060" / "tiny.safetensors", 100)
    with pytest.warns(CheckpointWarning, match="step-00000060/tiny.safetensors"):
        run_tiny(tmp_path / "run", resume=True)
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    """An infinite weight at step 50."""
    kept: list[dict] = []

    def plant(component: Tiny) -> None:
        with torch.no_grad():
            component.net[0].weight[0, 0] = torch.inf
        kept.append({key: t.clone() for key, t in component.state_dict().items()})

    component = harmed(50, plant)
    with pytest.raises(TrainingStopped, match=r"step 50, component 'tiny': the loss is (nan|inf); .*step-00000040 is "
                                              r"kept"):
        run_tiny(tmp_path, component=component)
    assert all(torch.equal(t, kept[0][key]) for key, t in component.state_dict().items())
    assert load(tmp_path).step == 40


def test_a_metric_that_is_not_finite_stops(tmp_path: Path) -> None:
    class Spoilt(Tiny):
        def update(self, step):
            return super().update(step) | {"q": torch.tensor(torch.nan)}

    with pytest.raises(TrainingStopped, match="step 0, component 'tiny': the metric 'tiny/q' is nan"):
        run_tiny(tmp_path, component=Spoilt())
    assert load(tmp_path).step == 0


def test_a_weight_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    """The last step before a save spoils a weight that no loss has seen yet."""
    def spoil(component: Tiny) -> None:
        with torch.no_grad():
            component.ema.module[2].bias[0] = torch.nan  # type: ignore[index]

    with pytest.raises(TrainingStopped, match=r"step 40, before saving: the parameter 'ema\.module\.2\.bias'"):
        run_tiny(tmp_path, component=harmed(39, spoil))
    assert load(tmp_path).step == 20
