"""A guide of a GAN: the best of several candidates, and plug-ins that finish trajectories."""

from dataclasses import replace

import pytest
import torch
from contract import SPEC
from tiny_gan import make
from torch import Tensor

from gentraj.constraints import TOLERANCE, Blocks, Box, Constraints
from gentraj.diffusion.guidance import ClassifierFree, Constrained, Guided, NoisyValue
from gentraj.gan import GANConfig
from gentraj.models.conditional import preferred
from gentraj.models.sampling import Checks, Plugin, Preference, SampledRows
from gentraj.randomness import RowNoise, unfold
from gentraj.trajectory import Condition

STARTS = Condition.empty(SPEC, 3).with_obs(0, torch.arange(9.0).view(3, 3) / 3)


def left(x: Tensor) -> Tensor:
    """Prefers trajectories whose first coordinate is small."""
    return -x[..., 0].mean(1)


def near(x: Tensor) -> Tensor:
    """Prefers trajectories that are near 0.5, somewhere."""
    return -(x - 0.5).abs().amin(1).sum(1)


GUIDES = {"not smooth": near, "guided": Guided(left, scale=3.0), "flat": Guided(left, scale=0.0)}
ARENA = Constraints(SPEC, {"arena": Box(-1.5, (1.7, 1.7), (0, 1)), "pillar": Blocks((0.3, 0.4), (0.9, 0.9), (0, 1))})
every_guide = pytest.mark.parametrize("guide", GUIDES)


def score(guide: object, x: Tensor) -> Tensor:
    """(B, N) of samples (B, N, H, D)."""
    plugin = guide if isinstance(guide, Plugin) else Preference(guide)  # type: ignore[arg-type]
    scores = plugin.prefer(x.flatten(0, 1))
    assert scores is not None
    return scores.view(x.shape[:2])


@every_guide
def test_the_best_of_the_candidates_is_taken(guide: str) -> None:
    """Candidates are samples with the row's seed and with seeds folded from it; of equal ones the first is chosen."""
    model, seeds, starts = make(moved=True, best_of=5), list(range(16)), STARTS.padded(13)
    several = zip(*((seed, *unfold(4, seed, 1)) for seed in seeds), strict=True)
    candidates = torch.cat([model.sample(starts, seed=each) for each in several], 1)
    best = score(GUIDES[guide], candidates).argmax(1)
    found = model.sample(starts, seed=seeds, guide=GUIDES[guide])[:, 0]
    assert torch.equal(found, candidates[range(16), best])
    assert (best > 0).any() or guide == "flat"


def test_the_scores_of_any_plug_in_are_to_be_finite() -> None:
    class Broken(Plugin):
        def prefer(self, x_RHD: Tensor) -> Tensor:
            return torch.nan * x_RHD[:, 0, 0]

    with pytest.raises(ValueError, match="score is not finite in"):
        make(moved=True, best_of=2).sample(STARTS, guide=Broken(), seed=0)


@every_guide
@pytest.mark.parametrize("changes", [{"best_of": 1}, {"best_of": 7}], ids=str)
def test_one_candidate_or_a_flat_guide_changes_no_bit(guide: str, changes: dict[str, int]) -> None:
    model = make(moved=True, **changes)
    same = torch.equal(model.sample(STARTS, 2, guide=GUIDES[guide], seed=0), model.sample(STARTS, 2, seed=0))
    assert same == (guide == "flat" or changes["best_of"] == 1)


def test_a_sample_with_a_guide_does_not_depend_on_the_others_nor_on_how_many_there_are() -> None:
    model = make(moved=True, best_of=3)
    together = model.sample(STARTS[:1], 5, seed=[3, 1, 4, 1, 5], guide=left)
    torch.testing.assert_close(model.sample(STARTS[:1], seed=[4], guide=left)[:, 0], together[:, 2])
    assert torch.equal(together[:, 1], together[:, 3])


def test_several_guides_add_up() -> None:
    model = make(moved=True, best_of=6)
    both = model.sample(STARTS, 2, guide=[Guided(left, 2.0), Guided(near, 0.5)], seed=0)
    assert torch.equal(both, model.sample(STARTS, 2, guide=lambda x: 2 * left(x) + 0.5 * near(x), seed=0))


class Spoil(Plugin):
    """Finishes a trajectory by moving all of it, what is known too."""

    def finish(self, x_RHD: Tensor, sampling: SampledRows) -> Tensor:
        assert len(x_RHD) == sampling.condition.batch
        return x_RHD + 1


def test_plugins_finish_trajectories_and_what_is_known_stays() -> None:
    model, known = make(moved=True), STARTS.mask_BHD
    x, plain = (model.sample(STARTS, guide=guide, seed=0)[:, 0] for guide in (Spoil(), None))
    assert torch.equal(x[known], plain[known]) and torch.equal(x[~known], plain[~known] + 1)


def test_constraints_hold_with_and_without_an_energy() -> None:
    """For the model as for diffusion, through the same plug-in."""
    model = make(moved=True)
    condition = Condition.empty(SPEC, 3).with_obs(0, torch.tensor([-1.0, 0.1, 0.3]))
    assert not ARENA.certificate(model.sample(condition, 8, seed=0)).feasible.all()
    for guide in (Constrained(ARENA), [Guided(left), Constrained(ARENA)]):
        assert ARENA.certificate(model.sample(condition, 8, guide=guide, seed=0)).worst.max() <= TOLERANCE


@pytest.mark.parametrize("plugin", [ClassifierFree(1.0), NoisyValue(lambda x, noise_R: left(x), 1.0)],
                         ids=lambda plugin: type(plugin).__name__)
def test_a_plugin_that_needs_a_denoiser_is_refused_by_name_before_anything_is_drawn(plugin: Plugin) -> None:
    model = make()
    for guide in (plugin, [Guided(left), plugin]):
        with pytest.raises(ValueError, match=f"{type(plugin).__name__} changes what a model denoises, and") as error:
            model.sample(STARTS, guide=guide, seed=0)
        assert "\n" not in str(error.value)
    assert model.network_calls == 0


def test_a_guide_that_gives_no_score_for_each_trajectory_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"the guide returned shape \(\) for trajectories of shape") as error:
        make(moved=True, best_of=2).sample(STARTS, guide=lambda x: x.sum(), seed=0)
    assert "\n" not in str(error.value)


def test_the_best_of_16_is_the_extreme_of_16_normal_numbers() -> None:
    """The mean of their minimum is -1.766 if candidates are independent, within a row and between rows."""
    rows, config = Condition.empty(SPEC, 200), replace(GANConfig(), best_of=16)
    x = preferred(lambda z, rows: z, rows, RowNoise(range(200)), 1.0, [Preference(lambda x: -x[:, 0, 0])], config,
                  Checks())
    assert x[:, 0, 0].mean().item() == pytest.approx(-1.766, abs=0.15)
