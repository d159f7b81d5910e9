"""The same flow on an accelerator."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig, PlanSampler
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.planning.trust import Trust
from gentraj.data import Episodes
from gentraj.diffusion import DiffusionConfig
from gentraj.networks import TemporalUNetConfig
from gentraj.runs import DataFacts, PlannerRunConfig
from gentraj.runs.planner import PlannerRun
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.parallel import SINGLE
from gentraj.trajectory import Batch, Condition

pytestmark = pytest.mark.gpu


def episodes() -> Episodes:
    rng = np.random.default_rng(0)
    obs, act = rng.normal(size=(501, 4)).cumsum(0), rng.normal(size=(500, 2))
    end = np.arange(500) == 499
    return Episodes(obs, act, np.zeros(500), np.zeros(500, bool), end, [500], goal_dims=(0, 1))


def test_training_sampling_and_planning_run_on_the_device(tmp_path: Path) -> None:
    device = torch.accelerator.current_accelerator()
    data = episodes()
    small = DiffusionConfig(network=TemporalUNetConfig(8, (1, 2)))
    config, context = PlannerRun.resolve(PlannerRunConfig(horizon=8, stride=2, model=small), data)
    components = PlannerRun.build(config, DataFacts.of(data, context), data).components
    Trainer(components, TrainingData(data), TrainingConfig(steps=3), RunStore(tmp_path), processes=SINGLE.on(device),
            progress=False).fit()
    model = components["model"]
    start = Condition.empty(model.spec, 2).with_obs(0, torch.zeros(4))
    x = model.sample(start, 3, seed=0)
    assert x.device.type == device.type and torch.isfinite(x).all()
    assert torch.equal(x[:, :, 0].cpu(), torch.zeros(2, 3, 4))
    here = model.to(torch.get_default_device()).sample(start, 3, seed=0)
    torch.testing.assert_close(x.cpu(), here, rtol=1e-2, atol=1e-2)
    model.to(device)
    reference = Batch(torch.randn(32, 8, 4), torch.ones(32, 8, 4, dtype=torch.bool)).to(device)
    acting = PlannerConfig(goal_dims=(0, 1), rest_dims=(2, 3))
    sampler = PlanSampler(model, acting, Trust(model, reference, 0.98), components["arrival"])
    planner = Planner(sampler, PlanTracker(model.spec, acting, -np.ones(2), np.ones(2), components["inverse"]))
    assert planner.act(torch.zeros(2, 4), torch.ones(2, 2)).abs().max() <= 1
