"""What the tests of models share: a layout, conditions on it, and what their networks are asked."""

from collections.abc import Callable

import torch
from torch import Tensor

from gentraj.networks.embedding import FactoredNetwork
from gentraj.trajectory import Batch, Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=3, act_dim=2, horizon=8)
CONDITIONS: dict[str, Callable[[Condition], Condition]] = {
    "none": lambda c: c,
    "start": lambda c: c.with_obs(0, torch.tensor([0.1, 0.2, 0.3])),
    "goal": lambda c: c.with_obs(0, torch.ones(3)).with_obs(5, torch.tensor([1.7, -0.3]), dims=(0, 2)),
    "actions": lambda c: c.with_obs(0, torch.ones(3)).with_first_acts(torch.full((c.batch, 8, 2), 0.7)),
    "prefix": lambda c: c.with_prefix(torch.full((c.batch, 3, 5), 0.33)),
    "everything": lambda c: c.with_prefix(torch.full((c.batch, 8, 5), 0.33)),
}


def batch(lengths: tuple[int, ...] = (8, 8, 5, 2) * 4) -> Batch:
    """Windows of so many real timesteps; what is padded is 0."""
    x = torch.randn(len(lengths), 8, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6.0)
    real = (torch.arange(8) < torch.tensor(lengths)[:, None])[..., None].expand(-1, -1, 5)
    return Batch(x * real, real)


def watch_body(network: FactoredNetwork) -> list[tuple[Tensor, Tensor]]:
    """The features (R, H, F) and projections (R, M) of all calls of a network from here on."""
    seen, body = list[tuple[Tensor, Tensor]](), network.body

    def watched(features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        seen.append((features_RHF, projection_RM))
        return body(features_RHF, projection_RM)

    network.body = watched  # type: ignore[method-assign]
    return seen
