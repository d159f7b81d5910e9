"""What generators do alike: rows that depend on their own seed only, contexts, and what counts as a guide."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from contract import SPEC
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gentraj.models.sampling import Plugin, Preference, as_plugins, placed, sample_batch
from gentraj.networks.embedding import MAX_ROWS
from gentraj.randomness import Noise, RowNoise, fold, unfold
from gentraj.trajectory import Condition, SamplingOptions, TrajectorySpec

SHAPE = SPEC.horizon, SPEC.dim


def by_seed(rows: Condition, noise: Noise) -> Tensor:
    """A generator that draws its seed, and adds what is known of the first entry."""
    assert isinstance(noise, RowNoise) and len(noise) == rows.batch <= MAX_ROWS
    level = torch.tensor([s % 9973 for s in noise.seeds]) + rows.values_BHD[:, 0, 0]
    return level[:, None, None].expand(-1, *SHAPE)


def sampled(condition: Condition, number: int, seed: int | Sequence[int], plugins: Sequence[Plugin] = (),
            sample_rows: Callable[[Condition, Noise], Tensor] = by_seed) -> Tensor:
    return sample_batch(SPEC, condition, number, seed, plugins, lambda rows, noise, _: sample_rows(rows, noise).clone())


@given(batch=st.integers(1, 4), number=st.integers(1, 4), seed=st.integers(0, 2**62))
def test_one_seed_is_unfolded_to_the_rows_and_many_are_the_rows_own(batch: int, number: int, seed: int) -> None:
    condition = Condition.empty(SPEC, batch)
    x = sampled(condition, number, seed)
    assert x.shape == (batch, number, *SHAPE)
    seeds = unfold(batch * number, seed)
    assert x[..., 0, 0].flatten().tolist() == [s % 9973 for s in seeds]
    assert torch.equal(x, sampled(condition, number, seeds))


def test_the_samples_of_a_condition_are_its_own() -> None:
    condition = Condition.empty(SPEC, 3).with_obs(0, torch.tensor([[1e5, 0, 0], [2e5, 0, 0], [3e5, 0, 0]]))
    x = sampled(condition, 2, [1, 2, 3, 4, 5, 6])
    assert x[..., 0, 0].tolist() == [[1e5 + 1, 1e5 + 2], [2e5 + 3, 2e5 + 4], [3e5 + 5, 3e5 + 6]]


@pytest.mark.parametrize("number", [MAX_ROWS - 1, MAX_ROWS + 1, 3 * MAX_ROWS])
def test_many_rows_are_drawn_in_parts_and_alike(number: int) -> None:
    assert torch.equal(sampled(Condition.empty(SPEC), number, 7)[0, -3:, 0, 0],
                       torch.tensor([s % 9973 for s in unfold(number, 7)[-3:]]).float())


class Reject(Plugin):
    """Rejects trajectories of odd seeds, or all of them, while `attempt` is at most `times`."""

    def __init__(self, times: int, only_odd: bool = True):
        self.times, self.only_odd, self.asked = times, only_odd, []

    def rejects(self, x_RHD: Tensor, attempt: int) -> Tensor:
        self.asked.append((attempt, len(x_RHD)))
        return ((x_RHD[:, 0, 0] % 2 == 1) | (not self.only_odd)) & (attempt <= self.times)


def test_what_is_rejected_is_drawn_again_with_another_seed_and_nothing_else_is() -> None:
    seeds, picky = [2, 3, 4, 5], Reject(times=50)
    x = sampled(Condition.empty(SPEC, 4), 1, seeds, [picky])[:, 0, 0, 0]
    expected = [next(s for s in (seed, *(fold(seed, k) for k in range(1, 50))) if s % 9973 % 2 == 0) for seed in seeds]
    assert x.tolist() == [s % 9973 for s in expected]
    assert picky.asked[:2] == [(1, 4), (2, 2)]  # only those that were drawn again are asked about again


@pytest.mark.parametrize(("call", "message"), [
    (lambda: sampled(Condition.empty(TrajectorySpec(3, 2, 16)), 1, 0),
     "horizon=16.*the model's trajectories are.*horizon=8"),
    (lambda: sampled(Condition.empty(SPEC, 2), 3, [1, 2]), "2 seeds were given for 6 samples; give one for each"),
    (lambda: SamplingOptions(temperature=-0.5), "temperature is -0.5; "),
])
def test_what_cannot_be_drawn_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", [np.zeros(3), torch.zeros(3), None])
def test_samples_are_of_a_condition(given: object) -> None:
    with pytest.raises(TypeError, match="a Condition is expected"):
        placed(given, torch.device("cpu"))  # pyright: ignore[reportArgumentType]


def test_a_guide_is_an_energy_a_plugin_or_several() -> None:
    def left(x: Tensor) -> Tensor:
        return -x[..., 0].mean(1)

    plugin = Reject(0)
    assert as_plugins(None, Preference) == [] == as_plugins([], Preference)
    assert as_plugins(plugin, Preference) == [plugin]
    made = as_plugins([plugin, left], Preference)
    assert made[0] is plugin and isinstance(made[1], Preference) and made[1].guide is left
    assert isinstance(as_plugins(left, Preference)[0], Preference)


@pytest.mark.parametrize("guide", ["left", 3, [None], [Reject(0), "left"], torch.ones(3)])
def test_what_is_no_guide_is_refused(guide: object) -> None:
    with pytest.raises(TypeError, match=r"a guide is .*; a function \(trajectories -> scores\) or a plug-in is"):
        as_plugins(guide, Preference)  # type: ignore[arg-type]
