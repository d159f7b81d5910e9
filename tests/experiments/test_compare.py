"""`gentraj compare`: a small comparison as a user makes it, killed and gone on with, and the numbers behind it."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small
from forked import Forked
from inline import inline
from small import DATASET, edit, gentraj
from test_engine import wait_until

from gentraj.diffusion import likelihood
from gentraj.experiments import compare as experiment
from gentraj.experiments.cards import SeedResult
from gentraj.experiments.compare import CompareConfig, Group, RunNumbers, RunResult, entrant, planned
from gentraj.experiments.compare_page import FrontierPoint, frontier
from gentraj.experiments.page import over_runs
from gentraj.experiments.statistics import Estimate
from gentraj.families import FAMILIES
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.discriminator import DiscriminatorConfig
from gentraj.runs import load
from gentraj.training.checkpoint import run_lock

WORDS = ("compare", "tiny", "--families", "flow,gan", "--steps", 24, "--seeds", 1, "--episodes", 2, "--num", 16)


def shrink(patch: pytest.MonkeyPatch) -> None:
    """A preset and families of the smallest networks; they are sent to the processes that train them."""
    network = ResidualMLPConfig(width=8, depth=1)
    families: Any = {n: c.with_network(network) for n, c in FAMILIES.items() if n != "latent"}
    families["gan"] = replace(families["gan"], discriminator=DiscriminatorConfig(width=8, multipliers=(1, 2)))
    preset = replace(small.config(DATASET), horizon=16, stride=8, model=families["diffusion"])
    patch.setattr(experiment, "PRESETS", {"tiny": preset})
    patch.setattr(experiment, "FAMILIES", families)
    measure_little(patch)


def measure_little(patch: pytest.MonkeyPatch) -> None:
    for name, little in (("SECONDS_TIMED", 0.0), ("DECISIONS", 2), ("LIKELIHOODS", 2)):
        patch.setattr(experiment, name, little)
    patch.setattr(likelihood, "ODE_STEPS", 2)


def compare(out: object, *more: object, processes: bool = False) -> int:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        if not processes:
            inline(patch)
        return gentraj(*WORDS, *more, "--out", out)


def compare_in_processes(out: Path, *more: str) -> int:
    return compare(out, *more, processes=True)


def existing(*folders: object) -> list[tuple[str, str]]:
    """The group and the family of existing runs."""
    config = CompareConfig(runs=tuple(map(str, folders)), episodes=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gentraj.runs.kinds.folder.check_same", lambda *_: None)  # checkpoints of edited settings
        return [task.cell for task in experiment.to_measure(config)]


def runs_of(out: Path) -> dict[str, Any]:
    """The results of the runs, by their names."""
    groups = json.loads((out / "comparison.json").read_text())["groups"]
    return {run["name"]: run for group in groups for run in group["runs"]}


def untimed(run: dict[str, Any]) -> dict[str, Any]:
    """A result without times and paths."""
    timed = ("cpu_ms", "train_seconds", "plans_per_second.1", "plans_per_second.64")
    numbers = {key: value for key, value in run["numbers"].items() if key not in timed}
    score = run["score"] | {"train_seconds": 0, "decision_ms": 0}
    return run | {"numbers": numbers, "score": score, "folder": ""}


@pytest.fixture(scope="module")
def compared(umaze, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    assert compare(out) == 0
    return out


# -- the command


def test_it_measures_all_families_alike(compared: Path) -> None:
    flow, gan = (runs_of(compared)[f"tiny/{name}-seed-0"] for name in ("flow", "gan"))
    for run in (flow, gan):
        assert run["failure"] is None and len(run["score"]["scores"]) == 2
        assert run["numbers"].keys() >= {"start.recall", "start and goal.recall", "data.recall", "cpu_ms", "parameters",
                                         "plans_per_second.1", "plans_per_second.64", "train_seconds"}
        assert run["numbers"]["train_steps"] == 24
    assert flow["numbers"].keys() - gan["numbers"].keys() == {"log_prob_per_entry"}


def test_the_page_has_scores_measures_and_figures(compared: Path) -> None:
    page = (compared / "comparison.md").read_text()
    for text in ("## tiny", "above flow", "recall", "nats per entry", "| | flow | gan | data |".replace("| |", "|  |")):
        assert text in page
    assert page.count("](figures/comparison-tiny") == 3
    assert {path.name for path in (compared / "figures").iterdir()} == {
        f"comparison-{name}.png" for name in ("tiny", "tiny-frontier", "tiny-samples")}


def test_what_is_done_is_not_done_again(compared: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in (compared / "tiny").rglob("*") if path.is_file()}
    assert compare(compared) == 0
    out, err = capsys.readouterr()
    assert "started" not in err and "| start.recall" not in out and "recall (share)" in out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_stopped_in_its_processes_and_begun_again_it_ends_the_same(compared: Path, tmp_path: Path) -> None:
    def has_begun() -> bool:
        return bool([*tmp_path.glob("tiny/*/run/step-*")])

    with Forked(compare_in_processes, tmp_path, "--families", "gan") as process:
        wait_until(lambda: has_begun() or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err
    assert "stopped by SIGTERM; what was done is saved, and the same command continues" in err
    for folder in tmp_path.glob("tiny/*/run"):
        with run_lock(folder):  # nobody trains there any more
            pass
    assert compare(tmp_path, "--families", "gan") == 0
    [(name, run)] = runs_of(tmp_path).items()
    assert untimed(run) == untimed(runs_of(compared)[name])


def test_families_that_train_for_equal_time_make_the_steps_that_fit(tmp_path: Path, umaze,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """The GAN takes twice as long for a step; how long is measured once."""
    shrink(monkeypatch)
    outcomes = inline(monkeypatch)
    for measured in ("samples", "speed"):
        monkeypatch.setattr(experiment, measured, lambda *_, **__: RunNumbers({}))
    monkeypatch.setattr(experiment, "PACE_STEPS", 4)
    monkeypatch.setattr(experiment, "read_metrics", lambda folder: [
        {"seconds": 99.0}, {"seconds": 10.0 if "gan-pace" in str(folder) else 5.0}])  # of 10 steps each
    words = ("compare", "tiny", "--families", "flow,gan", "--minutes", 0.1, "--seeds", 1, "--episodes", 0, "--num", 16)
    assert gentraj(*words, "--out", tmp_path) == 0 and len(outcomes) == 4
    assert [run["numbers"]["train_steps"] for run in runs_of(tmp_path).values()] == [12, 6]
    assert "training steps | 12 | 6" in (tmp_path / "comparison.md").read_text()
    assert gentraj(*words, "--out", tmp_path) == 0 and len(outcomes) == 4


def test_a_run_that_fails_is_a_result(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(compared / "tiny", tmp_path / "tiny")
    [folder] = tmp_path.glob("tiny/gan-seed-0-*")
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "run").write_text("in the way")
    assert compare(tmp_path) == 0
    failures = {name: run["failure"] for name, run in runs_of(tmp_path).items()}
    assert failures["tiny/flow-seed-0"] is None and "cannot be used as a run" in failures["tiny/gan-seed-0"]
    err = capsys.readouterr().err
    assert "cannot be used as a run folder" in err and str(folder / "log.txt") in err
    assert "cannot be used" in (tmp_path / "comparison.md").read_text()


@pytest.mark.parametrize(("words", "message"), [
    ((), "give presets to train, or --runs"), (("pointmaze-umaze", "--runs", "x"), "give presets to train, or --runs"),
    (("pointmaze-umaze", "--families", "diffusion,gam"), "unknown family 'gam'; did you mean 'gan'?"),
    (("pointmaze-umaze", "--families", "gan,gan"), "each family is expected once"),
    (("pointmaze-umaze", "--steps", 9, "--minutes", 1), "--steps and --minutes both say how long"),
    (("--runs", "x", "--families", "gan"), "--families is for presets that are trained, and --runs names exist"),
    (("--runs", "nowhere"), "nowhere: no run there")])
def test_bad_input_is_one_line(words: tuple, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("compare", *words, "--out", tmp_path / "out") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


# -- what it is made of


def test_families_differ_in_their_generator_only() -> None:
    configs: Any = planned(CompareConfig(("pointmaze-umaze", "pointmaze-open"), families="diffusion,gan"))
    assert [preset for preset, _ in configs] == ["pointmaze-umaze"] * 2 + ["pointmaze-open"] * 2
    diffusion, gan = (configs["pointmaze-umaze", name] for name in ("diffusion", "gan"))
    assert replace(gan, model=diffusion.model) == diffusion != gan


def test_where_one_is_a_policy_presets_are_compared_with_each_other() -> None:
    config = CompareConfig(("iql", "veteran", "swift"), dataset="D4RL/pen/human-v2", env_id="Hopper-v5", steps=5)
    configs = planned(config)
    assert [*configs] == [("human-v2", name) for name in config.presets]
    assert {(own.env_id, own.training.steps) for own in configs.values()} == {("Hopper-v5", 5)}
    for change, message in (({"families": "gan"}, "iql is a policy"), ({"presets": ("iql", "world-model")}, "model"),
                            ({"dataset": ""}, "needs --dataset")):
        with pytest.raises(ValueError, match=message):
            planned(replace(config, **change))


def test_runs_are_compared_from_python_in_the_same_episodes(hopper_run: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(hopper_run, tmp_path / "twin")
    table = experiment.compare([load(hopper_run), twin], "Hopper-v5", episodes=3, progress=False)
    assert {row.label for row in table.rows} == {hopper_run.name, "twin"}
    one, two = (row.results["Hopper-v5"].by_seed for row in table.rows)
    assert one == two and f"above {hopper_run.name}" in str(table)
    with pytest.raises(ValueError, match="no runs"):
        experiment.compare([])


def test_families_are_compared_with_the_first_one_and_with_no_other_in_its_place() -> None:
    """Where all runs of the first family fail, the second one is not called the first."""
    def result(family: str, mean: float, failure: str | None = None) -> RunResult:
        score = SeedResult(0, "", 1, "", (mean, mean), 0.0, {})
        return RunResult(family, family, 0, "", None, failure, None if failure else score)

    others = [result("second", 2.0), result("third", 3.0)]
    for first, noted in ((result("first", 1.0), True), (result("first", 1.0, "nan"), False)):
        table = Group("g", None, [first, *others]).table()
        assert table is not None and [row.label for row in table.rows][:2] == ["third", "second"]
        assert ["above first" in part for part in over_runs(table)] == [False, True] * noted


def test_a_point_is_on_the_frontier_unless_another_one_is_as_cheap_and_worth_as_much() -> None:
    costs_and_worths = ((1.0, 5.0), (2.0, 7.0), (2.0, 6.0), (3.0, 7.0), (3.0, 9.0), (1.0, 5.0))
    points = [FrontierPoint(str(i), cost, Estimate(0.0, worth, 9.0)) for i, (cost, worth) in
              enumerate(costs_and_worths)]
    assert [point.name for point in frontier(points)] == ["0", "1", "4", "5"]


def test_a_planner_with_other_steps_and_a_policy_are_measured_too(small_run: Path, hopper_run: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """They need no training, nor its log."""
    inline(monkeypatch)
    measure_little(monkeypatch)
    folder = shutil.copytree(hopper_run, tmp_path / "policy")
    (folder / "metrics.jsonl").unlink()
    assert gentraj("compare", "--runs", f"{small_run}@1", f"{small_run}@4", folder, "--episodes", 1, "--num", 16,
                   "--out", tmp_path / "out") == 0
    one, four, policy = runs_of(tmp_path / "out").values()
    assert four["numbers"]["calls"] - one["numbers"]["calls"] >= 3
    assert [one["family"], four["family"]] == [f"{small_run}@1", f"{small_run}@4"]
    assert policy["score"]["scores"] and policy["numbers"].keys() == {"calls", "cpu_ms", "parameters", "train_steps"}


def test_no_steps_are_refused_and_a_folder_may_have_an_at_sign(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x@0 has 0 sampling steps"):
        entrant("x@0")
    there = tmp_path / "run@4"
    there.mkdir()
    assert entrant(str(there)) == (there, None) and entrant(f"{there}@2") == (there, 2)


def test_runs_with_other_settings_are_families_of_their_own(small_run: Path, tmp_path: Path) -> None:
    for name, seed, replan in (("a", 1, 60), ("b", 0, 7), ("c", 0, 60)):
        shutil.copytree(small_run, tmp_path / name)
        for part, key, value in (("training", "seed", seed), ("planner", "replan", replan)):
            edit(tmp_path / name, lambda config, p=part, k=key, v=value: config["run"][p].update({k: v}))
    families = [family for _, family in existing(small_run, *(tmp_path / name for name in "abc"))]
    assert families[:3] == [str(small_run), str(small_run), str(tmp_path / "b")]
    assert families[3] == str(tmp_path / "c")  # the same seed once more


def test_runs_are_grouped_by_their_environment_and_not_by_its_name(small_run: Path, tmp_path: Path) -> None:
    moved, elsewhere = (shutil.copytree(small_run, tmp_path / name) for name in ("moved", "elsewhere"))
    edit(moved, lambda config: config["run"].update(dataset="/data/umaze.npz"))
    edit(elsewhere, lambda config: config["data"].update(env=json.dumps(
        json.loads(config["data"]["env"]) | {"max_episode_steps": 77})))
    groups = [group for group, _ in existing(small_run, moved, elsewhere)]
    assert groups[0] == groups[1] and len(set(groups)) == 2
