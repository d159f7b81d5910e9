"""The loggers beside metrics.jsonl: real ones get the same rows, and one that fails never stops a training."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from gentraj.config import ConfigError
from gentraj.data.episodes import Episodes
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.log import LogWarning, read_metrics
from gentraj.training.loggers import LOGGERS
from gentraj.training.optimization import apply_gradients
from gentraj.trajectory import TrajectorySpec


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spec, self.batch_size = TrajectorySpec(2, 1, 3), 4
        self.weight = nn.Parameter(torch.ones(3))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"one": SGD([self.weight], lr=0.1)}

    def update(self, batch, optimizers, generator) -> dict[str, torch.Tensor]:
        loss = (batch.x_BHD * self.weight - 1).square().mean()
        apply_gradients(loss, optimizers["one"], 1.0)
        return {"loss": loss.detach()}


def run(folder: Path, steps: int, *log_to: str, resume: bool = False) -> One:
    rng, component = np.random.default_rng(0), One()
    episodes = Episodes(rng.normal(size=(21, 2)), rng.normal(size=(20, 1)), rng.normal(size=20), np.zeros(20, bool),
                        np.arange(20) == 19, np.array([20]))
    settings = TrainingConfig(steps, warmup=1, log_every=2, log_to=log_to)
    Trainer({"one": component}, TrainingData(episodes), settings, RunStore(folder, {"preset": "test"}),
            progress=False).fit(resume)
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
    assert set(events.Tags()["scalars"]) == {"one/loss", "one/lr", "seconds"}
    for key in ("one/loss", "one/lr", "seconds"):
        assert {e.step: e.value for e in events.Scalars(key)} == {
            step: np.float32(row[key]) for step, row in expected.items()}


def session(folder: str) -> None:
    """Trains and resumes, in a process of its own, as these loggers read their environment when they are imported."""
    run(Path(folder), 4, "wandb", "trackio")
    run(Path(folder), 8, "wandb", "trackio", resume=True)


def test_wandb_and_trackio_have_the_rows_of_the_log_in_one_run(tmp_path: Path) -> None:
    """Offline, with the real packages; the resumed training continues the run."""
    pytest.importorskip("wandb")
    pytest.importorskip("trackio")
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    env = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "TRACKIO_DIR": str(tmp_path / "trackio"),
                        "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"from test_loggers import session; session({str(tmp_path / 'run')!r})"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "LogWarning" not in done.stderr
    expected = rows(tmp_path / "run")

    found, names = {}, set()
    for file in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")):
        names.add(file.name)
        for data in records(file.read_bytes()):
            record = proto.Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                found[row["_step"]] = {key: value for key, value in row.items() if key[0] != "_"}
    assert found == expected and len(names) == 1

    with sqlite3.connect(tmp_path / "trackio" / "gentraj.db") as database:
        logged = database.execute("SELECT run_id, run_name, step, metrics FROM metrics").fetchall()
    database.close()
    assert {step: json.loads(metrics) for _, _, step, metrics in logged} == expected and len(logged) == 4
    assert len({run_id for run_id, *_ in logged}) == 1 and {name for _, name, *_ in logged} == {f"{tmp_path.name}/run"}


def records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file, which are framed as in LevelDB's logs: blocks of 32 KiB after 7 bytes of header."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record, at = record + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


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
    assert torch.equal(trained.weight, run(tmp_path / "plain", 6).weight)
    assert [*rows(tmp_path / "failing")] == [2, 4, 6]


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_package_is_named_before_anything_is_saved(name: str, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"the logger {name} needs a package .*: pip install 'gentraj\[{name}\]'"):
        run(tmp_path / "run", 4, name)
    assert not (tmp_path / "run").exists()
