"""Students against closed forms: at the map that a method aims at its loss is 0, and a short training comes close."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gentraj.config import from_json, to_json
from gentraj.diffusion import Diffusion, DiffusionConfig, FlowConfig
from gentraj.diffusion.paths import sampling_times
from gentraj.distillation import STUDENTS, FewStep, FewStepConfig
from gentraj.distillation.few_step import ddim_step
from gentraj.families import ModelConfig
from gentraj.models.conditioning import ConditionMix
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.testing import check_model
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, SamplingOptions, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=2, act_dim=0, horizon=1)
MEAN, STD = torch.tensor([0.3, -0.4]), torch.tensor([0.8, 0.3])  # of the data, which are normal
NETWORK = ResidualMLPConfig(32, 1, frequencies=0)
TEACHERS = {"vp-cosine": DiffusionConfig(NETWORK, levels=16, clip=None, steps=16, ema=0.98),
            "flow": FlowConfig(NETWORK, prediction="velocity", clip=None, steps=16, ema=0.98)}
every_student = pytest.mark.parametrize("method", STUDENTS)
every_teacher = pytest.mark.parametrize("path", TEACHERS)


class Map(nn.Module):
    """A network whose output stands for a given function x0(x, t)."""

    def __init__(self, model: Diffusion, x0: Callable[..., Tensor]):
        super().__init__()
        self.model, self.x0 = [model], x0

    @property
    def module(self) -> nn.Module:
        """As an average of weights has it."""
        return self

    def forward(self, scaled: Tensor, known: Tensor, mask: Tensor, t_R: Tensor,
                context: Tensor | None = None) -> Tensor:
        model, at = self.model[0], self.model[0].level(t_R)
        x = scaled * at.spread
        x0 = self.x0(x, t_R)
        return model.prediction.target(x0, (x - at.alpha * x0) / at.sigma, at) / model.prediction.unit(at)


def exact(model: Diffusion) -> Any:
    """E[x0 | x_t] of the data."""

    def x0(x: Tensor, t_R: Tensor) -> Tensor:
        at = model.level(t_R)
        return MEAN + at.alpha * STD**2 / (at.alpha**2 * STD**2 + at.sigma**2) * (x - at.alpha * MEAN)

    return Map(model, x0)


def student(method: str, path: str, steps: int = 1, **settings: Any) -> FewStep:
    config, cls = STUDENTS[method]
    torch.manual_seed(0)
    made = cls(SPEC, config(TEACHERS[path], steps=steps, **settings), Normalizer.identity(2),
               conditioning=ConditionMix(start=0, goal=0), batch_size=128)
    made.teacher.ema = exact(made.teacher)
    return made


def batch(step: int, size: int = 128) -> Batch:
    x = MEAN + STD * torch.randn(size, 1, 2, generator=generator(0, step))
    return Batch(x, torch.ones_like(x, dtype=torch.bool))


def loss_at(model: FewStep, x0: Callable[..., Tensor]) -> float:
    """The loss of a student whose network stands for the function x0."""
    model.network = Map(model, x0)
    return float(model.objective(model.microbatch(TrainingStep(batch(0), {}, generator(1)))).detach())


def along(model: FewStep, times: Tensor) -> Callable[..., Tensor]:
    """(x, t) -> the end of the teacher's steps along these times from t to 0."""

    def end(x: Tensor, t_R: Tensor) -> Tensor:
        rows = model.microbatch(TrainingStep(Batch(x, torch.ones_like(x, dtype=torch.bool)), {}, generator(0)))
        for t, s in pairwise(times):
            x0 = model.taught(x, t.expand(len(x)), rows)
            moved = ddim_step(x, x0, model.level(t.expand(len(x))), model.level(s.expand(len(x))))
            x = torch.where(t_R[:, None, None] >= t - 1e-6, moved, x)
        return x

    return end


@every_teacher
@pytest.mark.parametrize("steps", [1, 4])
def test_the_loss_of_reflow_is_0_where_the_student_is_the_teachers_map_and_ways_are_straight(path: str, steps: int,
                                                                                            ) -> None:
    model = student("reflow", path, steps)
    model.teacher.ema = Map(model.teacher, lambda x, t_R: MEAN.expand_as(x))  # data in one point
    assert loss_at(model, lambda x, t_R: MEAN.expand_as(x)) < 1e-10
    model = student("reflow", path)
    assert loss_at(model, along(model, sampling_times(model.path, 16))) < 1e-10


@every_teacher
def test_the_loss_of_a_consistency_model_is_0_at_the_end_of_the_teachers_way(path: str) -> None:
    model = student("consistency", path, points=16)
    assert loss_at(model, along(model, sampling_times(model.path, 16))) < 1e-9
    assert loss_at(model, exact(model.teacher).x0) > 1e-3  # the teacher itself is no consistency model


# Root mean squared error to the teacher's map of standard normal noise, after a short training from random weights.
@pytest.mark.parametrize(("method", "path", "updates", "settings"), [
    ("reflow", "vp-cosine", 150, {"teacher_steps": 4}), ("consistency", "flow", 250, {})])
def test_a_student_of_one_step_comes_close_to_the_map_of_its_teacher(method: str, path: str, updates: int,
                                                                     settings: dict[str, Any]) -> None:
    model = student(method, path, **settings)
    optimizers = model.optimizers()
    for step in range(updates):
        for group in optimizers["network"].param_groups:
            group["lr"] = 4e-3 * (1 - step / updates)
        model.update(TrainingStep(batch(step), optimizers, generator(1, step)))
    z, free = torch.randn(500, 1, 2, generator=generator(9)), Condition.empty(SPEC, 500)
    right = model.teacher.transport(z, free, steps=settings.get("teacher_steps", 16))
    found, before = ((x - right).square().mean().sqrt() for x in (
        model.transport(z, free), model.teacher.transport(z, free, steps=1)))
    assert found < 0.2 < before, (float(found), float(before))


@every_student
def test_a_student_keeps_the_contract_of_models_and_is_read_back_as_itself(method: str) -> None:
    config = STUDENTS[method][0](TEACHERS["vp-cosine"], steps=2)
    spec = TrajectorySpec(3, 2, 4)
    model = STUDENTS[method][1](spec, config, Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)))
    check_model(model)
    assert config.max_steps == 16
    assert from_json(FewStepConfig, to_json(config)) == config and isinstance(config, ModelConfig)


@every_student
def test_a_student_starts_from_its_teacher_scores_as_it_does_and_leaves_it_as_it_was(method: str) -> None:
    spec, context = TrajectorySpec(3, 2, 4), Normalizer(torch.ones(1), 2 * torch.ones(1))
    teacher = Diffusion(spec, TEACHERS["flow"], Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)), context)
    made = STUDENTS[method][1](spec, STUDENTS[method][0](TEACHERS["flow"]), Normalizer.identity(5),
                               Normalizer.identity(1))
    made.learn_from(teacher)
    before = {key: tensor.clone() for key, tensor in made.teacher.state_dict().items()}
    x, known = torch.randn(3, 4, 5, generator=generator(0)), Condition.empty(spec, 3)
    known = replace(known, context_BC=torch.ones(3, 1))
    torch.testing.assert_close(made.transport(x, known), teacher.transport(x, known, steps=1))
    data = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.ones(3, 1))
    made.update(TrainingStep(data, made.optimizers(), generator(1)))
    torch.testing.assert_close(made.ood_score(x, known, [0, 1, 2]), teacher.ood_score(x, known, [0, 1, 2]))
    assert all(torch.equal(before[key], tensor) for key, tensor in made.teacher.state_dict().items())


def test_a_consistency_model_has_its_own_steps_and_refuses_those_of_a_sampler() -> None:
    model, free = student("consistency", "flow", steps=2), Condition.empty(SPEC, 2)
    with pytest.raises(ValueError, match=r"sampler was given, and a .* leave it out"):
        model.sample(free, options=SamplingOptions(sampler="heun"), seed=0)
    model.sample(free, options=SamplingOptions(grid="karras"), seed=0)
    assert model.sampling().startswith("multistep")


@every_student
def test_a_guide_in_training_sees_the_data_where_they_are_known_or_padding(method: str) -> None:
    spec, seen = TrajectorySpec(2, 1, 4), list[Tensor]()
    model = STUDENTS[method][1](spec, STUDENTS[method][0](TEACHERS["flow"]), Normalizer(torch.ones(3), torch.ones(3)),
                                conditioning=ConditionMix(goal=0))
    real = torch.ones(2, 4, 3, dtype=torch.bool)
    real[1, 2:], real[1, 1, 2:] = False, False  # two observations, and an action between them
    x = torch.randn(2, 4, 3, generator=generator(0)) * real

    def guide(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.sum((1, 2))

    model.update(TrainingStep(Batch(x, real), model.optimizers(), generator(1)), guide=guide)
    assert torch.equal(seen[0][:, 0, :2], x[:, 0, :2])
    assert torch.equal(seen[0][~real], x[~real])


def test_a_student_of_some_steps_is_sampled_at_the_times_that_it_learnt_alone() -> None:
    model, free = student("reflow", "flow", steps=2), Condition.empty(SPEC, 2)
    assert torch.equal(model.sample(free, options=SamplingOptions(steps=2), seed=0), model.sample(free, seed=0))
    for steps in (1, 3):
        with pytest.raises(ValueError, match=f"{steps} sampling steps are asked of a student that was trained for 2; "):
            model.sample(free, options=SamplingOptions(steps=steps), seed=0)
    with pytest.raises(ValueError, match="grid was given, and this student was trained at the times of its 2 sampling"):
        model.sample(free, options=SamplingOptions(grid="karras"), seed=0)
