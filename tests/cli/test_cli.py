"""The command as a user meets it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import small
import torch
from small import gentraj

from gentraj import cli
from gentraj.config import read_json
from gentraj.data import load_episodes, save_npz
from gentraj.runs import Run, RunFolder, load
from gentraj.runs.kinds.presets import PRESETS

COMMANDS = [["demo"], ["zoo"], ["train"], ["sample"], ["evaluate"], ["choose"], ["measure"], ["compare"], ["report"],
            ["data", "list"], ["data", "inspect"], ["data", "import"], ["data", "export"], ["data", "make"],
            ["hub", "push"], ["hub", "pull"]]
KEYS = ["env_id", "episodes", "seeds", "return_mean", "return_iqm", "return_ci95", "reward_mean", "success_rate",
        "first_hit_median", "time_at_goal_mean", "score_d4rl", "score_minari", "clipped_actions",
        "clamped_observations", "failures", "latency_ms_p50", "latency_ms_p99", "network_calls_per_decision",
        "returns", "successes", "controller", "random", "behaviour", "agent", "step", "steps", "sampling",
        "networks", "last_evaluations"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """Records the arguments of training and evaluation instead of running them."""
    from gentraj.cli import evaluate, train

    calls: list = []
    for place in cli.COMMANDS.values():
        resolve_name(f"gentraj.cli.{place}")  # imports them all: none may import what is patched here

    class Stop(RuntimeError):
        pass

    def note(*args, **options):
        calls.append((*args, *options.values()))
        raise Stop("as far as this")

    monkeypatch.setattr(train, "train_run", note)
    monkeypatch.setattr(evaluate, "evaluate", note)
    return calls


# -- help


def test_bare_and_help_name_every_command(capsys: pytest.CaptureFixture) -> None:
    assert (gentraj(), gentraj("--help"), gentraj("-h")) == (2, 0, 0)
    bare, *_ = capsys.readouterr().out.partition("\nusage")
    for command in {command.partition(" ")[0] for command in cli.COMMANDS}:
        assert f"  gentraj {command} " in bare
    for code in ("0 done", "1 failed", "2 bad input", "130 or 143"):
        assert code in bare


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_and_says_what_each_option_is(capsys: pytest.CaptureFixture, command: list[str]) -> None:
    assert gentraj(*command, "--help") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: gentraj {' '.join(command)} ") and not err
    assert f"gentraj {' '.join(command)}" in out.partition("Example")[2].splitlines()[0]


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert (gentraj("--version"), capsys.readouterr().out) == (0, f"{version('gentraj')}\n")


# -- train


@pytest.mark.parametrize("words", [
    "pointmaze-umaze --steps 5 --seed 3", "--steps 5 pointmaze-umaze --seed 3", "--seed=3 --steps=5 pointmaze-umaze",
    "--training.steps 5 --training.seed 3 pointmaze-umaze",
    "--run-dir pointmaze-large pointmaze-umaze --steps 5 --seed 3"])
def test_options_may_stand_before_the_preset(asked: list, words: str) -> None:
    gentraj("train", *words.split())
    (config, folder, *_), preset = asked[0], PRESETS["pointmaze-umaze"]
    assert config == replace(preset, training=replace(preset.training, steps=5, seed=3))
    assert folder == Path("pointmaze-large" if "--run-dir" in words else "runs/pointmaze-umaze")


@pytest.mark.parametrize("words", [["--resume", "RUN", "--steps", "9"], ["--steps", "9", "--resume=RUN"]])
def test_a_resumed_run_keeps_its_settings(small_run: Path, asked: list, words: list[str]) -> None:
    gentraj("train", *(word.replace("RUN", str(small_run)) for word in words))
    (config, folder, resume, *_), before = asked[0], RunFolder(small_run).read().run
    assert config == replace(before, training=replace(before.training, steps=9))
    assert (folder, resume) == (small_run, True)


def test_training_says_what_is_next_and_nothing_else_on_stdout(umaze, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture) -> None:
    small.train(tmp_path / "a run")
    out, err = capsys.readouterr()
    assert shlex.split(out) == ["next:", "gentraj", "evaluate", f"{tmp_path}/a run"]  # as a shell reads it
    assert err.endswith(f"trained 6 steps; the run is in {tmp_path}/a run\n")


@pytest.mark.parametrize(("python", "options"), [
    ("give env=, or leave training.eval_every= out", "give --env-id, or leave --eval-every out"),
    ("train with joint=True and stride=1; or", "train with --joint and --stride 1; or"),
    ("by conditioning.goal_dims=, or conditioning.goal=0", "by --conditioning.goal-dims, or --conditioning.goal 0"),
    ("give environment_factory('A-v0', max_episode_steps=N), or so", "give --env-kwargs max_episode_steps=N, or so"),
    ("Fault(goal=3): gravity=2 is not make(run=...) of runs/family=gan", None)])
def test_arguments_of_python_in_messages_are_options_on_the_command_line(python: str, options: str | None) -> None:
    assert cli.in_options(python) == (options or python)


def test_the_same_fault_is_told_in_python_s_words_and_in_options(small_run: Path, tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"out= is .*, which is a folder"):
        load(small_run).evaluate(out=tmp_path)
    assert gentraj("evaluate", small_run, "--out", tmp_path) == 2
    assert f"error: --out is {tmp_path}, which is a folder" in capsys.readouterr().err


# -- sample


def test_without_an_arrival_the_likeliest_is_taken(small_run: Path, tmp_path: Path) -> None:
    words = "--start", 1, 1, 0.5, -0.25, "--goal", -1, -1, "--out", tmp_path / "new" / "a.npz"
    assert gentraj("sample", small_run, *words) == 0
    with np.load(tmp_path / "new" / "a.npz", allow_pickle=False) as file:
        obs = file["obs"]
    assert (obs[:, 0] == (1, 1, 0.5, -0.25)).all()
    [row] = np.flatnonzero((obs[..., :2] == (-1, -1)).all((0, 2)))
    start = torch.tensor([[1.0, 1, 0.5, -0.25]])
    assert row == load(small_run).likeliest_arrival(start, torch.tensor([[-1.0, -1]])).item()
    assert np.ptp(obs[:, 5], axis=0).min() > 0  # plans and not one


# -- evaluate


@pytest.mark.parametrize("words", [["--episodes", "5", "RUN"], ["--acting.replan", "3", "RUN", "--episodes", "5"]])
def test_options_may_stand_before_the_run(small_run: Path, asked: list, words: list[str]) -> None:
    gentraj("evaluate", *(word.replace("RUN", str(small_run)) for word in words))
    (run, _, acting, *others), own = asked[0], RunFolder(small_run).read().run.planner
    assert run.folder == small_run and 5 in others and own.goal_dims == (0, 1)
    assert acting.settings == (replace(own, replan=3) if "--acting.replan" in words else own)


def test_scores_are_written_to_the_given_file_with_the_documented_keys(small_run: Path, tmp_path: Path,
                                                                       capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new" / "scores.json"
    assert gentraj("evaluate", small_run, "--episodes", 2, "--out", out, *small.SHORT) == 0
    scores = json.loads(out.read_text())
    assert list(scores) == KEYS and not (small_run / "evaluation.json").exists()
    assert scores["env_id"] == "PointMaze_UMaze-v3" and scores["episodes"] == 2
    for agent in (scores, scores["controller"], scores["random"]):
        assert {"return_mean", "success_rate"} <= agent.keys()
    assert scores["agent"] == "planner, diffusion"
    assert scores["behaviour"] is None  # the data are an endless run, which is no episode
    table, err = capsys.readouterr()
    assert "no return of the data" not in err  # the controller that recorded them is in the table
    assert table.splitlines()[1].split() == ["planner,", "diffusion", "controller", "random"]


def test_a_rollout_is_a_dataset(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = small_run, "--episodes", 2, "--no-baselines", "--out", tmp_path / "s.json", *small.SHORT
    assert gentraj("evaluate", *words, "--save-rollout", "tests/rollout-v0") == 0
    capsys.readouterr()
    assert gentraj("evaluate", *words, "--save-rollout", "tests/rollout-v0") == 2
    assert "episodes/s" not in capsys.readouterr().err  # it says so before it plays them
    episodes = load_episodes("tests/rollout-v0")
    assert (len(episodes), episodes.num_steps, episodes.goal_dims) == (2, 60, (0, 1))


# -- data, report and demo


@pytest.mark.filterwarnings("always:.*its layout has no place for:UserWarning")
def test_datasets_are_made_listed_imported_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert gentraj("data", "list") == 0
    assert capsys.readouterr().out.startswith("no datasets yet; `gentraj data make")
    assert gentraj("data", "make", "--steps", 50, "pointmaze-umaze", "--seed", 4) == 0
    made = load_episodes("gentraj/pointmaze/umaze-v0")
    assert made.num_steps == 50
    assert gentraj("data", "import", "--id", "mine/umaze-v1", save_npz(made, tmp_path / "own.npz")) == 0
    assert load_episodes("mine/umaze-v1") == made
    for name in ("umaze.npz", "new/umaze.hdf5"):
        assert gentraj("data", "export", "mine/umaze-v1", tmp_path / name) == 0
        assert load_episodes(tmp_path / name) == made
    assert gentraj("data", "export", f"{tmp_path}/umaze.npz+mine/umaze-v1", tmp_path / "two.hdf5") == 0
    assert load_episodes(tmp_path / "two.hdf5").num_steps == 100
    assert gentraj("data", "export", "mine/umaze-v1", tmp_path / "umaze.csv") == 2
    assert "umaze.csv: give a name that ends in .hdf5, .npz" in capsys.readouterr().err
    capsys.readouterr()
    assert gentraj("data", "list") == 0
    here, _, tasks = capsys.readouterr().out.partition("\n\n")
    assert [line.split()[0] for line in here.splitlines()] == ["gentraj/pointmaze/umaze-v0", "mine/umaze-v1"]
    assert "1 episodes          50 steps" in here
    assert "pointmaze-umaze: PointMaze_UMaze-v3" in tasks


def test_the_demo_goes_all_the_way_and_then_on(umaze, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture) -> None:
    from gentraj.cli import demo

    monkeypatch.setattr(demo, "DEMO", small.config())
    monkeypatch.setattr(Run, "report", lambda run: f"the page of step {run.step}")
    for steps in (3, 5):
        assert gentraj("demo", "--run-dir", tmp_path, "--steps", steps, "--episodes", 1) == 0
        assert list(read_json(tmp_path / "evaluation.json")) == KEYS
        assert f"report: the page of step {steps}" in capsys.readouterr().out
