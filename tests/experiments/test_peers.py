"""Other authors' code beside ours: a class of a few lines stands for theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.peers import __main__ as command
from benchmarks.peers import reproduce
from benchmarks.peers.ogbench import compact
from benchmarks.peers.ours import Ours
from benchmarks.peers.page import beside
from benchmarks.peers.peer import (
    METHODS,
    Method,
    Peer,
    Task,
    TrainingDone,
    masked_transitions,
    method,
    transitions,
)
from benchmarks.peers.training import Setting
from gentraj.config import ConfigError
from gentraj.data import Episodes, save_npz
from gentraj.envs.making import environment_factory
from gentraj.experiments.cards import (
    Card,
    CardData,
    CardResult,
    DataResult,
    SeedResult,
    read_results,
    write_result,
)
from gentraj.experiments.page import score_tables
from gentraj.experiments.statistics import number
from gentraj.runs.kinds.presets import PRESETS
from gentraj.runs.learn.training import train


def walks(lengths: list[int]) -> Episodes:
    rng, S = np.random.default_rng(0), sum(lengths)
    obs, act = rng.normal(size=(S + len(lengths), 2)), rng.uniform(-1, 1, (S, 2))
    never = np.zeros(S, bool)
    return Episodes(obs, act, np.zeros(S), never, never, np.array(lengths), goal_dims=(0, 1),
                    obs_keys=("observation",), env=environment_factory("ogbench/pointmaze-medium").spec_json)


def pendulum() -> Episodes:
    rng = np.random.default_rng(0)
    never = np.zeros(60, bool)
    obs, act = rng.uniform(-1, 1, (63, 3)), rng.uniform(-1, 1, (60, 1))
    return Episodes(obs, act, np.zeros(60), never, never, np.full(3, 20))


def test_data_are_given_as_ogbench_loads_its_own(tmp_path: Path) -> None:
    load_dataset = pytest.importorskip("ogbench.utils").load_dataset
    data = walks([1, 3, 2])
    ours = compact(data)
    np.savez(tmp_path / "a.npz", observations=data.obs, actions=ours["actions"], terminals=1 - ours["valids"])
    theirs = load_dataset(tmp_path / "a.npz", compact_dataset=True)
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        np.testing.assert_array_equal(ours[key], array)
        assert ours[key].dtype == array.dtype == np.float32


def hopper(tmp_path: Path, data: str = "hopper-mixed.hdf5") -> Task:
    return Task(replace(walks([3, 9]), goal_dims=()), data, "Hopper-v5", 7, 6, tmp_path)


def test_settings_of_d4rls_datasets_are_found_by_the_names_of_ours(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("hopper-medium-replay-v2", "hopper-medium-expert-v2", "maze2d-v1")}
    for data, like, found in (("hopper-mixed.hdf5", None, "hopper-medium-replay-v2"),
                              ("hopper-medium.hdf5+hopper-expert.hdf5", None, "hopper-medium-expert-v2"),
                              ("ant.npz", "maze2d-v1", "maze2d-v1")):
        assert replace(hopper(tmp_path, data), like=like).settings_file(files).name == found
    with pytest.raises(ConfigError, match="no settings for ant; give by --like one of hopper-medium-expert-v2, ho"):
        hopper(tmp_path, "ant.npz").settings_file(files)


class Counting(Peer):
    """A method that counts its updates, and whose agent does nothing."""

    def __init__(self, name: str, task: Task):
        self.task, self.updates = task, 0
        MADE.append(self)

    def train(self, after_update: Callable[[], None]) -> None:
        while True:
            self.updates += 1
            after_update()

    def _act(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor | None) -> torch.Tensor:
        return torch.zeros(len(obs_BO), 1)


MADE: list[Counting] = []


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds the method `counting`, and returns what compares it: in this process, and in episodes of two steps."""
    MADE.clear()
    monkeypatch.setattr(Method, "made", lambda self, task: Counting(self.name, task))
    for module in (command, reproduce):
        monkeypatch.setattr(module, "run_jobs", lambda jobs, pool: [(job.function(*job.arguments), job.outcome())
                                                                    for job in jobs])

    def compare(data: Path, out: Path, scheduled: bool = False, seeds: tuple[int, ...] = (0,), **setting: Any) -> None:
        monkeypatch.setitem(METHODS, "counting", Method("Counting", "none", "counting", scheduled=scheduled))
        given = Setting(str(data), "Pendulum-v1", episodes=1, **setting)
        command.main(command.Args(given, ("counting",), seeds, out=out))

    return compare


def test_a_training_is_scored_when_each_budget_is_spent_and_only_what_is_missing_is_done(
        counting: Callable[..., None], tmp_path: Path) -> None:
    data, out = save_npz(pendulum(), tmp_path / "swing.npz"), tmp_path / "out"
    counting(data, out, updates=40, minutes=1e-4)
    assert len(MADE) == 1
    counting(data, out, updates=40, minutes=1e-4, seeds=(0, 1))
    assert [peer.task.seed for peer in MADE] == [0, 1]
    timed, result = read_results(out).values()
    assert [(seed.seed, seed.step) for seed in result.data["swing"].seeds] == [(0, 40), (1, 40)]
    assert all(seed.train_seconds >= 6e-3 for seed in timed.data["swing"].seeds)
    assert "Counting" in (out / "peers.md").read_text()
    with pytest.raises(ConfigError, match="updates 40, not 41"):
        counting(data, out, updates=41)


def again(*rows: Path, data: Path, out: Path, **changes: Any) -> bool:
    return reproduce.main(reproduce.Args(rows, (data,), checkouts=data / "none", out=out, **changes))


def test_a_row_is_repeated_and_judged_by_the_score_that_is_published(
        counting: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, row = save_npz(pendulum(), tmp_path / "swing.npz"), tmp_path / "out" / "counting-updates.json"
    counting(data, row.parent, updates=4, seeds=(0, 1))
    assert again(row, data=tmp_path, out=tmp_path / "a")
    assert [(peer.task.seed, peer.updates) for peer in MADE] == [(0, 4), (1, 4)] * 2
    published = read_results(row.parent)["counting-updates"]
    [name], mean = published.data, published.data["swing"].mean
    assert f"counting-updates on {name}: return_mean {number(mean)}" in capsys.readouterr().out
    assert again(row, data=tmp_path, out=tmp_path / "a")
    assert len(MADE) == 4
    better = replace(published.data["swing"].seeds[0], scores=(0.9 * mean,))  # the other seed is not asked for
    seeds = better, published.data["swing"].seeds[1]
    write_result(row, replace(published, data={"swing": replace(published.data["swing"], seeds=seeds)}))
    assert not again(row, data=tmp_path, out=tmp_path / "a", seeds=(0,))
    assert f"outside {number(0.9 * mean)}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="give another folder by --out"):
        again(row, data=tmp_path, out=row.parent)


def test_a_row_that_cannot_be_repeated_here_is_skipped_with_a_line_that_says_what_to_get(
        counting: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, row = save_npz(pendulum(), tmp_path / "swing.npz"), tmp_path / "out" / "counting-updates.json"
    counting(data, row.parent, updates=4)
    text = row.read_text()
    capsys.readouterr()
    for changed, message in (
            (text.replace('"counting"', '"fql"'), "counting-updates: FQL of its authors needs a checkout: git"),
            (text.replace("swing.npz", "gone.npz"), "counting-updates on swing: the data file gone.npz is"),
            (text.replace('"sha256": "', '"sha256": "0'), "counting-updates on swing: .*swing.npz is other data")):
        row.write_text(changed)
        assert again(row, data=tmp_path, out=tmp_path / "a")
        [line] = capsys.readouterr().err.splitlines()
        assert re.match(f"skipped: {message}", line)
    assert len(MADE) == 1


def scored(label: str, seeds: Sequence[int], **means: float) -> CardResult:
    """A row with these means on datasets, with episodes that are 10 below and 10 above it."""
    data = {name: DataResult("", None, tuple(SeedResult(seed, label, 1, "", (mean - 10, mean + 10) * 10, 0.0, {})
                                             for seed in seeds)) for name, mean in means.items()}
    card = Card("", "After 1 updates", label, "iql", {}, tuple(CardData(name, name) for name in means), tuple(seeds), 2,
                "random-goal", "score_d4rl")
    return CardResult(card, data)


def test_a_tolerance_is_three_standard_deviations_or_a_twentieth_of_the_scale() -> None:
    wide = scored("any", [0, 1], hopper=50).data["hopper"]
    assert reproduce.tolerance(wide, "score_d4rl") == pytest.approx(3 * 10 / 19**0.5)
    exact = DataResult("", None, (replace(wide.seeds[0], scores=(0.5, 0.5)),))
    assert reproduce.tolerance(exact, "score_d4rl") == 5
    assert reproduce.tolerance(exact, "success_rate") == 0.05
    assert reproduce.tolerance(exact, "return_mean") == 0.025


def test_ours_is_beside_theirs_on_the_data_that_both_have_and_the_reason_is_given_where_it_is_behind() -> None:
    rows = {"a": scored("IQL of CORL", [0, 1], hopper=50, walker=40), "b": scored("iql of gentraj", [0, 1], hopper=45),
            "c": scored("iql-published of gentraj", [0, 1, 2], hopper=8, walker=42)}
    minutes = replace(rows["a"], card=replace(rows["a"].card, table="After 1 core-minutes"))
    updates, other = score_tables(rows | {"d": minutes})
    _, table, reasons = beside(updates)
    first = [[cell.split()[0] for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert first == [["`iql`", "IQL", "-5.00", "—", "—"], ["`iql-published`", "IQL", "-42.0", "2.00", "-20.0"]]
    assert "-5.00 [-5.00, -5.00]" in table  # paired, where the seeds are the same
    assert [line.split("`")[1] for line in reasons.splitlines()] == ["iql", "iql-published"]
    assert not [*beside(other)]


def test_a_schedule_ends_where_its_budget_does(counting: Callable[..., None], tmp_path: Path) -> None:
    counting(save_npz(pendulum(), tmp_path / "swing.npz"), tmp_path / "out", True, updates=40, minutes=1e-4)
    measured, one, other = MADE
    assert one.task.updates == one.updates == 40
    assert other.task.updates == other.updates > 0
    assert measured.updates < 100


def test_an_agent_that_cannot_act_is_refused_before_it_is_trained(
        counting: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "act", lambda self, obs_BO, goal_BG=None: torch.zeros(len(obs_BO), 2))
    with pytest.raises(ValueError, match="actions of shape"):
        counting(save_npz(pendulum(), tmp_path / "swing.npz"), tmp_path / "out", updates=40)
    assert MADE[0].updates == 1


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"git clone .*seohongpark/fql"):
        method("fql").check_code(tmp_path)
    with pytest.raises(ConfigError, match="unknown method 'gentraj:no'"):
        method("gentraj:no")
    with pytest.raises(ConfigError, match="X needs nothing-of-this-name: pip install --no-deps numpy nothing-of"):
        Method("X", "none", "x", packages="--no-deps numpy nothing-of-this-name==2").check_code(tmp_path)


@pytest.mark.parametrize(("name", "data", "message"), [
    ("gentraj:iql", walks([2]), "must be conditioned on the goal"),
    ("gcbc", pendulum(), "has no goals, which GCBC of OGBench"),
    ("fql", replace(pendulum(), act=np.full((60, 1), -2.0)), "actions up to 2, and FQL of its authors needs")], ids=str)
def test_data_that_do_not_fit_a_method_are_said_in_one_line(
        name: str, data: Episodes, message: str, tmp_path: Path) -> None:
    env = "ogbench/pointmaze-medium" if data.goal_dims else "Pendulum-v1"
    given = Task(data, str(save_npz(data, tmp_path / "data.npz")), env, 0, 1)
    with pytest.raises(ValueError, match=message) as caught:
        method(name).check_data(given)
    assert "\n" not in str(caught.value)


def test_the_last_observation_of_an_episode_is_the_next_one_of_its_last_step() -> None:
    data = replace(walks([1, 3]), goal_dims=())
    rows = transitions(data)
    np.testing.assert_array_equal(rows["observations"], data.obs[[0, 2, 3, 4]])
    np.testing.assert_array_equal(rows["next_observations"], data.obs[[1, 3, 4, 5]])
    rows = masked_transitions(replace(data, terminated=np.array([True, False, False, False])))
    np.testing.assert_array_equal(rows["masks"], [0, 1, 1, 1])
    np.testing.assert_array_equal(rows["terminals"], [1, 0, 0, 1])


def test_a_preset_of_ours_is_trained_as_by_its_command(tmp_path: Path) -> None:
    """Its agent acts by the weights that `train` gives for the same settings."""
    data = pendulum()
    path = str(save_npz(data, tmp_path / "swing.npz"))
    peer = Ours("bc-gaussian", Task(data, path, "Pendulum-v1", 1, 3))

    def after_update() -> None:
        if peer.trainer.step == 3:
            raise TrainingDone

    with suppress(TrainingDone):
        peer.train(after_update)
    preset = PRESETS["bc-gaussian"]
    run = train(replace(preset, dataset=path, env_id="Pendulum-v1", training=replace(
        preset.training, seed=1, steps=3, threads=1)), folder=tmp_path / "run", progress=False)
    obs_BO = torch.from_numpy(data.obs[:2])
    peer.reset([0, 1])
    agent = run.agent(run.action_space())
    agent.reset([0, 1])
    assert torch.equal(peer.act(obs_BO), agent.act(obs_BO))
