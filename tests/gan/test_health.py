"""Vital signs with known answers, and warnings that name the symptom and a remedy that exists."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from contract import SPEC, batch
from tiny_gan import continued, make, train
from torch import Tensor

from gentraj.gan import conditional_gan
from gentraj.gan.conditional_gan import (
    FIRST_WARNING_STEP,
    SETTLED_STEP,
    SYMPTOMS,
    GANWarning,
    Health,
    Symptom,
    vital_signs,
)
from gentraj.gan.objectives import SideConfig
from gentraj.trajectory import Condition

every_symptom = pytest.mark.parametrize("symptom", SYMPTOMS, ids=[s.metric for s in SYMPTOMS])
WORDS = ("spread", "duplicates", "coverage")
HEALTHY = {s.metric: min((s.low + s.high) / 2, s.low + 1) for s in SYMPTOMS}


def normal(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 8, 5, generator=torch.Generator().manual_seed(seed))


def signs(real: Tensor, fake: Tensor, free: Tensor | None = None) -> dict[str, float]:
    found = vital_signs(real, fake, torch.ones_like(real, dtype=torch.bool) if free is None else free)
    assert tuple(found) == WORDS
    return {name: value.item() for name, value in found.items()}


X, ROWS = normal(16), 16
KNOWN: dict[str, tuple[Tensor, dict[str, float]]] = {  # samples, and the signs beside X
    "the data": (X, {"spread": 1, "duplicates": 0, "coverage": 1}),
    "one sample": (X[:1].expand(ROWS, -1, -1), {"spread": 0, "duplicates": 1}),
    "three copies": (torch.cat([X[:3], X[:1], X[4:]]), {"duplicates": 2 / ROWS}),
    "twice as wide": (X.mean(0) + 2 * (X - X.mean(0)), {"spread": 2, "duplicates": 0}),
    "elsewhere": (X + 10, {"spread": 1, "duplicates": 0, "coverage": 0}),
}


@pytest.mark.parametrize("case", KNOWN)
def test_vital_signs_have_known_answers(case: str) -> None:
    fake, expected = KNOWN[case]
    found = signs(X, fake)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_coverage_is_the_share_of_data_that_have_a_sample_within_their_fifth_neighbour() -> None:
    """Data at 0, 1 .. 7 and 100: the radii are 5, 4, 3, 3, 3, 3, 4, 5 and 97; -3.5 is within one of them, -2.9 two."""
    real = torch.tensor([*range(8), 100.0])[:, None, None]
    assert signs(real, torch.full_like(real, -3.5))["coverage"] == pytest.approx(1 / 9)
    assert signs(real, torch.full_like(real, -2.9))["coverage"] == pytest.approx(2 / 9)
    assert signs(real, torch.full_like(real, 3.0))["coverage"] == 1


def test_only_free_entries_count() -> None:
    free = torch.rand(X.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    fake = normal(ROWS, 1)
    wild_X, wild_fake = (torch.where(free, x, 1e3 * normal(ROWS, i)) for i, x in enumerate((X, fake)))
    assert signs(wild_X, wild_fake, free) == pytest.approx(signs(X, fake, free), rel=1e-4)


def recorded(steps: int, changes: dict[str, float], subject: Health | None = None) -> list[str]:
    """Returns the warnings of `steps` steps with these metrics."""
    subject = Health() if subject is None else subject
    metrics = {name: torch.tensor(value) for name, value in (HEALTHY | changes).items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            subject.record(metrics)
    assert all(w.category is GANWarning for w in caught)
    return [str(w.message) for w in caught]


def ill(symptom: Symptom) -> float:
    return 0.44 * symptom.low if symptom.low > 0 else symptom.high * 1.005


@every_symptom
def test_a_symptom_is_named_once_after_the_game_has_settled(symptom: Symptom) -> None:
    subject = Health()
    assert recorded(SETTLED_STEP - 1, {symptom.metric: ill(symptom)}, subject) == [] == list(subject.symptoms())
    caught = recorded(50, {symptom.metric: ill(symptom)}, subject)
    assert len(caught) == 1 and caught[0].startswith(f"step {SETTLED_STEP} of the GAN: ") and "\n" not in caught[0]
    assert caught[0].endswith(symptom.message.format(value=ill(symptom)))
    assert list(subject.symptoms()) == [symptom.metric]


def test_a_slow_start_is_no_symptom() -> None:
    """The averages of a DiT, which ignores its noise at first, after 50 steps at a learning rate of 1e-4."""
    assert recorded(SETTLED_STEP - 1, {"variety": 0.02, "spread": 0.6, "coverage": 0.6, "generator_slope": 0.5}) == []


@pytest.mark.parametrize(("metric", "value"), [("spread", 0.0), ("spread", 1e6), ("duplicates", 1.0),
                                               ("generator_slope", 0.0), ("coverage", math.nan)])
def test_a_dead_or_collapsed_generator_is_named_at_once(metric: str, value: float) -> None:
    subject = Health()
    assert recorded(FIRST_WARNING_STEP - 1, {metric: value}, subject) == []
    caught = recorded(50, {metric: value}, subject)
    assert len(caught) == 1 and caught[0].startswith(f"step {FIRST_WARNING_STEP} of the GAN: ")


def test_one_bad_step_is_no_symptom_and_what_passes_is_over() -> None:
    subject = Health()
    recorded(SETTLED_STEP, {}, subject)
    assert recorded(1, {"spread": 0.0}, subject) == []
    assert len(recorded(200, {"spread": 0.0}, subject)) == 1
    recorded(200, {}, subject)
    assert not subject.symptoms()


def test_a_generator_that_does_not_learn_is_named_while_it_trains_and_when_it_samples(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 34: an untrained generator is no plan, and nobody may take it for one."""
    first, settled = 10, 20
    monkeypatch.setattr(conditional_gan, "FIRST_WARNING_STEP", first)
    monkeypatch.setattr(conditional_gan, "SETTLED_STEP", settled)
    model, loaded = make(generator_learning=SideConfig(learning_rate=0.0)), make()
    optimizers = model.optimizers()
    with pytest.warns(GANWarning, match=f"step {first} of the GAN: .*or the generator is not trained"):
        train(model, range(settled), batch((8,) * 16), optimizers)
    continued(model, optimizers, loaded)
    with pytest.warns(GANWarning, match=f"step {settled} of the GAN: ") as caught:
        loaded.sample(Condition.empty(SPEC), seed=0)
    found = {f"step {settled} of the GAN: {text}" for text in model.health.symptoms().values()}
    assert {str(w.message) for w in caught} == found
    loaded.sample(Condition.empty(SPEC), seed=0)  # warns only once, and a warning here would be an error


def collapsed(generate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Makes a generator whose noise is 0, so that all samples of a condition are equal."""
    return lambda network, z, t, values, known, context: generate(network, 0 * z, t, 0 * values, known & False, context)


def test_a_collapse_is_named_before_the_game_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_gan, "around_interpolation", collapsed(conditional_gan.around_interpolation))
    monkeypatch.setattr(conditional_gan, "FIRST_WARNING_STEP", 10)
    with pytest.warns(GANWarning, match="step 10 of the GAN: .*collapsed"):
        train(make(), range(10), batch((8,) * 16))
