"""`gentraj compare`: a small comparison as a user makes it, killed and gone on with, and the numbers behind it."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small
import torch
from forked import Forked
from inline import inline
from small import DATASET, edit, gentraj

from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.experiments import compare as experiment
from gentraj.experiments import comparison, groups
from gentraj.experiments.compare import CompareConfig, Entrant, existing, planned, to_train
from gentraj.experiments.comparison import Control, FrontierPoint, Options, RunResult, mark_frontier, summarize
from gentraj.experiments.groups import MODES, Group
from gentraj.families import FAMILIES
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.discriminator import DiscriminatorConfig
from gentraj.runs import load
from gentraj.training.checkpoint import run_lock
from gentraj.trajectory import Batch, Condition, TrajectorySpec

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
    for name, little in (("SECONDS_TIMED", 0.0), ("DECISIONS", 2), ("LIKELIHOODS", 2), ("SAMPLES_OF_FORK", 32)):
        patch.setattr(comparison, name, little)


def compare(out: object, *more: object, page: bool = False, processes: bool = False) -> int:
    """The command; a page takes as long as all else."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        if not processes:
            inline(patch)
        if not page:
            patch.setattr(experiment, "write_page", lambda *_: "no page")
        return gentraj(*WORDS, *more, "--out", out)


def compare_in_processes(out: Path, *more: str) -> int:
    return compare(out, *more, processes=True)


def existing_runs(*folders: Path) -> dict[Entrant, Any]:
    return existing([Entrant(folder) for folder in folders])


def wait_for(found: Any) -> None:
    """Waits for an event. The test's own time limit ends it."""
    while not found():
        time.sleep(0.02)


def group_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "comparison.json").read_text())["groups"]["tiny"]


def untimed(out: Path) -> dict[str, Any]:
    """Returns the results of a comparison without times and paths."""
    group = group_of(out)
    for run in group["runs"].values():
        for key in ("speed", "training_seconds", "folder"):
            run.pop(key)
    return {key: group[key] for key in ("runs", "data", "baselines")}


@pytest.fixture(scope="module")
def compared(umaze, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    assert compare(out, page=True) == 0
    return out


# -- the command


def test_it_measures_all_families_alike(compared: Path) -> None:
    group = group_of(compared)
    flow, gan = (group["runs"][f"tiny/{name}-seed-0"] for name in ("flow", "gan"))
    for run in (flow, gan):
        assert run["failure"] is None and run["steps"] == 24 and len(run["control"]["returns"]) == 2
        assert run["quality"]["measures"].keys() == {"data", "start", "start and goal"}
        assert run["speed"]["plans_per_second"].keys() == {"1", "64", "256"}
        assert all(sum(shares) == pytest.approx(1) for shares in run["modes"]["shares"])
        model = load(Path(run["folder"])).model
        assert run["speed"]["parameters_sampling"] == sum(p.numel() for p in model.network.parameters())
    assert flow["likelihood"]["log_prob_per_entry"] is not None and gan["likelihood"] == {"log_prob_per_entry": None}
    assert group["baselines"].keys() == {"controller", "random"}
    assert group["families"]["gan"]["control.return_mean"]["mean"] == gan["control"]["return_mean"]
    first, other = (group["families"][name] for name in ("flow", "gan"))
    apart = gan["control"]["return_mean"] - flow["control"]["return_mean"]
    assert other["above_first"]["mean"] == pytest.approx(apart) and "improvement" not in first
    assert other["improvement"]["mean"] == (0.5 if apart == 0 else float(apart > 0))  # of one seed each
    assert other["return_iqm"]["mean"] == pytest.approx(gan["control"]["return_mean"])


def test_the_page_stands_alone_and_shows_pictures_first(compared: Path) -> None:
    page = (compared / "comparison.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http:" not in page and "https:" not in page
    assert page.rindex("<img") < page.index("<table")
    for text in ("failed seeds", "recall", "nats per entry", "success rate", "what it is worth", "flow", "gan"):
        assert text in page


def test_what_is_done_is_not_done_again(compared: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in (compared / "tiny").rglob("*") if path.is_file()}
    assert compare(compared) == 0
    out, err = capsys.readouterr()
    assert "started" not in err and out.splitlines()[0] == "tiny, at a glance"
    assert before == {path: path.stat().st_mtime_ns for path in before}



def test_stopped_in_its_processes_by_each_signal_and_begun_again_it_ends_the_same(compared: Path,
                                                                                  tmp_path: Path) -> None:
    def done() -> set[Path]:
        return {*tmp_path.glob("tiny/*/run/step-*"), *tmp_path.glob("tiny/*/*.json")}

    for how in (signal.SIGTERM, signal.SIGKILL):
        before = done()
        with Forked(compare_in_processes, tmp_path, "--families", "gan") as process:
            wait_for(lambda before=before, process=process: done() - before or process.poll() is not None)
            process.send_signal(how)
            _, err = process.communicate()
        if how != signal.SIGKILL:
            assert process.returncode == 128 + how
            message = f"gentraj: error: stopped by {how.name}; what was done is saved, and the same command continues"
            assert message in err and "Traceback" not in err
            for folder in tmp_path.glob("tiny/*/run"):
                with run_lock(folder):  # nobody trains there any more
                    pass
    assert compare(tmp_path, "--families", "gan") == 0
    [(name, run)] = (found := untimed(tmp_path))["runs"].items()
    assert run == untimed(compared)["runs"][name] and found["baselines"] == untimed(compared)["baselines"]


def test_a_run_that_fails_is_a_result(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(compared / "tiny", tmp_path / "tiny")
    [folder] = tmp_path.glob("tiny/gan-seed-0-*")
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "run").write_text("in the way")
    assert compare(tmp_path, page=True) == 0
    group = group_of(tmp_path)
    assert [group["families"][name]["failed"]["mean"] for name in ("gan", "flow")] == [1, 0]
    assert "cannot be used as a run folder" in group["runs"]["tiny/gan-seed-0"]["failure"]
    err = capsys.readouterr().err
    assert "cannot be used as a run folder" in err and str(folder / "log.txt") in err
    assert "cannot be used" in (tmp_path / "comparison.html").read_text()


def test_runs_there_are_need_no_training(compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "write_page", lambda *_: "no page")
    inline(monkeypatch)
    measure_little(monkeypatch)
    [folder] = compared.glob("tiny/gan-seed-0-*/run")
    folder = shutil.copytree(folder, tmp_path / "run")
    (folder / "metrics.jsonl").unlink()  # nothing else needs the log
    assert gentraj("compare", "--runs", folder, "--episodes", 1, "--num", 16, "--out", tmp_path) == 0
    [group] = json.loads((tmp_path / "comparison.json").read_text())["groups"].values()
    [run] = group["runs"].values()
    assert (run["failure"], run["steps"], list(group["families"])) == (None, 24, [str(folder)])
    assert run["training_seconds"] is None


@pytest.mark.parametrize(("words", "message"), [
    ((), "give presets to train, or --runs"), (("pointmaze-umaze", "--runs", "x"), "give presets to train, or --runs"),
    (("pointmaze-umasse",), "did you mean 'pointmaze-umaze'"), (("pointmaze",), "needs --dataset"),
    (("pointmaze-umaze", "--families", "diffusion,gam"), "unknown family 'gam'; known: diffusion, flow"),
    (("pointmaze-umaze", "--families", "gan,gan"), "each family is expected once"),
    (("pointmaze-umaze", "--seeds", 0), "--seeds is 0"),
    (("pointmaze-umaze", "--jobs", 0), "--jobs is 0; give at least 1"),
    (("pointmaze-umaze", "--steps", 0), "--steps is 0"),
    (("--runs", "x", "--families", "gan"), "--families is for presets that are trained, and --runs names exist"),
    (("--runs", "x", "--seeds", 5), "--seeds is for presets"),
    (("pointmaze-umaze", "--budget", 1, "--steps", 9), "--budget and --steps both say how long to train; give one"),
    (("pointmaze-umaze", "--budget", "nan"), "--budget is nan"), (("--runs", "nowhere"), "nowhere: no run there")])
def test_bad_input_is_one_line(words: tuple, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("compare", *words, "--out", tmp_path / "out") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


# -- what it is made of


def test_families_differ_in_their_generator_only() -> None:
    configs = planned(["pointmaze-umaze", "pointmaze-open"], ["diffusion", "gan"])
    assert [preset for preset, _ in configs] == ["pointmaze-umaze"] * 2 + ["pointmaze-open"] * 2
    diffusion, gan = (configs["pointmaze-umaze", name] for name in ("diffusion", "gan"))
    assert replace(gan, model=diffusion.model) == diffusion != gan


def test_steps_are_timed_anew_on_another_device(umaze, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of minutes is as many steps as the device does in them."""
    shrink(monkeypatch)
    monkeypatch.setattr(experiment, "_step_seconds", lambda *given: 1.0 if given[-1].type == "cpu" else 0.1)
    monkeypatch.setattr(experiment, "pick_device", torch.device)
    configs, config = planned(["tiny"], ["gan"]), CompareConfig(("tiny",), seeds=1, budget=1.0, out=tmp_path)
    steps = [to_train(configs, config, Options(1, 16, device))[0][0].config.training.steps
             for device in ("cpu", "cuda", "cpu")]
    assert steps == [60, 600, 60]


def test_families_are_compared_with_the_first_one_and_with_no_other_in_its_place() -> None:
    """Where all runs of the first family fail, the second one is not called the first."""
    group: Any = SimpleNamespace(forks=[], data_variation=lambda: 0.0)

    def result(family: str, mean: float, failure: str | None = None) -> RunResult:
        control = None if failure else Control("", mean, (mean, mean), returns=(mean, mean))
        return RunResult(family, 0, "", failure, [], 1, control=control)

    others = {"b": result("second", 2.0), "c": result("third", 3.0)}
    for first, noted in ((result("first", 1.0), True), (result("first", 1.0, "nan"), False)):
        families = summarize({"a": first, **others}, group, None, {}).families
        assert ["above_first" in families[name] for name in ("second", "third")] == [noted, noted]
        assert families["third"]["return_iqm"].mean == 3.0


def test_a_point_is_on_the_frontier_unless_another_one_is_as_cheap_and_worth_as_much() -> None:
    costs_and_worths = ((1.0, 5.0), (2.0, 7.0), (2.0, 6.0), (3.0, 7.0), (3.0, 9.0), (1.0, 5.0))
    points = [FrontierPoint("", "a", *each, (0.0, 9.0)) for each in costs_and_worths]
    points.append(FrontierPoint("", "b", 9.0, 0.0, (0.0, 9.0)))  # of another environment
    assert [point.on_frontier for point in mark_frontier(points)] == [True, True, False, False, True, True, True]


def test_a_planner_with_other_steps_and_a_policy_are_measured_too(small_run: Path, hopper_run: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    inline(monkeypatch)
    measure_little(monkeypatch)
    monkeypatch.setattr(experiment, "write_page", lambda *_: "no page")  # two families of one page are drawn above
    assert gentraj("compare", "--runs", small_run, f"{small_run}@4", hopper_run, "--episodes", 1, "--num", 16,
                   "--out", tmp_path) == 0
    found = json.loads((tmp_path / "comparison.json").read_text())
    planner, policy = found["groups"].values()
    own, four = planner["families"].values()
    assert four["speed.calls"]["mean"] - own["speed.calls"]["mean"] >= 3
    assert list(planner["families"]) == [str(small_run), f"{small_run}@4"]
    [run] = policy["runs"].values()
    assert run["quality"] is None and run["control"]["returns"] and run["speed"]["plans_per_second"] is None
    names = [point["name"].partition(": ")[2] for point in found["frontier"]]
    assert names[:2] == [str(small_run), f"{small_run}@4"] and found["frontier"][2]["on_frontier"]


def test_no_steps_are_refused_and_a_folder_may_have_an_at_sign(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x@0 has 0 sampling steps"):
        Entrant.of("x@0")
    there = tmp_path / "run@4"
    there.mkdir()
    assert Entrant.of(str(there)) == (there, None) and Entrant.of(f"{there}@2") == (there, 2)


def test_runs_with_other_settings_are_families_of_their_own(small_run: Path, tmp_path: Path) -> None:
    for name, seed, replan in (("a", 1, 60), ("b", 0, 7)):
        shutil.copytree(small_run, tmp_path / name)
        for part, key, value in (("training", "seed", seed), ("planner", "replan", replan)):
            edit(tmp_path / name, lambda config, p=part, k=key, v=value: config["run"][p].update({k: v}))
    same = existing_runs(small_run, tmp_path / "a")
    assert [(family, config.training.seed) for (_, family), config in same.values()] == [
        (str(small_run), 0), (str(small_run), 1)]
    other = existing_runs(small_run, tmp_path / "b")
    assert [family for (_, family), _ in other.values()] == [str(small_run), str(tmp_path / "b")]


def test_runs_are_grouped_by_their_data_and_environment_and_not_by_the_names_of_these(
        small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same data may lie elsewhere, and other data may have the same name, as in two folders of a project."""
    runs = [shutil.copytree(small_run, tmp_path / name) for name in ("moved", "other", "elsewhere")]
    moved, other, elsewhere = runs
    edit(moved, lambda config: config["run"].update(dataset="/data/umaze.npz"))
    edit(elsewhere, lambda config: config["data"].update(env=json.dumps(
        json.loads(config["data"]["env"]) | {"max_episode_steps": 77})))
    read = experiment.load_checkpoint
    monkeypatch.setattr(experiment, "load_checkpoint", lambda folder: read(folder) if folder != other else replace(
        read(folder), meta={"dataset_hash": "another"}))
    groups = [group for (group, _), _ in existing_runs(small_run, *runs).values()]
    assert groups[0] == groups[1] and len(set(groups)) == 3



def test_ways_are_found_where_they_part(tmp_path: Path) -> None:
    """Two starts: from one a third of the windows goes up and the others down, from the other all go on."""
    g = torch.Generator().manual_seed(0)
    x = 0.01 * torch.randn(600, 12, 2, generator=g)
    way = torch.linspace(0, 1, 12)[None]
    x[:300, :, 1] += way * torch.where(torch.arange(300) % 3 == 0, 1.0, -1.0)[:, None]
    x[300:, :, 0] += 10 + 0.1 * way
    group = Group("g", tmp_path, (0, 1))
    group.keep(Batch(x, torch.ones_like(x, dtype=torch.bool)))
    fork = group.forks[0]
    assert (fork.x_MHD[:, 0, 0] < 5).all()
    up = fork.x_MHD[:, -1, 1] > 0
    shares = torch.tensor(fork.shares(fork.mode_M))
    assert len(shares) == MODES and float(shares.sum()) == pytest.approx(1)
    goes_up = fork.centre_KF[:, -1] > 0
    assert float(shares[goes_up].sum()) == pytest.approx(float(up.float().mean()))
    assert group.modes(fork, fork.x_MHD[up])[int(shares[~goes_up].argmax())] == 0 or not goes_up.all()


def test_the_first_action_is_no_part_of_a_start(tmp_path: Path) -> None:
    """All windows start at the same place, and the first action decides which way they go. Models know the place alone,
    so that windows of both ways are at a fork."""
    g = torch.Generator().manual_seed(0)
    x = torch.cat([0.01 * torch.randn(600, 12, 2, generator=g), torch.zeros(600, 12, 1)], -1)
    action = torch.where(torch.arange(600) % 2 == 0, 1.0, -1.0)
    x[:, :, 1] += torch.linspace(0, 1, 12) * action[:, None]
    x[:, :, 2] = action[:, None]
    group = Group("g", tmp_path, (0, 1), 2)
    group.keep(Batch(x, torch.ones_like(x, dtype=torch.bool)))
    assert all(0.2 < float((fork.x_MHD[:, -1, 1] > 0).float().mean()) < 0.8 for fork in group.forks)



class Copies:
    """A model whose samples repeat the known first observation, shifted by the context."""

    spec = TrajectorySpec(2, 0, 5)

    def sample(self, condition: Condition, number: int = 1, **_: Any) -> torch.Tensor:
        assert condition.context_BC is not None
        x_BHD = condition.values_BHD[:, :1] + condition.context_BC[:, None, :1] + torch.zeros(5, 1)
        return x_BHD[:, None].expand(-1, number, -1, -1)


def run_of(model: Any) -> Any:
    planning = PlannerConfig(goal_dims=(1,))
    return SimpleNamespace(model=model, device=torch.device("cpu"), planning=planning,
                           config=SimpleNamespace(planning=planning),
                           data=SimpleNamespace(goal_dims=(1,), env=None))


def windows_of_two_contexts() -> Batch:
    """Half of the windows stay where they start, and the others, of context 1, go one step up and right at once."""
    x = 0.01 * torch.randn(200, 5, 2, generator=torch.Generator().manual_seed(0))
    context = (torch.arange(200) % 2)[:, None].float()
    x[:, 1:] += context[..., None]
    return Batch(x, torch.ones_like(x, dtype=torch.bool), context)


def test_a_model_with_a_context_goes_the_ways_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample goes the way of the window whose start and context it has."""
    monkeypatch.setattr(groups, "MODES", 2)
    monkeypatch.setattr(comparison, "of_kind", lambda run, kind: run)
    group = Group("g", tmp_path, (0, 1))
    group.keep(windows_of_two_contexts())
    assert comparison.modes(run_of(Copies()), group, Options(1, 16)).total_variation == pytest.approx(0)
    start = group.conditions(run_of(Copies()), torch.tensor([3, 4]), (1,))
    assert start.context_BC is not None and start.context_BC.tolist() == [[1.0], [0.0]]
    assert start.mask_BHD[:, 0].all() and start.mask_BHD[:, -1].tolist() == [[False, True]] * 2
