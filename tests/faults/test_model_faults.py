"""FAULTS 24 and 29: statistics belong to the weights they were trained with, and a horizon fits or names those that do.

22 (padding), 31 (known entries) and 33 (reproducibility) are tests/diffusion/test_model.py.
"""

from pathlib import Path

import pytest
import torch
from tiny import tiny_episodes

from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks import TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.training import TrainingConfig, train
from gentraj.training.checkpoint import CheckpointError, load, module_tensors, restore_module
from gentraj.trajectory import TrajectorySpec

CONFIG = DiffusionConfig(network=TemporalUNetConfig(8, (1, 2)))


def model(normalizer: Normalizer, horizon: int = 8) -> Diffusion:
    return Diffusion(TrajectorySpec(2, 1, horizon), CONFIG, normalizer)


@pytest.mark.parametrize("buffer", ["normalizer.shift_D", "normalizer.scale_D"])
def test_24_weights_without_their_statistics_are_refused(buffer: str) -> None:
    one, tensors = model(Normalizer.identity(3)), module_tensors(model(Normalizer.identity(3)))
    del tensors[buffer]
    with pytest.raises(CheckpointError, match=f"the saved 'model' does not fit: {buffer} is missing"):
        restore_module(one, tensors)


def test_24_a_resumed_model_keeps_the_statistics_it_was_trained_with(tmp_path: Path) -> None:
    fitted = Normalizer.fit("limits", [tiny_episodes().obs, tiny_episodes().act])
    other = Normalizer(torch.full((3,), 5.0), torch.full((3,), 2.0))
    for normalizer, steps in ((fitted, 2), (other, 3)):
        part = model(normalizer)
        train({"model": part}, tiny_episodes(), TrainingConfig(steps=steps), tmp_path, meta={}, resume=steps == 3,
              progress=False)
    saved = load(tmp_path).components["model"]
    fitted = Normalizer.fit("limits", [tiny_episodes().obs, tiny_episodes().act])
    for key in ("shift_D", "scale_D"):
        assert torch.equal(saved[f"normalizer.{key}"], getattr(fitted, key))
        assert torch.equal(getattr(part.normalizer, key), getattr(fitted, key))


def test_29_a_horizon_that_does_not_fit_is_refused_before_any_training() -> None:
    with pytest.raises(ValueError, match=r"horizon 9 cannot be halved 1 times; use 8 or 10"):
        model(Normalizer.identity(3), horizon=9)
