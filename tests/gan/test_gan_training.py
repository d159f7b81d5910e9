"""How a `ConditionalGAN` is trained: two sides, their steps, and what must not influence them."""

import copy
from dataclasses import replace

import pytest
import torch
from contract import SPEC, batch
from tiny_gan import JUDGE, VARIANTS, continued, make, same_state, train

from gentraj.gan.conditional_gan import AVERAGE_WEIGHT
from gentraj.gan.objectives import REGULARISERS, SideConfig
from gentraj.models.conditioning import ConditionMix
from gentraj.randomness import generator
from gentraj.training.optimization import NonFinite
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition

every_variant = pytest.mark.parametrize("variant", VARIANTS)
SIDES = ("network", "discriminator")


@every_variant
def test_a_resumed_training_gives_the_same_bits(variant: str) -> None:
    straight, first, second = (make(**VARIANTS[variant]) for _ in range(3))
    train(straight, range(6), batch())
    optimizers = first.optimizers()
    train(first, range(3), batch(), optimizers)
    train(second, range(3, 6), batch(), continued(first, optimizers, second))
    assert same_state(straight, second)
    assert not same_state(straight, first)


@pytest.mark.parametrize("side", SIDES)
def test_a_weight_that_is_not_finite_stops_before_either_side_steps(side: str) -> None:
    model = make()
    with torch.no_grad():
        next(iter(getattr(model, side).parameters())).view(-1)[0] = torch.inf
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFinite, match=r"is (nan|inf)"):
        train(model, range(1), batch())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert all(p.requires_grad for p in model.discriminator.parameters())


def test_the_generators_step_leaves_the_discriminator_alone() -> None:
    model = make()
    step = TrainingStep(batch(), model.optimizers(), generator(0))
    microbatch = model.microbatch(step)
    before = copy.deepcopy(model.discriminator.state_dict())
    loss, metrics = model.generator_loss(microbatch.twins())
    step.descend(loss, "generator", 10.0)
    assert not any(value.requires_grad for value in metrics.values())
    assert all(p.grad is not None and p.grad.any() for p in model.network.parameters() if p.ndim > 1)
    assert all(p.grad is None and p.requires_grad for p in model.discriminator.parameters())
    now = model.discriminator.state_dict()
    assert all(torch.equal(now[k], before[k]) for k in now)


@pytest.mark.parametrize("side", SIDES)
def test_each_side_has_its_own_learning(side: str) -> None:
    names = dict(zip(SIDES, ("generator_learning", "discriminator_learning"), strict=True))
    still = make(**{names[side]: SideConfig(learning_rate=0.0, weight_decay=0.0)})
    before = copy.deepcopy(still.state_dict())
    train(still, range(2), batch())
    changed = {k.split(".")[0] for k, v in still.state_dict().items() if not torch.equal(v, before[k])} & set(SIDES)
    assert changed == set(SIDES) - {side}


@pytest.mark.parametrize("steps", [1, 4])
def test_the_discriminator_takes_its_steps_each_on_windows_of_its_own(steps: int) -> None:
    model, rows = make(discriminator_steps=steps, batch_size=4), []
    assert model.batch_size == 4 * steps
    optimizers = model.optimizers()
    model.network.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[1].clone()))
    train(model, range(1), batch((8,) * model.batch_size), optimizers)
    counts = {name: {int(s["step"]) for s in o.state.values()} for name, o in optimizers.items()}
    assert counts == {"discriminator": {steps}, "generator": {1}}
    assert [len(r) for r in rows] == [4] * (steps + 1)
    starts = torch.stack([r[:, 0] for r in rows])
    assert torch.equal(starts[-1], starts[-2][[0, 1, 0, 1]]) and len(starts[:-1].flatten(1).unique(dim=0)) == steps


def test_between_two_games_the_generator_minimises_its_energy_score_alone() -> None:
    model = make(adversarial_interval=3, discriminator_steps=2)
    optimizers, data = model.optimizers(), batch((8,) * 32)
    train(model, range(1), data, optimizers)
    judge, rows = copy.deepcopy(model.discriminator.state_dict()), []
    model.network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    for step in (1, 2):
        model.objective = replace(model.objective, generator=lambda real, fake: fake / 0)  # stops who computes it
        assert set(train(model, range(step, step + 1), data, optimizers)) == {
            "energy_score", "variety", "generator_grad_norm"}
    assert rows == [16, 16]  # of the last microbatch, each condition of its first half twice
    assert all(torch.equal(now, judge[key]) for key, now in model.discriminator.state_dict().items())
    with pytest.raises(NonFinite):
        train(model, range(3, 4), data, optimizers)
    counts = {name: {int(s["step"]) for s in o.state.values()} for name, o in optimizers.items()}
    assert counts == {"discriminator": {4}, "generator": {3}}


def levels(rows: int = 64) -> Batch:
    """All entries of a trajectory are one number, -0.5 or 0.5 in normalised units, and it is not known which."""
    a = (torch.arange(rows) % 2 - 0.5)[:, None, None].expand(-1, 8, 5)
    return Batch(torch.arange(5.0) + a * torch.arange(1.0, 6.0), torch.ones(rows, 8, 5, dtype=torch.bool))


def test_it_learns_what_it_is_trained_on() -> None:
    """Two modes, and both of them: nothing here leads to either but the game."""
    side = SideConfig(learning_rate=3e-3)
    model = make(conditioning=ConditionMix(start=0, goal=0), ema=0.95, energy_score=0.0, generator_learning=side,
                 discriminator_learning=side, discriminator=replace(JUDGE, multipliers=(1,)))
    train(model, range(150), levels(16))
    z = model.normalizer.normalize(model.sample(Condition.empty(SPEC), 200, seed=0)[0])
    level = z.mean((1, 2))
    assert ((level.abs() - 0.5).abs() < 0.2).float().mean() > 0.75 and z.std((1, 2)).mean() < 0.2
    assert 0.25 < (level > 0).float().mean() < 0.75
    data, noise = levels(200).x_BHD, model.normalizer.unnormalize(torch.randn(200, 8, 5, generator=generator(1)) / 2)
    free = Condition.empty(SPEC, 200)
    seen, strange = (model.ood_score(x, free, range(200)) for x in (data, noise))
    assert seen.mean() < 1 and strange.mean() > seen.mean() + 0.1


def test_the_real_logit_follows_that_of_data() -> None:
    model = make(discriminator_learning=SideConfig(learning_rate=0.0), conditioning=ConditionMix(start=0, goal=0))
    data = batch((8,) * 16)
    nothing = torch.zeros_like(data.mask_BHD)
    with torch.no_grad():
        logit = model.discriminator(model.normalizer.normalize(data.x_BHD), torch.zeros_like(data.x_BHD), nothing,
                                    torch.zeros(1)).patch_RH.mean()
    train(model, range(3), data)
    torch.testing.assert_close(model.real_logit, logit * (1 - (1 - AVERAGE_WEIGHT) ** 3))


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("name", REGULARISERS)
def test_a_penalty_counts_by_its_weight(name: str, weight: float) -> None:
    """Through the step of the optimiser: the gradient's norm is that of the weighted sum."""
    norms = {w: train(make(penalties={name: w}), range(1), batch())["discriminator_grad_norm"] for w in (weight, 0.0)}
    assert torch.equal(norms[weight], norms[0.0]) == (weight == 0)
