"""`Diffusion` as a `TrajectoryModel`: what it is trained on, what it returns."""

import copy
import dataclasses

import pytest
import torch
from contract import CONDITIONS, SPEC, batch, watch_body

from gentraj.config import ConfigError, from_json, to_json
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.denoiser import NEEDS_SIGNAL, PREDICTIONS
from gentraj.diffusion.paths import PATHS
from gentraj.diffusion.samplers import SAMPLERS
from gentraj.models.conditioning import ConditionMix
from gentraj.networks import TemporalUNetConfig
from gentraj.networks.embedding import MAX_ROWS, MIN_ROWS
from gentraj.normalize import Normalizer
from gentraj.randomness import RowNoise, generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Condition, SamplingOptions


def make(context: Normalizer | None = None, **changes: object) -> Diffusion:
    torch.manual_seed(0)
    own: dict = {key: changes.pop(key) for key in ("conditioning", "context_dropout") if key in changes}
    config = DiffusionConfig(**{"network": TemporalUNetConfig(8, (1, 2)), **changes})  # type: ignore[arg-type]
    return Diffusion(SPEC, config, Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)), context, **own)


@pytest.mark.parametrize("setting", ["path", "prediction", "weight", "density", "sampler", "grid"])
def test_a_choice_that_nobody_knows_is_refused_with_those_that_are_known(setting: str) -> None:
    """As a setting and as JSON; the default comes back from JSON as what it is."""
    data = to_json(DiffusionConfig())
    assert from_json(DiffusionConfig, data) == DiffusionConfig()
    for make_it in (lambda: DiffusionConfig(**{setting: "nothing"}),
                    lambda: from_json(DiffusionConfig, data | {setting: "nothing"})):
        with pytest.raises(ConfigError, match=f"{setting} is 'nothing'; .*'{data[setting]}'"):
            make_it()


# Each prediction on two paths, so that all paths occur, and each sampler with several of them.
@pytest.mark.filterwarnings("ignore:euler-maruyama is unstable")
@pytest.mark.parametrize(("path", "prediction"), [
    (path, [*PREDICTIONS][(i + j) % len(PREDICTIONS)]) for i, path in enumerate(PATHS) for j in (0, 3)])
def test_paths_train_and_sample_with_predictions_or_say_why_not(path: str, prediction: str) -> None:
    if path == "flow" and prediction in NEEDS_SIGNAL:
        message = r"does not determine x0 .* at the noisy end of the path flow.*use one of x0, v"
        with pytest.raises(ValueError, match=message):
            make(path=path, prediction=prediction)
        return
    model = make(path=path, prediction=prediction, levels=None)
    assert torch.isfinite(model.update(TrainingStep(batch(), model.optimizers(), generator(1)))["loss"])
    for i, sampler in enumerate(SAMPLERS):
        options = SamplingOptions(sampler, 1 + 2 * (i % 2))
        assert torch.isfinite(model.sample(Condition.empty(SPEC), options=options, seed=0)).all()


def test_options_say_how_one_sample_is_made_and_leave_the_model_as_it_is() -> None:
    model, condition = make(sampler="ddim"), Condition.empty(SPEC)
    plain = model.sample(condition, seed=1)
    assert not torch.equal(model.sample(condition, seed=1, options=SamplingOptions("ddpm")), plain)
    same = SamplingOptions("ddim", steps=model.config.steps, grid="uniform", eta=0.0)
    assert torch.equal(model.sample(condition, seed=1, options=same), plain)


CONTEXT = Normalizer(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]))


def test_a_context_reaches_the_sample_and_no_context_is_not_the_zero_context() -> None:
    model, plain = make(CONTEXT), Condition.empty(SPEC, 2)
    conditioned = [model.sample(dataclasses.replace(plain, context_BC=c.expand(2, 2)), seed=1)
                   for c in (torch.tensor([1.0, -2.0]), torch.tensor([4.0, -2.0]))]
    assert not torch.equal(*conditioned) and not torch.equal(conditioned[0], model.sample(plain, seed=1))
    with pytest.raises(ValueError, match=r"a context of width \(3,\) was given; 2 numbers"):
        model.sample(dataclasses.replace(plain, context_BC=torch.zeros(2, 3)), seed=0)


def test_a_dropped_context_trains_the_model_without_context() -> None:
    """With dropout 1 the loss equals that of the batch without context."""
    losses = []
    for context in (None, torch.randn(16, 2)):
        model = make(CONTEXT, context_dropout=1.0)
        data = dataclasses.replace(batch(), context_BC=context)
        losses.append(model.update(TrainingStep(data, model.optimizers(), generator(1)))["loss"])
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("count", [MIN_ROWS, MAX_ROWS + MIN_ROWS])
def test_whole_blocks_of_samples_are_whole_blocks_of_every_call_and_no_more_than_memory_takes(count: int) -> None:
    """Others take other kernels, which round otherwise: then a sample would depend on the batch size."""
    model = make(steps=1)
    seen = watch_body(model.ema.module)
    x = model.sample(Condition.empty(SPEC), count, seed=0)
    model.ood_score(x[0], Condition.empty(SPEC, count), range(count))
    rows = [len(features) for features, _ in seen]
    assert x.shape[1] == count and sum(rows) >= 2 * count
    assert all(number % MIN_ROWS == 0 and number <= MAX_ROWS for number in rows)


def test_a_fully_known_batch_teaches_nothing() -> None:
    model = make(conditioning=ConditionMix(start=0, goal=0, actions=1, observations=1))
    assert model.update(TrainingStep(batch(), model.optimizers(), generator(1)))["loss"] == 0


def test_the_normaliser_is_inside_the_model_only() -> None:
    """Data moved and stretched, with a normaliser that knows it, give the moved and stretched samples."""
    plain = make()
    moved = copy.deepcopy(plain)
    moved.normalizer = Normalizer(plain.normalizer.shift_D * 2 + 1, plain.normalizer.scale_D * 2)
    condition = Condition.empty(SPEC, 2).with_obs(0, torch.ones(3))
    there = Condition.empty(SPEC, 2).with_obs(0, torch.full((3,), 3.0))
    torch.testing.assert_close(moved.sample(there, seed=0), plain.sample(condition, seed=0) * 2 + 1, rtol=1e-4,
                               atol=1e-4)


@pytest.mark.parametrize("wrong", [{"learning_rate": float("nan")}, {"steps": 21}, {"eta": 2.0}])
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"DiffusionConfig\.{next(iter(wrong))} is "):
        DiffusionConfig(**{"steps": 1, **wrong})  # type: ignore[arg-type]


def test_what_is_known_is_held_once_a_denoising_and_what_is_denoised_is_bounded() -> None:
    """The network sees it clean, and it comes back, whatever x and the network have there; the rest is clipped."""
    model = make(clip=0.5)
    seen = watch_body(model.ema.module)
    known = CONDITIONS["goal"](Condition.empty(SPEC, 16))
    denoise = model.denoise(known.values_BHD, known.mask_BHD)
    t, x = torch.tensor([0.5]), torch.randn(16, 8, 5, generator=generator(0))
    x0, at = denoise(x, t), model.level(t)
    assert torch.equal(x0[known.mask_BHD], known.values_BHD[known.mask_BHD]) and x0[~known.mask_BHD].abs().max() <= 0.5
    torch.testing.assert_close((seen[0][0][..., :5] * at.spread)[known.mask_BHD], known.values_BHD[known.mask_BHD])
    assert torch.equal(denoise(torch.where(known.mask_BHD, 9.0, x), t), x0)
    free = model.denoise(known.values_BHD, known.mask_BHD, clipped=False)(x, t)
    assert free.abs().max() > 0.5 and torch.equal(free[~known.mask_BHD].clamp(-0.5, 0.5), x0[~known.mask_BHD])


@pytest.mark.parametrize("kind", CONDITIONS)
def test_transport_makes_of_noise_what_a_sample_of_that_noise_is(kind: str) -> None:
    """A one-step student is given the noise, and learns from what the sampler makes of just that noise."""
    model, condition = make(path="flow", levels=None, sampler="euler"), CONDITIONS[kind](Condition.empty(SPEC, 16))
    seeds = list(range(16))
    z = RowNoise(seeds).normal(8, 5)
    x = model.transport(z, condition)
    torch.testing.assert_close(x, model.sample(condition, seed=seeds)[:, 0])
    assert torch.equal(x[condition.mask_BHD], condition.values_BHD[condition.mask_BHD])
