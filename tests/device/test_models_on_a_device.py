"""Every model samples, scores and learns on a GPU, whatever its network, its path and its sampler. A sample waits for
it once, and an update never."""

from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import pytest
import torch
from simulated_device import counted
from test_training_on_a_device import DEVICE, narrow

from gentraj import metrics
from gentraj.device import running_sum
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.denoiser import DENSITIES, PREDICTIONS, WEIGHTS
from gentraj.diffusion.guidance import Guided
from gentraj.diffusion.paths import GRIDS, PATHS
from gentraj.diffusion.samplers import SAMPLERS
from gentraj.distillation import STUDENTS, FewStep
from gentraj.families import FAMILIES, MODELS
from gentraj.gan import GANConfig
from gentraj.gan.objectives import OBJECTIVES, REGULARISERS
from gentraj.models.sampling import Preference
from gentraj.networks import NETWORKS
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, SupportsLogProb, SupportsOODScore, SupportsScore, TrajectorySpec

SPEC = TrajectorySpec(3, 2, 8)
FAMILY_AND_NETWORK = [(family, network) for family in FAMILIES for network in NETWORKS]
SAMPLING = list(zip(SAMPLERS, cycle(PATHS), cycle(GRIDS), strict=False))

LOSSES = list(zip(PREDICTIONS, cycle(WEIGHTS), cycle(DENSITIES), cycle(["vp-cosine", "flow", "edm"]), strict=False))
GAMES = list(zip(OBJECTIVES, cycle(REGULARISERS), strict=False))


def made(config: Any) -> Any:
    model = MODELS.made_of(config)(SPEC, config, Normalizer.identity(5), Normalizer.identity(2))
    return model.to(DEVICE)


def batch() -> Batch:
    x = torch.randn(8, 8, 5, generator=generator(0))
    real = torch.ones_like(x, dtype=torch.bool)
    real[0, 5:] = False
    return Batch(x, real, torch.randn(8, 2, generator=generator(1))).to(DEVICE)


def learn(model: Any) -> None:
    """Updates without a wait, the last of which with a guide; in the first, some things are made once."""
    windows, optimizers = batch(), model.optimizers()
    for step, guide in enumerate((None, None, lambda x_RHD: -x_RHD[..., 0].square().mean(1))):
        with counted() as waits:
            metrics = model.update(TrainingStep(windows, optimizers, generator(step), unread=[]), guide=guide)
        assert all(torch.isfinite(x) for x in metrics.values())
    assert not waits, f"waits:\n{waits}"


def use(model: Any) -> None:
    """Whatever a model can do with trajectories, a condition that is on the CPU, and a guide."""
    known = Condition.empty(SPEC, 2).with_obs(0, torch.zeros(3)).with_obs(-1, torch.ones(2, 1), dims=(1,))
    known = replace(known, context_BC=torch.zeros(2, 2))
    model.sample(known, 2, seed=0)  # makes what is made once
    for guide in (None, Guided(lambda x_RHD: -x_RHD[..., 0].square().mean(1))):
        with counted() as waits:
            x_BNHD = model.sample(known, 2, guide=guide, seed=0)
        assert len(waits) <= 1, f"waits:\n{waits}"
        assert x_BNHD.is_cuda and torch.isfinite(x_BNHD).all()
    x_BHD = x_BNHD[:, 0]
    if isinstance(model, SupportsOODScore):
        model.ood_score(x_BHD, known, [0, 1])
    if isinstance(model, SupportsLogProb):
        assert torch.isfinite(model.log_prob(x_BHD, known, steps=2, exact=False)).all()
    if isinstance(model, SupportsScore):
        model.score(x_BHD, known, 0.5)


@pytest.mark.parametrize(("family", "network"), FAMILY_AND_NETWORK)
def test_a_family_learns_and_is_used(family: str, network: str) -> None:
    model = made(narrow(FAMILIES[family].with_network(NETWORKS[network][0]())))
    learn(model)
    use(model)


@pytest.mark.parametrize("family", ["diffusion", "gan"])
def test_a_score_that_is_not_finite_is_found_when_the_sample_is_done(family: str) -> None:
    model = made(narrow(FAMILIES[family]))
    known = replace(Condition.empty(SPEC, 2), context_BC=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="score is not finite in"):
        model.sample(known, 2, guide=Preference(lambda x_RHD: torch.nan * x_RHD[:, 0, 0]), seed=0)


@pytest.mark.parametrize("method", list(STUDENTS))
def test_a_student_learns_and_is_used(method: str) -> None:
    config, _ = STUDENTS[method]
    model = made(narrow(config(teacher=replace(FAMILIES["diffusion"], levels=None), steps=1)))
    assert isinstance(model, FewStep)
    model.learn_from(made(model.distillation.teacher))
    learn(model)
    use(model)


@pytest.mark.filterwarnings("ignore:.*is unstable with these")
@pytest.mark.parametrize(("sampler", "path", "grid"), list(islice(cycle(SAMPLING), max(len(SAMPLERS), len(PATHS)))))
def test_every_sampler_path_and_grid_is_used(sampler: str, path: str, grid: str) -> None:
    network = NETWORKS["residualmlp"][0]()
    model = made(narrow(DiffusionConfig(network, path, None, sampler=sampler, grid=grid)))
    assert isinstance(model, Diffusion)
    learn(model)
    use(model)


@pytest.mark.parametrize(("prediction", "weight", "density", "path"), LOSSES)
def test_every_loss_of_diffusion_is_learned(prediction: str, weight: str, density: str, path: str) -> None:
    network = NETWORKS["residualmlp"][0]()
    learn(made(narrow(DiffusionConfig(network, path, None, prediction, weight, density))))


@pytest.mark.parametrize(("objective", "regulariser"), GAMES)
def test_every_game_is_played(objective: str, regulariser: str) -> None:
    config = GANConfig(NETWORKS["residualmlp"][0](), objective=objective, penalties={regulariser: 1.0})
    learn(made(narrow(config)))


def test_a_running_sum_is_that_of_the_cpu() -> None:
    x_RX = torch.tensor([[1.0, 2.0, 3.0], [4.0, torch.inf, 5.0]])
    assert torch.equal(running_sum(x_RX.to(DEVICE)).cpu(), x_RX.cumsum(1))


def test_sets_of_trajectories_are_measured() -> None:
    one, other = torch.randn(2, 40, 8, 5, generator=generator(0)).to(DEVICE)
    assert metrics.measure(one, other, seed=0).keys() >= {"precision", "frechet_distance"}
