"""Every option that `gentraj train PRESET --help` shows has an effect; what has none is not shown, and is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache, reduce
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from small import DATASET, edit, gentraj

from gentraj.config import differences, unused, with_settings, within
from gentraj.data import Episodes, load_episodes
from gentraj.runs import checks, folder
from gentraj.runs.folder import ready
from gentraj.runs.kinds import AnyRunConfig
from gentraj.runs.presets import PLANNERS, PRESETS

FOR_RETURNS = [name for name, (_, config) in PLANNERS.items() if not config.conditioning.goal]
OWN = ("dataset", "env_id")  # are given below
# What some presets refuse alone, as it needs another setting too, which the message names.
TOGETHER = ("joint", "valued", "refine", "conditioning.goal_dims", "planner.select", "planner.guidance",
            "planner.actions",
            "planner.lookahead", "planner.target_return", "planner.rest_dims", "policy.critic.members")


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, type) of every setting that an option sets."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, key = getattr(config, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from leaves(value, f"{key}.")
        else:
            yield key, hints[field.name]


def others(kind: Any, value: Any) -> Iterator[Any]:
    """Other values of that type."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        yield from (one for one in args if one != value)
    elif origin is tuple:
        yield from ((*value[:-1], one) for one in others(args[0], value[-1] if value else 1))
        yield (next(others(args[0], 1)),)
    elif origin is dict:
        yield {"r1": 1.0}
    elif kind is bool:
        yield not value
    elif kind is int:
        yield from (value + 1, value + 2, 2 * value, value - 1, value // 2)
    elif kind is float:
        yield from (value / 2 + 0.2, value / 2, value + 1, 0.0, 0.5, 0.6)
    elif args:  # a union
        for one in args:
            if one is NoneType:
                yield from [None] if value is not None else []
            elif not is_dataclass(one):
                fits = type(value) is one or (get_origin(one) is tuple and isinstance(value, tuple))
                yield from others(one, value if fits else {tuple: (), dict: {}}.get(get_origin(one), 16))


@cache
def small(name: str, hopper_file: Path) -> AnyRunConfig:
    """The preset with narrow and shallow networks, of data that it is for."""
    config = PRESETS[name]
    goals = name in PLANNERS and name not in FOR_RETURNS
    tiny = {"width": 8, "depth": 1} | ({"multipliers": [1, 2]} if name in PLANNERS else {})
    narrow = {key: tiny[last] for key, _ in leaves(config) if (last := key.rpartition(".")[2]) in tiny}
    config = with_settings(config, narrow, name)
    return replace(config, dataset=DATASET if goals else str(hopper_file))


def put(config: Any, keys: list[str], value: Any) -> Any:
    """Does what `with_settings` does, but faster."""
    first, *rest = keys
    return replace(config, **{first: put(getattr(config, first), rest, value) if rest else value})


def changed(config: AnyRunConfig, key: str, kind: Any, built: bool) -> AnyRunConfig | str:
    """Sets one setting to another valid value, which a dry run accepts if `built`; or returns why it is refused."""
    before, problem = reduce(getattr, key.split("."), config), "there is no other value"
    for value in (one for one in others(kind, before) if one != before):
        try:
            made = put(config, key.split("."), value)
            made.refuse(key)
            if built:
                ready(made, record=False)
        except ValueError as error:
            problem = str(error)
        else:
            return made
    return problem


def test_every_option_that_is_shown_has_an_effect(umaze: Episodes, hopper_file: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every preset each is set to another valid value: the settings differ, and a dry run accepts them (once for all
    that have a setting in common). What needs another setting too is refused by name."""
    monkeypatch.setattr("gentraj.runs.folder.load_episodes", cache(load_episodes))
    made_of, made = checks._recorded_environment, dict[str, Any]()  # no setting below changes it
    monkeypatch.setattr(checks, "_recorded_environment",
                        lambda data, name: made.get(name) or made.setdefault(name, made_of(data, name)))
    refused, tried = dict[tuple[str, str], str](), set()
    for name in PRESETS:
        config = small(name, hopper_file)
        hidden = unused(config)
        for key, kind in leaves(config):
            if key in OWN or within(key, hidden) or (name == "world-ensemble" and key == "world.model"):
                continue
            owner = reduce(getattr, key.split(".")[:-1], config)
            where = type(owner), key.rpartition(".")[2], name in FOR_RETURNS and owner is config
            other = changed(config, key, kind, where not in tried)
            tried.add(where)
            if isinstance(other, str):
                refused[name, key] = other
            else:
                assert other != config, (name, key)
    assert len(tried) > 120 and {key for _, key in refused} <= set(TOGETHER), refused


@pytest.mark.parametrize(("preset", "words", "there", "missing"), [
    ("swift", (), "--policy.context-dropout", ("--policy.critic.tau", "--context.kinds", "--policy.model.batch-size")),
    ("iql", (), "--policy.critic.tau", ("--policy.execute", "--policy.model.best-of",
                                        "--policy.model.conditioning.start")),
    ("bc-diffusion", (), "--policy.observations", ("--policy.rewards", "--policy.execute")),
    ("veteran", (), "--critic.width", ("--arrival.width", "--planner.hold-radius", "--critic.heads",
                                       "--inverse.conditioning")),
    ("veteran+", (), "--critic.sees", ("--inverse.width", "--planner.lookahead")),
    ("veteran+", ("--dynamics",), "--inverse.width", ("--arrival.width",)),
    ("pointmaze", (), "--arrival.width", ("--critic.width", "--planner.scale")),
    ("world-ensemble", (), "--world.width", ("--world.model-batch", "--control.prior-fraction", "--control.elites"))])
def test_help_shows_what_has_an_effect_and_nothing_else(preset: str, words: tuple[str, ...], there: str,
                                                        missing: tuple[str, ...],
                                                        capsys: pytest.CaptureFixture) -> None:
    """Beside the other options that are given; and the texts, which are docstrings, say nothing of exceptions."""
    assert gentraj("train", preset, *words, "--help") == 0
    printed = capsys.readouterr().out
    assert "Raises" not in printed
    assert f"{there} " in printed and not [option for option in missing if f"{option} " in printed]


@pytest.mark.parametrize("preset", ["veteran+", "iql", "world-model"])
def test_the_settings_that_were_printed_are_taken(preset: str, hopper_file: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture) -> None:
    """Options override them."""
    words = "--dataset", hopper_file, "--steps", "1e3", "--family", "flow"
    assert gentraj("train", preset, *words, "--print-config") == 0
    (tmp_path / "mine.json").write_text(printed := capsys.readouterr().out)
    assert json.loads(printed)["training"]["steps"] == 1000
    assert gentraj("train", "--config", tmp_path / "mine.json", "--print-config") == 0
    assert capsys.readouterr().out == printed
    assert gentraj("train", "--config", tmp_path / "mine.json", "--seed", 3, "--print-config") == 0
    again = json.loads(capsys.readouterr().out)
    assert list(differences(json.loads(printed), again)) == [("training.seed", 0, 3)]
    assert gentraj("train", preset, "--config", tmp_path / "mine.json") == 2
    assert f"the preset {preset} and --config {tmp_path}/mine.json were given; each names" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(hopper_file: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    assert gentraj("train", "veteran", "--dataset", hopper_file, "--steps", 7, "--dry-run") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[2:-1]] == [
        ["model", "Diffusion"], ["inverse", "InverseDynamics"], ["critic", "PlanCritic"]]
    assert "12 episodes of" in printed[0] and printed[-1].startswith("7 steps of each component, seed 0;")
    assert gentraj("train", "veteran", "--dataset", hopper_file, "--planner.replan", 40, "--planner.shifted",
                   "--dry-run") == 2
    assert "shifted=True needs something left of a plan" in capsys.readouterr().err
    assert gentraj("train", "pointmaze-large", "--dry-run") == 2  # whose data would be recorded first
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_run_to_resume_decides_too_and_reads_data_that_were_moved_with_it(
        hopper_file: Path, hopper_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, decisions = Path(shutil.copytree(hopper_run, tmp_path / "run")), []
    edit(run, lambda config: config["run"].update(dataset=f"/gone/{hopper_file.name}"))
    shutil.copy(hopper_file, tmp_path)
    monkeypatch.setattr(folder, "dry_run", lambda *settings: decisions.append(settings))
    assert gentraj("train", "--resume", run, "--dry-run") == 0
    assert len(decisions) == 1


@pytest.mark.parametrize(("words", "message"), [
    ("train iql --steps -5", "--steps is -5; a whole number of at least 1 is expected"),
    ("train iql --training.steps -5", "--training.steps is -5; a whole number of at least 1 is expected"),
    ("train iql --policy.critic.discount 2", "--policy.critic.discount is 2.0; a number from 0 to 0.99999"),
    ("train td3bc --policy.model.spread learned", "--policy.model.spread is 'learned'; a number is expected"),
    ("train bc-gan --policy.model.discriminator-learning.learning-rate -1",
     "--policy.model.discriminator-learning.learning-rate is -1.0; a number"),
    ("train iql --seed 1 --training.seed 2", "--seed is 1, and --training.seed is 2; they are the same setting"),
    ("train iql --seed 1 --training.seed 0", "--seed is 1, and --training.seed is 0; they are the same setting"),
    ("distill x --method decision --run-dir y --steps 9 --training.steps 8",
     "--steps is 9, and --training.steps is 8; they are the same setting"),
    ("train pointmaze --planner.select value", "--planner.select is 'value', and no critic of plans would be trained"),
    ("train veteran --arrival.width 8 --dataset x.npz", "--arrival.width changes nothing here: these plans are for"),
    ("finetune x --run-dir y --steps -5", "--steps is -5; a whole number from 1"),
    ("pareto x --episodes -1", "--episodes is -1; a whole number from 0")])
def test_messages_call_settings_by_their_options(words: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert gentraj(*words.split()) == 2
    assert capsys.readouterr().err.startswith(f"gentraj: error: {message}")


@pytest.mark.parametrize(("word", "number"), [("1e4", 10_000), ("2.5e3", 2_500), ("12", 12)])
def test_whole_numbers_may_be_written_with_an_exponent(word: str, number: int, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", "iql", "--steps", word, "--print-config") == 0
    assert json.loads(capsys.readouterr().out)["training"]["steps"] == number


def test_half_a_step_is_none(capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", "iql", "--steps", "1.5", "--print-config") == 2
    assert "1.5 is no whole number" in capsys.readouterr().err


def test_a_run_of_an_older_format_is_refused_by_name(hopper_run: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture) -> None:
    shutil.copy(hopper_run / "config.json", tmp_path)
    edit(tmp_path, lambda held: held.pop("format_version"))
    assert gentraj("evaluate", tmp_path) == 1
    assert f"{tmp_path}: has format 1 and this gentraj reads format 3; train it again" in capsys.readouterr().err
