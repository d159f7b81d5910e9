"""Every preset trains and acts on a GPU. No step of its training waits for it, and a decision only a few times."""

from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box
from simulated_device import counted
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.data import load_episodes
from gentraj.runs import Run, train
from gentraj.runs.kinds.presets import PRESETS
from gentraj.runs.learn.training import prepare
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.checkpoint import saved_steps
from gentraj.training.log import read_metrics
from gentraj.training.loop import TrainingStopped
from gentraj.training.optimization import LearningConfig, Updates, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import TrajectorySpec

DEVICE = torch.device("cuda")
ALIKE = ("pointmaze-", "diffuser-pointmaze-")  # other data of the same settings
EVERY = [name for name in PRESETS if not name.startswith(ALIKE)]
DECISION_WAITS = 5  # of a planner: for a check of each model's plans, or of their trust, the plan, and the action
SIZES = {"width": 8, "depth": 1, "batch_size": 8, "candidates": 2, "places": 20, "steps": 2}


def narrow(config: Any) -> Any:
    """The settings, and those in them, with the smallest networks and batches."""
    changes = dict[str, Any]()
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in SIZES:
            changes[field.name] = min(value, SIZES[field.name])
        elif field.name == "multipliers":
            changes[field.name] = value[:2]
        elif is_dataclass(value):
            changes[field.name] = narrow(value)
    return replace(config, **changes)


def dataset_of(name: str, data: dict[bool, Path]) -> str:
    return str(data[any(word in name for word in ("maze", "goals", "far", "gc", "cfgrl"))])


def act(run: Run) -> torch.Tensor:
    """The actions of the run's agent in two states of its data, for which it waits no more often than it may."""
    agent = run.agent(Box(-1, 1, (run.data.act_dim,)))
    obs_BO = run.reference.x_BHD[:2, 0, : run.data.obs_dim]
    goal_BG = run.example_goal(run.reference, obs_BO)
    obs_BO, goal_BG = obs_BO.cpu(), goal_BG if goal_BG is None else goal_BG.cpu()
    for _ in range(2):  # at first, some things are made once
        agent.reset([0, 1])
        with counted() as waits:
            act_BA = agent.act(obs_BO, goal_BG)
    assert len(waits) <= DECISION_WAITS, f"waits:\n{waits}"
    return act_BA


def trained_without_a_wait(name: str, data: dict[bool, Path], folder: Path) -> Run:
    """A preset after some steps, which waited for the numbers of the step before alone, which are there by then."""
    config = replace(narrow(PRESETS[name]), dataset=dataset_of(name, data), training=TrainingConfig(20, warmup=1))
    run, parts = prepare(config, check=False)
    trainer = Trainer(run.components, TrainingData(parts.train, run.context), config.training, RunStore(folder),
                      device=DEVICE, progress=False)
    with ExitStack() as trainer.held:
        trainer.claim_folder(False)
        log = trainer.held.enter_context(trainer.open_log(trainer.begin(False)))
        for _ in range(3):
            trainer.train_step(log)
        with counted() as waits:
            for _ in range(2):
                trainer.train_step(log)
    late = [wait for wait in waits if wait.startswith("synchronize of event")]
    assert len(late) <= 2 * len(trainer.components) and len(late) == len(waits), f"waits:\n{waits}"
    return run


@pytest.mark.filterwarnings("ignore:no recorded way leads")
@pytest.mark.parametrize("name", EVERY)
def test_a_preset_trains_without_a_wait_and_acts(name: str, data: dict[bool, Path], tmp_path: Path) -> None:
    run = trained_without_a_wait(name, data, tmp_path)
    run.reference = run.reference.take(slice(16))
    if run.acting is not None:
        assert torch.isfinite(act(run.ready(DEVICE))).all()


@pytest.mark.parametrize("name", ["pointmaze", "veteran", "iql", "fql", "swift", "bc-gan", "world-model"])
def test_a_gpu_learns_what_a_cpu_learns(name: str, data: dict[bool, Path], tmp_path: Path) -> None:
    """The same windows, noise and conditions, and the metrics of every step in its own row, up to rounding."""
    settings = TrainingConfig(3, warmup=1, log_every=1, save_every=2)
    config = replace(narrow(PRESETS[name]), dataset=dataset_of(name, data), training=settings)
    rows, weights = [], []
    for device in (torch.device("cpu"), DEVICE):
        run = train(config, folder=tmp_path / device.type, device=device, progress=False)
        rows.append([{key: value for key, value in row.items() if "seconds" not in key}
                     for row in read_metrics(tmp_path / device.type)])
        weights.append([x.cpu() for part in run.components.values() for x in part.state_dict().values()])
    assert [row["step"] for row in rows[0]] == [1, 2, 3]
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3)
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-2)


class Breaks(nn.Module):
    """Its loss is not finite in step 2, counted from 0, by which step 3 fails. It has no metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.batch_size = TrajectorySpec(4, 2, 4), 8
        self.layer = nn.Linear(6, 1)
        self.updates = Updates()

    def optimizers(self) -> dict[str, Optimizer]:
        return {"layer": adamw(self.layer, LearningConfig())}

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        loss = self.layer(step.batch.x_BHD).square().mean()
        if self.updates.next() == 3:
            loss = loss * torch.nan
        step.descend(loss, "layer", 1.0)
        if self.updates.done == 4:
            raise RuntimeError("it is nothing that comes next")
        return {}


def test_a_loss_that_is_not_finite_ends_the_training_before_anything_is_saved(data: dict[bool, Path],
                                                                             tmp_path: Path) -> None:
    """Though it is read a step later: no weight has moved by then."""
    trainer = Trainer({"it": Breaks()}, TrainingData(load_episodes(data[False])), TrainingConfig(9, save_every=3),
                      RunStore(tmp_path), device=DEVICE, progress=False)
    with pytest.raises(TrainingStopped, match=r"step 2, component 'it': the loss is nan; .*step-00000000 is kept"):
        trainer.fit()
    assert saved_steps(tmp_path) == [0]
    assert all(torch.isfinite(p).all() for p in trainer.components[0].module.parameters())
