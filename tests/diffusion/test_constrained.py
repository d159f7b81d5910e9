"""Hard constraints as a plug-in: whatever the sampler, the samples satisfy them, and what already does is unchanged."""

import pytest
import torch

from gentraj.constraints import QUICK_BUDGETS, TOLERANCE, Blocks, Box, Circle, Constraints, Speed
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.guidance import Constrained, Infeasible
from gentraj.diffusion.samplers import SAMPLERS
from gentraj.networks import TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.trajectory import Condition, SamplingOptions, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=3, act_dim=1, horizon=8, stride=2)
START, GOAL = torch.tensor([-1.0, 0.1, 0.3]), torch.tensor([1.0, 0.2])
ARENA = Constraints(SPEC, {"arena": Box(-1.5, (1.2, 1.3), (0, 1)), "pillar": Circle((0.0, 0.0), 0.5, (0, 1)),
                           "speed": Speed(2.5, (0, 1), dt=0.1), "torque": Box(-0.5, 0.5, (3,))})


def make(sampler: str = "ddim") -> Diffusion:
    """An untrained model, whose samples are far from any constraint."""
    torch.manual_seed(0)
    return Diffusion(SPEC, DiffusionConfig(TemporalUNetConfig(8, (1, 2)), sampler=sampler),  # type: ignore[arg-type]
                     Normalizer(torch.tensor([0.1, 0.0, 5.0, 0.0]), torch.tensor([1.0, 2.0, 3.0, 0.7])))


def condition(batch: int = 3) -> Condition:
    return Condition.empty(SPEC, batch).with_obs(0, START).with_obs(-1, GOAL, dims=(0, 1))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_satisfy_the_constraints_with_every_sampler(sampler: str) -> None:
    model = make(sampler)
    assert not ARENA.certificate(model.sample(condition(), 2, options=SamplingOptions(steps=3), seed=0)).feasible.any()
    x = model.sample(condition(), 2, guide=Constrained(ARENA), options=SamplingOptions(steps=3), seed=0)
    assert ARENA.certificate(x).worst.max() <= TOLERANCE
    known, values = condition().mask_BHD[:, None].expand_as(x), condition().values_BHD[:, None].expand_as(x)
    assert torch.equal(x[known], values[known])


def test_constraints_that_hold_anyway_change_no_bit() -> None:
    model, wide = make(), Constraints(SPEC, [Box(-1e6, 1e6, (0, 1, 2, 3)), Speed(1e6, (0, 1), dt=0.1)])
    free = model.sample(condition(), 2, options=SamplingOptions(steps=3), seed=4)
    assert torch.equal(model.sample(condition(), 2, guide=Constrained(wide, max_time=1),
                                    options=SamplingOptions(steps=3), seed=4), free)


def test_the_next_steps_answer_to_the_projection() -> None:
    model = make()
    late, early = (model.sample(condition(1), guide=Constrained(ARENA, max_time=max_time),
                                options=SamplingOptions(steps=4), seed=0) for max_time in (-1.0, 1.0))
    assert not torch.allclose(late, early, atol=1e-3)


def test_a_contradiction_is_refused_before_sampling() -> None:
    model = make()
    slow = Constraints(SPEC, {"speed": Speed(0.1, (0, 1), dt=0.1)})
    with pytest.raises(ValueError, match="speed cannot be satisfied: timesteps 0 and 7 are known"):
        model.sample(condition(), guide=Constrained(slow), seed=0)
    other = Constraints(TrajectorySpec(3, 1, 9, 2), [Box(0, 1, (0,))])
    with pytest.raises(ValueError, match=r"the constraints are on .*horizon=9.*the model's are of .*horizon=8"):
        model.sample(condition(), guide=Constrained(other), seed=0)
    assert model.network_calls == 0
    x = model.sample(condition(), guide=Constrained(slow, strict=False, budgets=QUICK_BUDGETS),
                     options=SamplingOptions(steps=2), seed=0)
    assert slow.certificate(x).worst.min() > 1


def test_what_was_not_made_feasible_is_never_handed_out_silently() -> None:
    wall = Constraints(SPEC, {"wall": Blocks((-0.3, -9.0), (0.3, 9.0), (0, 1)), "speed": Speed(2.0, (0, 1), dt=0.1)})
    model = make()
    with pytest.raises(Infeasible, match=r"0 of 1.* feasible; .* sample with another seed") as caught:
        model.sample(condition(1), guide=Constrained(wall, budgets=QUICK_BUDGETS), options=SamplingOptions(steps=2),
                     seed=0)
    assert not caught.value.certificate.feasible.any()
    x = model.sample(condition(1), guide=Constrained(wall, strict=False, budgets=QUICK_BUDGETS),
                     options=SamplingOptions(steps=2), seed=0)
    assert not wall.certificate(x).feasible.any()
