"""`gentraj reproduce`: a card from data to verdict and page; what is done is kept, and what changed is done anew."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked
from inline import inline
from small import gentraj

from gentraj.data import load_episodes, save_npz
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.experiments import engine
from gentraj.experiments.cards import SeedResult, read_card, read_results
from gentraj.experiments.engine import RunTask, seed_result
from gentraj.experiments.page import write_page
from gentraj.experiments.reproduce import Cards, place
from gentraj.runs import Run
from gentraj.training.checkpoint import run_lock
from gentraj.training.log import read_metrics

SETTINGS = {"training.steps": 4, "training.warmup": 2, "training.save_every": 2, "policy.batch_size": 8,
            "policy.model.network.width": 8, "policy.model.network.depth": 1}
FAIR = {"name": "fair", "dataset": "fair.npz", "env_id": None, "expected": -1300, "tolerance": 700}
HARD = {"name": "hard", "dataset": "fair.npz+hard.npz", "env_id": "Pendulum-v1", "expected": -100, "tolerance": 50}
CARD = {"about": "As small as can be.", "table": "Small ones", "label": "BC", "preset": "bc-gaussian",
        "settings": SETTINGS, "data": [FAIR, HARD], "seeds": [3, 5], "episodes": 2, "protocol": "random-goal",
        "score": "return_mean"}


def record(folder: Path) -> Path:
    """A folder of two files of random actions in Pendulum."""
    factory = environment_factory("Pendulum-v1")
    for seed, name in enumerate(("fair", "hard")):
        played = rollout(RandomAgent([-2.0], [2.0]), factory, 3, seed, record=True, progress=False).recorded
        save_npz(played, folder / f"{name}.npz")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("data"))


def write(folder: Path, name: str = "bc", **changes: Any) -> Path:
    """A card file; settings are added to those there."""
    settings = SETTINGS | changes.pop("settings", {})
    path = folder / f"{name}.json"
    path.write_text(json.dumps(CARD | changes | {"settings": settings}))
    return path


def reproduce(card: Path, data: Path, out: Path, *more: object, at_most: int = 99) -> int:
    with pytest.MonkeyPatch.context() as patch:
        inline(patch, at_most)
        return gentraj("reproduce", card, "--data", data, "--out", out, *more)


def in_processes(card: Path, data: Path, out: Path) -> int:
    return gentraj("reproduce", card, "--data", data, "--out", out)


def tasks(card: Path, data: Path, out: Path) -> Sequence[RunTask]:
    return Cards.of({card.stem: read_card(card)}, (data,), partial(place, out)).tasks


def undone(card: Path, data: Path, out: Path) -> list[RunTask]:
    return [task for task in tasks(card, data, out) if task.result is None]


def files(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.parent != out}


def scores(out: Path) -> dict[str, list[tuple[float, ...]]]:
    return {name: [seed.scores for seed in found.seeds] for name, found in read_results(out)["bc"].data.items()}


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of the card. To be read; copy it to change it."""
    out = tmp_path_factory.mktemp("done")
    assert reproduce(write(out.parent), data, out) == 1  # one of the two scores is not what the card expects
    return out


# -- from card to verdict


def test_every_seed_is_trained_on_every_dataset_and_its_last_checkpoint_scored(data: Path, done: Path) -> None:
    result = read_results(done)["bc"]
    fair, hard = load_episodes(data / "fair.npz"), load_episodes(data / "hard.npz")
    assert list(result.data) == ["fair", "hard"]
    assert result.data["fair"].behaviour == pytest.approx(fair.returns.mean())
    assert result.data["hard"].behaviour == pytest.approx(np.mean([fair.returns, hard.returns]))
    for found in result.data.values():
        assert [seed.seed for seed in found.seeds] == [3, 5] and {seed.step for seed in found.seeds} == {4}
        low, mean, high = found.over_seeds(result.card.score).estimate
        assert low <= mean <= high and mean == pytest.approx(np.mean([seed.scores for seed in found.seeds]))
    one, other = result.data["fair"].seeds
    [log] = done.glob("bc/fair/seed-3*/run/metrics.jsonl")
    assert one.train_seconds == sum(row["cpu_seconds"] for row in read_metrics(log.parent))
    assert one.scores != other.scores and one.versions.keys() >= {"python", "gentraj", "torch"}



def test_what_is_done_is_not_done_again_and_the_tolerance_decides(data: Path, done: Path, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    before, mean = files(out), read_results(out)["bc"].data["hard"].mean
    for away, code, verdict in ((1.0, 0, "inside"), (3.0, 1, "outside")):
        card = write(tmp_path, data=[FAIR, HARD | {"expected": mean + away, "tolerance": 2}])
        assert reproduce(card, data, out, at_most=0) == code
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("bc on fair: return_mean -") and lines[0].endswith("inside -1300.0 ± 700.0")
        assert f"; {verdict} {mean + away:.1f} ± 2.00" in lines[1]
    unknown = {key: HARD[key] for key in ("name", "dataset", "env_id")}
    assert reproduce(write(tmp_path, data=[FAIR, unknown]), data, out) == 0
    assert "no expectation yet" in capsys.readouterr().out and files(out) == before


@pytest.mark.parametrize(("changes", "anew", "trained"), [
    ({"label": "B", "about": "", "table": "T", "data": [HARD, FAIR | {"expected": 0}]}, 0, 0),
    ({"seeds": [3, 5, 7]}, 2, 2), ({"seeds": [5]}, 0, 0),
    ({"data": [FAIR, HARD, FAIR | {"name": "again", "dataset": "hard.npz"}]}, 2, 2),
    ({"episodes": 3}, 4, 0), ({"settings": {"policy.temperature": 0.5}}, 4, 0),
    ({"settings": {"policy.batch_size": 9}}, 4, 4)], ids=str)
def test_a_changed_card_does_anew_what_it_must(changes: dict[str, Any], anew: int, trained: int, data: Path, done: Path,
                                              tmp_path: Path) -> None:
    again = undone(write(tmp_path, **changes), data, done)
    assert len(again) == anew and sum(not task.folder.exists() for task in again) == trained


def test_other_data_of_the_same_name_are_other_runs_and_the_same_elsewhere_are_not(data: Path, done: Path,
                                                                                  tmp_path: Path) -> None:
    moved = shutil.copytree(data, tmp_path / "moved")
    card = write(tmp_path)
    assert not undone(card, moved, done)
    shutil.copy(data / "hard.npz", moved / "fair.npz")
    assert not any(task.folder.exists() for task in undone(card, moved, done))



# -- stopped


def test_stopped_it_keeps_what_there_is_and_goes_on(data: Path, done: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture) -> None:
    card, out = write(tmp_path, minutes=60), tmp_path / "out"
    assert reproduce(card, data, out, "--jobs", 1, at_most=2) == 130
    err = capsys.readouterr().err
    assert "the same command continues" in err and "4 of 4 trainings are left, about 4.0 h with 1 at a time" in err
    found = read_results(out)["bc"].data
    assert [[seed.seed for seed in one.seeds] for one in found.values()] == [[3], [3]]  # a seed of every dataset first
    assert "(1 of 2 seeds)" in write_page(read_results(out), out / "page.md").read_text()
    before = files(out)
    assert [task.seed for task in undone(card, data, out)] == [5, 5]
    assert reproduce(card, data, out) == 1
    assert before.items() <= files(out).items() and scores(out) == scores(done)


def test_stopped_in_its_processes_and_begun_again_it_ends_the_same(data: Path, done: Path, tmp_path: Path) -> None:
    card, out = write(tmp_path), tmp_path / "out"
    with Forked(in_processes, card, data, out) as process:
        while not [*out.glob("bc/*/*/run/step-*")] and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err
    assert "stopped by SIGTERM; what was done is saved, and the same command continues" in err
    for folder in out.glob("bc/*/*/run"):
        with run_lock(folder):  # nobody trains there any more
            pass
    assert reproduce(card, data, out) == 1
    assert scores(out) == scores(done)


def test_a_run_that_fails_is_reported_and_the_others_end(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: Run, **asked: Any) -> SeedResult:
        if run.config.training.seed == 3:
            raise RuntimeError("the loss is nan")
        return seed_result(run, **asked)

    monkeypatch.setattr(engine, "seed_result", fails)
    card = write(tmp_path, data=[FAIR])
    assert reproduce(card, data, tmp_path / "out") == 1
    out, err = capsys.readouterr()
    [log] = (tmp_path / "out").glob("bc/fair/seed-3-*/log.txt")
    assert f"bc/fair/seed-3 failed: the loss is nan; see {log}" in err
    assert log.read_text().endswith("RuntimeError: the loss is nan\n") and "unfinished: 1 of 2 seeds" in out
