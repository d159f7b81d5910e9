"""`--import MODULE`, given by the user and never by data, registers environments in every process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from small import gentraj

from gentraj.cli.environments import environment
from gentraj.cli.evaluate import Evaluate
from gentraj.cli.options import read
from gentraj.data import Episodes, load_episodes, save_npz
from gentraj.envs.making import environment_factory, load_gymnasium
from gentraj.experiments import pools
from gentraj.process import IMPORTS

MODULE = '''
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Own(PendulumEnv):
    pass

gymnasium.register("{id}", "{name}:Own", max_episode_steps=5)
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, which no other test knows."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(id=f"{name}-v0", name=name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setenv(IMPORTS, "")
    return name


@pytest.mark.parametrize("words", [
    "evaluate --import {0} RUN --env-id {0}-v0", "evaluate RUN --env-id={0}:{0}-v0",
    "evaluate RUN --env-id {0}-v0 --import={0}.py"])
def test_a_module_of_the_user_registers_its_environments(own: str, small_run: Path, capsys: pytest.CaptureFixture,
                                                         words: str) -> None:
    arguments = [str(small_run) if word == "RUN" else word.format(own) for word in words.split()]
    assert gentraj(*arguments) == 2
    assert f"trained on actions of width 2, but the action space of {own}-v0 is" in capsys.readouterr().err
    with environment(read(Evaluate, arguments[1:])):
        assert os.environ[IMPORTS] == own  # for the processes that the command starts


def registered(env_id: str, path: Path) -> None:
    path.write_text(str(environment_factory(env_id).max_episode_steps))


def test_a_module_of_the_user_is_imported_in_every_process(own: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMPORTS, own)
    with Forked(pools._work, registered, (f"{own}-v0", tmp_path / "steps"), 0.1) as process:  # as it begins all of them
        assert process.wait() == 0, process.stderr.read()
    assert (tmp_path / "steps").read_text() == "5"


@pytest.mark.parametrize(("words", "message"), [
    (["data", "list", "--import", "no_such_module"], "module no_such_module cannot be imported: "),
    (["data", "list", "--import", "broken"], "module broken cannot be imported: ZeroDivisionError")])
def test_a_module_that_cannot_be_imported_is_one_line(own: str, tmp_path: Path, capsys: pytest.CaptureFixture,
                                                      words: list[str], message: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    assert gentraj(*words) == 2
    line, = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_training_says_what_its_evaluation_will_need(own: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Where the data name no environment, as a robot's logs do, a report is next."""
    rng, ends = np.random.default_rng(0), np.arange(40) % 5 == 4
    arrays = rng.uniform(-1, 1, (48, 3)), rng.uniform(-1, 1, (40, 1)), np.ones(40), np.zeros(40, bool), ends
    words = "--steps", 1, "--policy.batch-size", 8, "--import", own
    for env, said in ((f'{{"id": "{own}-v0"}}', f"next: gentraj evaluate run0 --import {own}"),
                      (None, "next: gentraj report run1; with a simulator, gentraj evaluate run1 "
                             f"--import {own} --env-id ID")):
        data = save_npz(Episodes(*arrays, np.full(8, 5), env=env), tmp_path / "own.npz")
        assert gentraj("train", "bc-gaussian", "--dataset", data, "--run-dir", f"run{int(env is None)}", *words) == 0
        assert capsys.readouterr().out.splitlines()[-1] == said


@pytest.mark.filterwarnings("default")
def test_a_training_without_its_module_names_the_option_that_imports_it(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The environment of the data is unknown here, and the message is that of Python, whose argument is env=."""
    rng, ends = np.random.default_rng(0), np.arange(40) % 5 == 4
    arrays = rng.uniform(-1, 1, (48, 3)), rng.uniform(-1, 1, (40, 1)), np.ones(40), np.zeros(40, bool), ends
    data = save_npz(Episodes(*arrays, np.full(8, 5), env='{"id": "Plant-v0"}'), tmp_path / "own.npz")
    assert gentraj("train", "bc-gaussian", "--dataset", data, "--dry-run") == 0
    line, = (line for line in capsys.readouterr().err.splitlines() if "Plant-v0" in line)
    assert "--import MODULE or --env-id MODULE:ID" in line and "env=" not in line


def test_what_one_command_imports_the_next_one_does_not(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second command in the same process starts processes of its own, which know nothing of the first one's options.
    """
    monkeypatch.delenv(IMPORTS, raising=False)
    assert gentraj("data", "list", "--import", own) == 0
    assert IMPORTS not in os.environ


def test_data_name_no_module(own: str) -> None:
    for env in (f"{own}:{own}-v0", f'{{"id": "{own}:{own}-v0"}}', f'{{"id": "x-v0", "entry_point": "{own}:Own"}}'):
        with pytest.raises(ValueError, match="unknown environment"):
            environment_factory(env)
    assert own not in sys.modules and f"{own}-v0" not in load_gymnasium().registry


@pytest.fixture
def ant_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ant as D4RL's and others' files have it, without contact forces: 27 numbers; the file names no environment."""
    monkeypatch.chdir(tmp_path)
    rows = np.linspace(-1, 1, 40, dtype=np.float32)
    np.savez(tmp_path / "ant.npz", observations=np.tile(rows[:, None], 27), actions=np.tile(rows[:, None], 8),
             rewards=rows, terminals=rows > 2, timeouts=np.arange(40) % 20 == 19,
             next_observations=np.tile(np.append(rows[1:], 1)[:, None], 27))
    return tmp_path / "ant.npz"


KWARGS = "--env-id", "Ant-v5", "--env-kwargs", "include_cfrc_ext_in_observation=False", "contact_cost_weight=0.25"


def test_an_imported_dataset_keeps_the_arguments_of_its_environment(ant_file: Path) -> None:
    assert gentraj("data", "import", ant_file, "--id", "tests/ant-v0", "--overwrite", *KWARGS) == 0
    spec = json.loads(load_episodes("tests/ant-v0").env or "")
    assert spec["id"] == "Ant-v5"
    assert spec["kwargs"] == {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.25}
    assert environment_factory(json.dumps(spec))().observation_space.shape == (27,)


def test_a_run_is_trained_and_evaluated_with_the_arguments_of_its_environment(ant_file: Path, tmp_path: Path,
                                                                              capsys: pytest.CaptureFixture) -> None:
    words = "--steps", 1, "--training.warmup", 1, "--policy.batch-size", 4, "--run-dir", "run"
    assert gentraj("train", "bc-gaussian", "--dataset", ant_file, *words, "--env-id", "Ant-v5") == 2
    assert "observations of width 27 and actions of 8, but Ant-v5 has 105 and 8" in capsys.readouterr().err
    assert gentraj("train", "bc-gaussian", "--dataset", ant_file, *words, *KWARGS) == 0
    short = "--episodes", 1, "--no-baselines"
    assert gentraj("evaluate", "run", *short, "--env-id", "Ant-v5", "--env-kwargs", "max_episode_steps=3",
                   "include_cfrc_ext_in_observation=False") == 0
    assert "Ant-v5, 1 episode," in capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [
    ("--env-kwargs a=1", "give --env-id too"),
    ("--env-id Ant-v5 --env-kwargs =3", "--env-kwargs has '=3'"),
    ("--env-id Ant-v5 --env-kwargs colour=red", "--env-kwargs colour=red"),
    ("--env-id Ant-v5 --env-kwargs=xml_file=./ant.xml", "xml_file"),
    ("--env-id pointmaze-umaze --env-kwargs continuing_task=False", "continuing_task=True")])
def test_arguments_that_there_are_not_are_one_line(small_run: Path, capsys: pytest.CaptureFixture, words: str,
                                                   message: str) -> None:
    assert gentraj("evaluate", small_run, *words.split()) == 2
    line, = capsys.readouterr().err.splitlines()
    assert message in line
