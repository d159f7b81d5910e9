"""What every plug-in keeps, with one denoising a step and with two, however much signal is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from guided import SPEC, tiny
from oracle import normals

from gentraj.diffusion.guidance import ClassifierFree, Guided, NoisyValue
from gentraj.models.sampling import Plugin
from gentraj.networks.embedding import MIN_ROWS
from gentraj.trajectory import Condition, SamplingOptions

PLUGINS: dict[str, Callable[[], Plugin]] = {
    "Guided": lambda: Guided(lambda x: -(x[:, -1, :2] - 1).square().sum(-1)),
    "Guided, linear": lambda: Guided(lambda x: x.sum((1, 2))),
    "NoisyValue": lambda: NoisyValue(lambda x, noise_R: x.sum((1, 2)), 0.01),
    "ClassifierFree": lambda: ClassifierFree(1.5),
}


def known(rows: int) -> Condition:
    """Different starts and contexts, one goal."""
    condition = Condition.empty(SPEC, rows).with_obs(0, normals(50, 2)[:rows].float())
    condition = condition.with_obs(-1, torch.tensor([0.3]), dims=(1,))
    return replace(condition, context_BC=normals(50, 2, seed=3)[:rows].float())


@pytest.mark.parametrize("sampler", ["ddpm", "heun"])
@pytest.mark.parametrize("name", PLUGINS)
def test_known_entries_stay_and_rows_are_independent(name: str, sampler: str) -> None:
    model, plugin = tiny(sampler=sampler), PLUGINS[name]()
    condition, seeds = known(2 * MIN_ROWS), list(range(2 * MIN_ROWS))
    many = model.sample(condition, guide=plugin, seed=seeds)
    assert torch.isfinite(many).all() and not torch.equal(many, model.sample(condition, seed=seeds))
    assert torch.equal(many[:, 0][condition.mask_BHD], condition.values_BHD[condition.mask_BHD])
    few = model.sample(condition[:MIN_ROWS], guide=plugin, seed=seeds[:MIN_ROWS])
    torch.testing.assert_close(few, many[:MIN_ROWS], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["vp-cosine", "ve", "flow"])  # little signal at the end, all of it, and none
@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_works_with_and_without_signal_at_the_end(name: str, path: str) -> None:
    for levels in (None, 10):
        model = tiny(path=path, levels=levels, prediction="v", sampler="ddim")
        assert torch.isfinite(model.sample(known(2), guide=PLUGINS[name](),
                                           options=SamplingOptions(steps=2), seed=0)).all()


def test_plugins_work_together() -> None:
    names = "ClassifierFree", "NoisyValue", "Guided", "Guided, linear"
    guides = [PLUGINS[name]() for name in names]
    assert torch.isfinite(tiny().sample(known(3), guide=guides, seed=0)).all()
