"""Statistics belong to the weights they were trained with, and a horizon fits or names those that do.

22 (padding), 31 (known entries) and 33 (reproducibility) are tests/diffusion/test_model.py.
"""


import pytest
import torch
from torch import Tensor, nn

from gentraj.agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.models.sampling import Denoise
from gentraj.networks import TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.training.checkpoint import CheckpointError
from gentraj.training.state import module_tensors, restore_module
from gentraj.trajectory import Condition, TrajectorySpec

CONFIG = DiffusionConfig(network=TemporalUNetConfig(8, (1, 2)))


def model(normalizer: Normalizer, horizon: int = 8) -> Diffusion:
    return Diffusion(TrajectorySpec(2, 1, horizon), CONFIG, normalizer)


def test_weights_without_their_statistics_are_refused() -> None:
    buffer = "normalizer.scale_D"
    one, tensors = model(Normalizer.identity(3)), module_tensors(model(Normalizer.identity(3)))
    del tensors[buffer]
    with pytest.raises(CheckpointError, match=f"the saved 'model' does not fit: {buffer} is missing"):
        restore_module(one, tensors)


class StandardNormal(Diffusion):
    """Knows E[z | x_t] = alpha x_t / (alpha^2 + sigma^2) of normalised trajectories z ~ N(0, I)."""

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None,
                times: Tensor | None = None) -> Denoise:
        def exact(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = self.path.alpha(t)[:, None, None], self.path.sigma(t)[:, None, None]
            return alpha * x / (alpha**2 + sigma**2)

        return exact


class TwiceTheLast(nn.Module):
    """Values a plan, in the critic's normalised units, as 2 z of the first number of its last observation."""

    def forward(self, z_RHD: Tensor, sigma_R: Tensor) -> Tensor:
        return 2 * z_RHD[None, :, -1, 0]


def critic_with_other_statistics() -> PlanCritic:
    """Plans are normalised by (x - 3) / 4 and returns by (f - 5) / 0.5."""
    plan = Normalizer(torch.tensor([3.0, 0.0, 0.0]), torch.tensor([4.0, 1.0, 1.0]))
    critic = PlanCritic(TrajectorySpec(2, 1, 2), PlanCriticConfig(inputs="plan", noise_fraction=0.0), plan,
                        Normalizer.identity(1), Normalizer(torch.tensor([5.0]), torch.tensor([0.5])))
    critic.plan_network = TwiceTheLast()
    return critic


def test_the_score_of_a_plan_is_that_computed_by_hand_from_environment_units() -> None:
    """x = 11: (11 - 3) / 4 = 2, twice that is 4 deviations of the returns, and 5 + 4 * 0.5 = 7."""
    plan_RHD = torch.tensor([[[0.0, 0.0, 0.0], [11.0, 0.0, 0.0]]])
    assert critic_with_other_statistics()(plan_RHD).tolist() == [7.0]


def test_a_critic_with_other_statistics_guides_as_computed_by_hand() -> None:
    """The model samples x ~ N(10, 2^2), and the value is 2 (x - 3) / 4, whose slope is 1/2.

    The density N(10, 2^2) exp(3 value) is N(10 + 2^2 * 3 / 2, 2^2): each sample moves by 6. It would move by 12 if the
    critic took the model's normalised numbers for its own, by 24 if it took environment units for them, and by 3 if it
    normalised what the model had normalised. As the steps begin at alpha = 0.0084 and not 0, they end at 6 (1 - 0.0084)
    at most, and 100 of them 0.03 short of that.
    """
    ours = Normalizer(torch.tensor([10.0, -1.0, 0.5]), torch.tensor([2.0, 3.0, 1.0]))
    settings = DiffusionConfig(CONFIG.network, path="vp-cosine", levels=None, clip=None, steps=100)
    spec = TrajectorySpec(2, 1, 2)
    model, unknown = StandardNormal(spec, settings, ours), Condition.empty(spec)
    plain = model.sample(unknown, 8, seed=0)
    moved = model.sample(unknown, 8, guide=critic_with_other_statistics().guide(3.0), seed=0) - plain
    assert plain[..., 0].mean().item() == pytest.approx(10, abs=2)
    torch.testing.assert_close(moved[0, :, 1, 0], torch.full((8,), 6.0), rtol=0, atol=0.1)
    moved[0, :, 1, 0] = 0
    torch.testing.assert_close(moved, torch.zeros_like(moved), rtol=0, atol=1e-4)
