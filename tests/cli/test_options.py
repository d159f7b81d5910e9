"""Settings are options of the command line, in the help, in what is printed and in messages."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from pkgutil import resolve_name

import pytest
from small import edit, gentraj

from gentraj.cli import COMMANDS
from gentraj.cli.options import options_of, read, values_of
from gentraj.cli.using import Export
from gentraj.config import differences, from_json
from gentraj.diffusion.samplers import SAMPLERS, ddim


@pytest.mark.parametrize(("preset", "words", "there", "missing"), [
    ("iql", ("--network", "dit"), "--policy.model.network.heads", "--policy.model.network.initial"),
    ("veteran", (), "--critic.width", "--policy."),
    ("goals", (), "--roadmap", "--roadmap.ahead"),
    ("goals", ("--critic.width", "8", "--context.goals"), "--context.goals.actor-steps", "--context.goals"),
    ("world-ensemble", ("--world.model", "gan"), "--world.model.network.width", "--world.model"),
    ("world-ensemble", (), "--world.width", "--planner.replan")])
def test_help_lists_the_settings_of_a_preset(preset: str, words: tuple[str, ...], there: str, missing: str,
                                             capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", preset, *words, "--help") == 0
    printed = capsys.readouterr().out
    assert "--print-config" in printed and f"{there} " in printed and f"{missing} " not in printed


def test_help_does_not_hide_a_misspelt_setting(hopper_run: Path, capsys: pytest.CaptureFixture) -> None:
    for words in (("train", "far-gcbc", "--rodmap.ahead", 3), ("evaluate", hopper_run, "--actng.temperature", 0),
                  ("distill", hopper_run, "--method", "decision", "--polcy.width", 8)):
        assert gentraj(*words, "--help") == 2
        printed = capsys.readouterr()
        assert not printed.out and f"{words[-2]} is unknown" in printed.err


def test_a_word_may_become_a_number_where_a_setting_takes_both(capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", "iql", "--policy.model.spread", 0.5, "--print-config") == 0
    assert json.loads(capsys.readouterr().out)["policy"]["model"]["spread"] == 0.5
    assert gentraj("train", "iql", "--policy.model.spread", "wide", "--print-config") == 2
    assert capsys.readouterr().err.startswith("gentraj: error: --policy.model.spread is 'wide'")


def test_a_name_that_a_module_of_the_user_adds_to_a_table_is_a_choice(monkeypatch: pytest.MonkeyPatch,
                                                                      capsys: pytest.CaptureFixture) -> None:
    words = "train", "diffusion-policy", "--policy.model.sampler", "mine"
    assert gentraj(*words, "--print-config") == 2
    assert "--policy.model.sampler is 'mine'; 'ddpm', " in capsys.readouterr().err
    monkeypatch.setitem(SAMPLERS, "mine", ddim)
    assert gentraj(*words, "--print-config") == 0
    assert json.loads(capsys.readouterr().out)["policy"]["model"]["sampler"] == "mine"
    for help_of in (("train", "diffusion-policy"), ("evaluate",)):
        assert gentraj(*help_of, "--help") == 0
        assert ",mine}" in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["veteran+", "iql", "world-model"])
def test_the_settings_that_were_printed_are_taken(preset: str, hopper_file: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture) -> None:
    """Options override them."""
    words = "--dataset", hopper_file, "--steps", "1e3", "--model", "flow"
    assert gentraj("train", preset, *words, "--print-config") == 0
    (tmp_path / "mine.json").write_text(printed := capsys.readouterr().out)
    assert json.loads(printed)["training"]["steps"] == 1000 and len(printed.splitlines()) < 60  # as written by hand
    assert gentraj("train", "--config", tmp_path / "mine.json", "--print-config") == 0
    assert capsys.readouterr().out == printed
    assert gentraj("train", "--config", tmp_path / "mine.json", "--seed", 3, "--print-config") == 0
    again = json.loads(capsys.readouterr().out)
    assert list(differences(json.loads(printed), again)) == [("training.seed", None, 3)]
    assert gentraj("train", preset, "--config", tmp_path / "mine.json") == 2
    assert "a preset and --config was given, and one of" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(hopper_file: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    assert gentraj("train", "veteran", "--dataset", hopper_file, "--steps", 7, "--dry-run") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[1:-1]] == [
        ["model", "Diffusion"], ["inverse", "InverseDynamics"], ["critic", "PlanCritic"]]
    assert "12 episodes of" in printed[0] and printed[-1].startswith("7 steps of each component on cpu, seed 0;")
    assert gentraj("train", "veteran", "--dataset", hopper_file, "--planner.candidates", 4, "--planner.select", "trust",
                   "--planner.arrival", "fixed", "--dry-run") == 2
    assert "candidates=4 needs something to choose by" in capsys.readouterr().err
    assert gentraj("train", "pointmaze-large", "--dry-run") == 2  # whose data would be recorded first
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_run_to_resume_decides_too_and_reads_data_that_were_moved_with_it(
        hopper_file: Path, hopper_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = Path(shutil.copytree(hopper_run, tmp_path / "run"))
    edit(run, lambda config: config["run"].update(dataset=f"/gone/{hopper_file.name}"))
    shutil.copy(hopper_file, tmp_path)
    assert gentraj("train", "--resume", run, "--dry-run") == 0
    assert "one decision was taken" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [
    ("train iql --steps -5", "--training.steps is -5"),
    ("train iql --policy.expectile 1.8", "--policy.expectile is 1.8; at least"),
    ("train iql --polcy.expectile 0.7", "--polcy.expectile is unknown; did you mean '--policy.expectile'"),
    ("train diffuser --candidates 2", "--candidates is unknown; did you mean '--planner.candidates'"),
    ("choose run --world-episode 3", "--world-episode is unknown; did you mean '--world-episodes'"),
    ("sample RUN", "missing: --out (The .npz file to write)"),
    ("train pointmaze --planner.select value", "planner.select is 'value', and no critic of plans"),
    ("finetune x --run-dir y --minutes -5", "--minutes is -5")])
def test_messages_call_settings_by_their_options(words: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert gentraj(*words.split()) == 2
    assert capsys.readouterr().err.startswith(f"gentraj: error: {message}")


@pytest.mark.parametrize("command", [name for name, where in COMMANDS.items() if any(
    option.is_required for option in options_of(resolve_name(f"gentraj.cli.{where}")).values())])
def test_what_is_missing_is_said_with_what_it_is_for(command: str, capsys: pytest.CaptureFixture) -> None:
    assert gentraj(*command.split()) == 2
    line, = capsys.readouterr().err.splitlines()
    assert "missing: " in line and "()" not in line


def test_the_limits_of_an_entry_may_be_infinite() -> None:
    given = read(Export, ["run", "--out", "h.onnx", "--low", "-inf", "-1", "--high", "inf", "1e3"])
    command = from_json(Export, values_of(Export, given), "")
    assert (command.low, command.high) == ((-math.inf, -1), (math.inf, 1000))


@pytest.mark.parametrize(("word", "number"), [("1e5", 100_000), ("2.5e3", 2_500), ("12", 12)])
def test_whole_numbers_may_be_written_with_an_exponent(word: str, number: int, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", "iql", "--steps", word, "--print-config") == 0
    assert json.loads(capsys.readouterr().out)["training"]["steps"] == number


def test_options_that_miss_their_group_are_suggested(hopper_run: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("evaluate", hopper_run, "--temperatur", 0) == 2
    assert "did you mean '--acting.temperature'" in capsys.readouterr().err


def test_a_family_of_commands_lists_what_each_is_for(capsys: pytest.CaptureFixture) -> None:
    assert gentraj("data", "--help") == 0
    assert "Record a dataset of a task" in capsys.readouterr().out


def test_a_second_dataset_does_not_take_the_place_of_the_first(capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", "fql", "--dataset", "a.npz", "--dataset=b.npz", "--print-config") == 2
    assert "a.npz+b.npz" in capsys.readouterr().err


def test_an_option_of_one_number_may_be_given_again_and_one_of_several_adds_them_up(
        capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", "fql", "--steps", 3, "--training.steps", 5, "--print-config") == 0
    assert json.loads(capsys.readouterr().out)["training"]["steps"] == 5
    assert read(Export, ["run", "--out", "a.onnx", "--low", "-1", "--low", "-2"])["low"] == ["-1", "-2"]
