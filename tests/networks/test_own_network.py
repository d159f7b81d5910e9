"""A network of one's own, as docs/extending.md describes it and derived from nothing, serves models."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gentraj.config import from_json, settings, to_json
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks import NETWORKS, NetworkConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=2, act_dim=1, horizon=4)


@settings
class OwnConfig(NetworkConfig):
    scale: float = 1.0


class Own(nn.Module):
    """A perceptron of everything that it is given, a row for each of x."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: Any):
        super().__init__()
        self.x = nn.Linear(3 * horizon * dim, horizon * dim)
        self.level = nn.Linear(1, horizon * dim)
        self.context = nn.Linear(max(context_dim, 1), horizon * dim)

    def forward(self, x_BHD: Tensor, known_BHD: Tensor, mask_BHD: Tensor, t_B: Tensor,
                context_BC: Tensor | None = None) -> Tensor:
        y = self.x(torch.cat([x_BHD, known_BHD, mask_BHD.to(x_BHD)], -1).flatten(1)) + self.level(t_B[:, None]).tanh()
        if context_BC is not None:
            y = y + self.context(context_BC)
        return y.view_as(x_BHD)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "own", (OwnConfig, Own))


@pytest.mark.parametrize("context_dim", [0, 2])
def test_a_model_trains_and_samples_with_it(context_dim: int) -> None:
    context = Normalizer.identity(context_dim) if context_dim else None
    config = DiffusionConfig(OwnConfig(scale=2.0))
    assert from_json(DiffusionConfig, to_json(config)) == config
    model = Diffusion(SPEC, config, Normalizer.identity(3), context)
    x = torch.randn(8, 4, 3, generator=generator(0))
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.ones(8, 2) if context_dim else None)
    assert model.update(TrainingStep(batch, model.optimizers(), generator(1)))["loss"].isfinite()
    start = Condition.empty(SPEC, 2).with_obs(0, torch.zeros(2))
    given = Condition(SPEC, start.values_BHD, start.mask_BHD, torch.ones(2, 2) if context_dim else None)
    assert model.sample(given, 3, seed=0).isfinite().all()
