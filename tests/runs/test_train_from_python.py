"""`gentraj.train` takes what people type, and says in one line what it cannot take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_policy_runs import tiny

import gentraj
from gentraj.config import to_json
from gentraj.data import DataError, Episodes, save_npz
from gentraj.runs import PolicyRunConfig, Run

SETTINGS = {"policy.batch_size": 8, "training.warmup": 2}


def brief(*given: Any, **options: Any) -> Run:
    """A training of two steps."""
    return gentraj.train(*given, steps=2, settings=SETTINGS, progress=False, **options)


def weights(run: Run) -> list[torch.Tensor]:
    return [*run.main.parameters()]


def test_arrays_that_were_changed_after_their_check_are_named_before_a_training(hopper: Episodes,
                                                                                tmp_path: Path) -> None:
    data = replace(hopper, obs=hopper.obs.copy(), validate=True)
    data.obs[3, 1] = torch.nan
    with pytest.raises(DataError, match=r"episode 0, step 3: obs\[1\] is nan"):
        brief("bc-gaussian", data, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_preset_with_settings_by_their_keys_is_the_run_of_the_command(hopper: Episodes, tmp_path: Path) -> None:
    file = save_npz(hopper, tmp_path / "hopper.npz")
    made = brief("bc-gaussian", file, seed=3, folder=tmp_path / "made")
    words = "--dataset", str(file), "--steps", "2", "--seed", "3", "--policy.batch-size", "8", "--training.warmup", "2"
    gentraj.cli.main(["train", "bc-gaussian", *words, "--run-dir", str(tmp_path / "by-command")])
    other = gentraj.load(tmp_path / "by-command")
    assert to_json(made.config) == to_json(other.config)
    assert all(map(torch.equal, weights(made), weights(other)))


def test_data_are_episodes_a_path_or_several(hopper: Episodes, tmp_path: Path) -> None:
    """Whichever way they are given, the run learns from the same steps."""
    file = save_npz(hopper, tmp_path / "hopper.npz")
    whole = [brief("bc-gaussian", data, folder=tmp_path / str(number))
             for number, data in enumerate((hopper, file, str(file), [hopper]))]
    assert len({run.dataset_hash for run in whole}) == 1
    twice = [brief("bc-gaussian", data, folder=tmp_path / f"twice-{number}")
             for number, data in enumerate(([file, file], [hopper, file], (hopper, hopper)))]
    assert len({run.dataset_hash for run in twice}) == 1 and twice[0].dataset_hash != whole[0].dataset_hash


def test_an_environment_of_an_own_module_is_imported_by_its_name(hopper: Episodes, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRAJ_IMPORT", "")
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name}".replace("-", "_")
    lines = "import gymnasium", f"gymnasium.register('{name}/Hop-v0', 'gymnasium.envs.mujoco.hopper_v5:HopperEnv', " \
        "max_episode_steps=5)"
    Path(f"{name}.py").write_text("\n".join(lines))
    run = brief("bc-gaussian", hopper, env=f"{name}:{name}/Hop-v0", device=torch.device("cpu"), folder="run")
    assert f"{name}/Hop-v0" in str(run.data.env) and run.config.env_id == f"{name}/Hop-v0"


@pytest.mark.parametrize(("change", "named"), [
    ({"what": "IQL"}, "iql"),
    ({"what": 3}, "int"),
    ({"data": {"obs": [0.0]}}, "dict"),
    ({"data": None}, "data="),
    ({"settings": {"policy.alfa": 1.0}}, "policy.alfa"),
    ({"settings": {"training.steps": "many"}}, "training.steps"),
    ({"settings": ["policy.chunk=4"]}, "settings"),
    ({"device": "qpu"}, "qpu"),
    ({"env": object()}, "environment"),
    ({"env": "no_such_module:Plant-v0"}, "no_such_module"),
    ({"steps": 0}, "training.steps")])
def test_what_it_cannot_take_is_said_in_one_line(hopper: Episodes, tmp_path: Path, change: dict[str, Any],
                                                 named: str) -> None:
    given = {"what": tiny("bc-gaussian", ""), "data": hopper, "folder": tmp_path / "run"} | change
    with pytest.raises((TypeError, ValueError, ImportError)) as raised:
        gentraj.train(**given)
    assert named in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_suggests_one_that_there_is() -> None:
    with pytest.raises(KeyError, match="did you mean 'iql'"):
        gentraj.PRESETS["IQL"]
    assert isinstance(gentraj.PRESETS["iql"], PolicyRunConfig)
