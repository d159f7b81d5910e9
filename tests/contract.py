"""Checks that every `TrajectoryModel` must pass; they are called on a model whose spec is `SPEC`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gentraj.networks.embedding import FactoredNetwork
from gentraj.trajectory import Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=3, act_dim=2, horizon=8)
CONDITIONS: dict[str, Callable[[Condition], Condition]] = {
    "none": lambda c: c,
    "start": lambda c: c.with_obs(0, torch.tensor([0.1, 0.2, 0.3])),
    "goal": lambda c: c.with_obs(0, torch.ones(3)).with_obs(5, torch.tensor([1.7, -0.3]), dims=(0, 2)),
    "actions": lambda c: c.with_obs(0, torch.ones(3)).with_actions(torch.full((c.batch, 8, 2), 0.7)),
    "prefix": lambda c: c.with_prefix(torch.full((c.batch, 3, 5), 0.33)),
    "everything": lambda c: c.with_prefix(torch.full((c.batch, 8, 5), 0.33)),
}


def check_known_entries(model: Any, kind: str) -> None:
    """Entries that are conditioned on come back bit-equal."""
    condition = CONDITIONS[kind](Condition.empty(SPEC, 2))
    x = model.sample(condition, 3, seed=1)
    assert x.shape == (2, 3, 8, 5) and torch.isfinite(x).all()
    for n in range(3):
        assert torch.equal(x[:, n][condition.mask_BHD], condition.values_BHD[condition.mask_BHD])


def check_batch_independence(model: Any, count: int) -> None:
    """A sample does not depend on the number of samples in its batch."""
    obs = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
    condition = Condition.empty(SPEC, 50).with_obs(0, obs)
    many = model.sample(condition, seed=list(range(50)))
    few = model.sample(condition[:count], seed=list(range(count)))
    torch.testing.assert_close(few, many[:count], rtol=1e-5, atol=1e-5)


def check_seeds(model: Any) -> None:
    """The same seed gives the same bits, whatever torch's global generator does; another seed gives others."""
    condition = Condition.empty(SPEC, 2)
    first = model.sample(condition, 2, seed=5)
    torch.manual_seed(99)
    assert torch.equal(first, model.sample(condition, 2, seed=5))
    assert not torch.equal(first, model.sample(condition, 2, seed=6))
    assert not torch.equal(first[0], first[1])


def watch_body(network: FactoredNetwork) -> list[tuple[Tensor, Tensor]]:
    """The features (R, H, F) and projections (R, M) of all calls of a network from here on."""
    seen, body = list[tuple[Tensor, Tensor]](), network.body

    def watched(features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        seen.append((features_RHF, projection_RM))
        return body(features_RHF, projection_RM)

    network.body = watched  # type: ignore[method-assign]
    return seen
