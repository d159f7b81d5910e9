"""A world model's run: a folder is all it needs, the same bits after a kill, judged by data it has not seen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import same_when_killed
from test_world_model import FLOW, NETWORK, TINY, assert_same

from gentraj import runs
from gentraj.data import Episodes, concatenate, stitch
from gentraj.families import ModelConfig
from gentraj.ranges import FarFromData
from gentraj.runs.kinds.world_run import WorldModelRun, WorldModelRunConfig
from gentraj.training import TrainingConfig
from gentraj.trajectory import SamplingOptions
from gentraj.worlds.model import Imagined, WorldModelConfig


def tiny(dataset: Path, model: ModelConfig | None = FLOW, **training_settings: Any) -> WorldModelRunConfig:
    return WorldModelRunConfig(str(dataset), world=WorldModelConfig(model=model, chunk=2, **TINY), held_out=0.2,
                               training=TrainingConfig(**{"steps": 3, "warmup": 1, "threads": 1} | training_settings))


def made_of(run: runs.Run, obs: np.ndarray, **settings: Any) -> Imagined:
    act = torch.linspace(-1, 1, 4 * 3 * 3).view(4, 3, 3)
    return run.world_model.imagine(torch.from_numpy(obs[:4]), act, seeds=range(4), **settings)


@pytest.mark.parametrize("name", [*WorldModelRun.MODELS, None])
def test_every_generator_trains_saves_loads_and_imagines(name: str | None, hopper: Episodes, hopper_file: Path,
                                                         tmp_path: Path) -> None:
    """A folder is all that it needs."""
    model = None if name is None else WorldModelRun.MODELS[name].with_network(NETWORK)
    run = runs.train(tiny(hopper_file, model), folder=tmp_path / "run", progress=False)
    made = made_of(run, hopper.obs)
    assert all(torch.isfinite(x).all() for x in made)
    loaded = runs.load(shutil.copytree(tmp_path / "run", tmp_path / "elsewhere"))
    assert_same(made_of(loaded, hopper.obs), made)
    assert loaded.config == run.config and loaded.world_model.calibration.largest > 0


def test_it_trains_in_bfloat16_and_takes_what_environments_give(hopper: Episodes, hopper_file: Path,
                                                               tmp_path: Path) -> None:
    run = runs.train(tiny(hopper_file, bf16=True), folder=tmp_path / "run", progress=False)
    exact, made = made_of(run, hopper.obs), made_of(run, hopper.obs.astype(np.float64))
    assert_same(made, exact)
    with pytest.raises(ValueError, match=r"option of sampling was given to a world model .* leave it out"):
        run.agent(run.action_space(), options=SamplingOptions(temperature=0.5))


def test_actions_far_from_the_data_are_told_once_and_none_that_are_not_finite_are_imagined(
        hopper: Episodes, hopper_file: Path, tmp_path: Path) -> None:
    run = runs.train(tiny(hopper_file), folder=tmp_path / "run", progress=False)
    obs, act = hopper.obs[:2], np.zeros((2, 3, 3), np.float32)
    padded = act.copy()
    padded[:, 2] = 100
    run.world_model.imagine(obs, padded, real_BT=np.array([[1, 1, 0]] * 2))  # what is no action is not looked at
    with pytest.warns(FarFromData, match=r"action\[1\]") as warned:
        for _ in range(2):
            run.world_model.imagine(obs, act + np.array([0, 100, 0]))
    assert len(warned) == 1 and "action[0]" not in str(warned[0].message)
    with pytest.raises(ValueError, match=r"actions .* not finite"):
        run.world_model.imagine(obs, act + np.nan)


def test_killed_and_resumed_it_is_the_uninterrupted_run(hopper_file: Path, tmp_path: Path) -> None:
    same_when_killed(tiny(hopper_file, save_every=1, keep=9), tmp_path, after=1)


def test_a_goal_that_the_data_do_not_record_is_no_context(hopper: Episodes) -> None:
    """The goal in hindsight of a step would tell the model where it leads."""
    config = tiny(Path("none.npz"))
    assert not WorldModelRun.resolve(config, replace(hopper, goal_dims=(0, 1)))[1].kinds
    goal = np.zeros((len(hopper.obs), 2), np.float32)
    _, context = WorldModelRun.resolve(config, replace(hopper, goal_dims=(0, 1), extras={"goal": goal}))
    assert context.kinds == ("goal",)


def test_it_is_judged_by_data_that_it_was_not_trained_on(hopper: Episodes, hopper_file: Path, tmp_path: Path) -> None:
    config = tiny(hopper_file)
    run = runs.train(config, folder=tmp_path, progress=False)
    learnt, kept, judged = WorldModelRun.split(config, stitch(concatenate([hopper])))
    acts = lambda act_SA: {row.tobytes() for row in act_SA}  # noqa: E731  actions never recur
    known = acts(run.reference.x_BHD[:, 0, hopper.obs_dim :].numpy())
    assert known <= acts(kept.act) and not known & acts(learnt.act)
    assert len(kept) == len(judged) == 1 or not acts(judged.act) & (known | acts(learnt.act))
