"""What a person with a card runs: the same flow on it, `python -m pytest tests/test_gpu.py`.

Both tests should pass, within a minute. The first compares numbers with those of the CPU, from which they differ by
rounding, and more if products are computed in TF32. The second fails with the line at which a training step waits for
the card ("called a synchronizing CUDA operation"). Everything else that runs on a card is tried on a simulated one,
which rounds as the CPU does (`make device`).
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig, PlanSampler
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.planning.trust import Trust
from gentraj.data import Episodes, Windows
from gentraj.diffusion import DiffusionConfig
from gentraj.networks import TemporalUNetConfig
from gentraj.randomness import generator
from gentraj.runs import DataFacts, PlannerRunConfig
from gentraj.runs.kinds.planner_run import PlannerRun
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.step import Trial
from gentraj.trajectory import Condition

pytestmark = pytest.mark.gpu


@pytest.fixture
def data() -> Episodes:
    rng = np.random.default_rng(0)
    obs, act = rng.normal(size=(501, 4)).cumsum(0), rng.normal(size=(500, 2))
    end = np.arange(500) == 499
    return Episodes(obs, act, np.zeros(500), np.zeros(500, bool), end, [500], goal_dims=(0, 1))


@pytest.fixture
def run(data: Episodes) -> PlannerRun:
    small = DiffusionConfig(network=TemporalUNetConfig(8, (1, 2)))
    config, context = PlannerRun.resolve(PlannerRunConfig(horizon=8, stride=2, model=small), data)
    return PlannerRun.build(config, DataFacts.of(data, context), data)


def trainer(run: PlannerRun, data: Episodes, folder: Path, steps: int) -> Trainer:
    device = torch.accelerator.current_accelerator()
    return Trainer(run.components, TrainingData(data), TrainingConfig(steps), RunStore(folder),
                   device=device, progress=False)


def test_training_sampling_and_planning_run_on_the_device(run: PlannerRun, data: Episodes, tmp_path: Path) -> None:
    device = torch.accelerator.current_accelerator()
    trainer(run, data, tmp_path, 3).fit()
    model, losses = run.model, []
    windows = Windows(data, model.spec).batch(0, 0)
    for place in (device, torch.device("cpu"), device):
        model.to(place)
        losses.append(model.update(Trial(windows.to(place), model.optimizers(), generator(0)))["loss"].cpu())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-2, atol=1e-3)
    x = model.sample(Condition.empty(model.spec, 2).with_obs(0, torch.zeros(4)), 3, seed=0)
    assert x.device.type == device.type and torch.isfinite(x).all()
    assert torch.equal(x[:, :, 0].cpu(), torch.zeros(2, 3, 4))
    acting = PlannerConfig(goal_dims=(0, 1), rest_dims=(2, 3))
    trust = Trust(model, windows.to(device), 0.98)
    sampler = PlanSampler(model, acting, trust, run.components["arrival"])
    planner = Planner(sampler, PlanTracker(model.spec, acting, -np.ones(2), np.ones(2), run.components["inverse"]))
    assert planner.act(torch.zeros(2, 4), torch.ones(2, 2)).abs().max() <= 1


def test_no_training_step_waits_for_the_device(run: PlannerRun, data: Episodes, tmp_path: Path) -> None:
    trained = trainer(run, data, tmp_path, 10)
    with ExitStack() as trained.held:
        trained.claim_folder(False)
        log = trained.held.enter_context(trained.open_log(trained.begin(False)))
        trained.train_step(log)
        torch.cuda.set_sync_debug_mode("error")
        trained.held.callback(torch.cuda.set_sync_debug_mode, "default")
        for _ in range(3):
            trained.train_step(log)
