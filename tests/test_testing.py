"""The contracts that users run their own classes through: whatever is registered keeps them, and a breach is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract import SPEC

from gentraj.diffusion.samplers import SAMPLERS, ddim
from gentraj.families import FAMILIES, MODELS
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.testing import check_model, check_sampler
from gentraj.trajectory import Condition

SMALL = ResidualMLPConfig(16, 1, 1)


def model(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = FAMILIES[name].with_network(SMALL)
    return MODELS.made_of(config)(SPEC, config, Normalizer(torch.arange(5.0), torch.arange(1.0, 6.0)), None)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_contract_of_a_model_and_is_left_as_it_was(name: str) -> None:
    made = model(name)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    check_model(made)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


@pytest.mark.filterwarnings("ignore:euler-maruyama is unstable")  # with 5 steps on the path ve
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_keeps_the_contract(name: str) -> None:
    check_sampler(SAMPLERS[name])


def test_a_broken_promise_is_named() -> None:
    made = model("gaussian")
    sample = made.sample

    class Wrong:
        spec, optimizers, update = SPEC, made.optimizers, made.update

        def sample(self, condition: Condition, num_samples: int = 1, **given: Any) -> torch.Tensor:
            return sample(condition, num_samples, **given) + 1e-3

    with pytest.raises(AssertionError, match="conditioned on the start changes the given entries; set them at the end"):
        check_model(Wrong())  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="noise is drawn with eta 0"):
        check_sampler(lambda *args, **given: ddim(*args, **{**given, "eta": 0.5}))  # type: ignore[misc]
