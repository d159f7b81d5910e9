"""The loggers beside metrics.jsonl: real ones get the same rows, and one that fails never stops a training."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest
import test_training
import torch
from test_training import Pair

from gentraj.config import ConfigError
from gentraj.training.log import LOGGERS, LogWarning, read_metrics


def run(folder: Path, steps: int, *log_to: str, resume: bool = False) -> Pair:
    component = Pair()
    test_training.run(folder, {"pair": component}, resume=resume, steps=steps, warmup=1, log_every=2, log_to=log_to)
    return component


def rows(folder: Path) -> dict[int, dict[str, float]]:
    return {row.pop("step"): row for row in read_metrics(folder)}


def test_tensorboard_has_the_rows_of_the_log_after_a_resume_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, 4, "tensorboard")
    run(tmp_path, 8, "tensorboard", resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    expected = rows(tmp_path)
    assert set(events.Tags()["scalars"]) == {"pair/one", "pair/two", "pair/lr-one", "pair/lr-two", "seconds",
                                             "cpu_seconds"}
    for key in ("pair/one", "pair/lr-two", "seconds"):
        assert {e.step: e.value for e in events.Scalars(key)} == {
            step: np.float32(row[key]) for step, row in expected.items()}


def test_wandb_has_the_rows_of_the_log_and_a_resumed_training_continues_its_run(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("wandb")
    init = create_autospec(package.init, return_value=create_autospec(package.Run, instance=True))
    monkeypatch.setattr(package, "init", init)
    run(tmp_path, 4, "wandb")
    (tmp_path / "wandb" / "offline-run-20250131_120000-abc").mkdir(parents=True)
    run(tmp_path, 8, "wandb", resume=True)
    assert {call.kwargs["step"]: call.args[0] for call in init.return_value.log.call_args_list} == rows(tmp_path)
    assert [call.kwargs["id"] for call in init.call_args_list] == [None, "abc"]
    assert init.return_value.finish.call_count == 2


@pytest.mark.parametrize("where", ["__init__", "log", "close"])
def test_a_logger_that_fails_is_one_warning_and_changes_no_number(where: str, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, folder, start, settings): ...
        def log(self, step, row): ...
        def close(self): ...

    def fail(*_: object) -> None:
        raise RuntimeError("no API key\nconfigured")

    setattr(Failing, where, fail)
    monkeypatch.setitem(LOGGERS, "tensorboard", Failing)
    monkeypatch.setattr("gentraj.training.loop.require_loggers", lambda names: None)
    with pytest.warns(LogWarning) as warned:
        trained = run(tmp_path / "failing", 6, "tensorboard")
    assert [str(one.message) for one in warned] == [
        "tensorboard: cannot be written: no API key configured; training goes on"]
    assert torch.equal(trained.one.weight, run(tmp_path / "plain", 6).one.weight)
    assert [*rows(tmp_path / "failing")] == [2, 4, 6]


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_package_is_named_before_anything_is_saved(name: str, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"the logger {name} needs a package .*: pip install 'gentraj\[{name}\]'"):
        run(tmp_path / "run", 4, name)
    assert not (tmp_path / "run").exists()
