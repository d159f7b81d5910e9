"""Held-out data: every transition is on one side, whole and with all that belongs to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from some_episodes import some

from gentraj.data import Episodes
from gentraj.data.splitting import FEWEST_PIECES, LONGEST_PIECE_STEPS, halves, hold_out

many_lengths = st.lists(st.integers(1, 60), min_size=1, max_size=30).filter(lambda lengths: sum(lengths) > 1)
shares, seeds = st.floats(1e-6, 0.9), st.integers(0, 2**62)


def transitions(e: Episodes) -> list[bytes]:
    """Each (obs, act, reward, next obs, terminated) and the extras of both observations; sorted."""
    row_S = np.arange(e.num_steps) + np.repeat(np.arange(len(e)), e.lengths)
    each = [e.obs[row_S], e.act, e.reward[:, None], e.obs[row_S + 1], e.terminated[:, None]]
    each += [x[rows] for _, x in sorted(e.extras.items()) for rows in (row_S, row_S + 1)]
    return sorted(row.tobytes() for row in np.concatenate(each, 1, dtype=np.float32))


def longest_piece(e: Episodes) -> int:
    return min(LONGEST_PIECE_STEPS, max(1, e.num_steps // FEWEST_PIECES))


@given(many_lengths, shares, seeds, st.sampled_from([(), ("qpos", "qvel")]))
def test_every_transition_is_on_exactly_one_side(lengths: list[int], share: float, seed: int,
                                                 extras: tuple[str, ...]) -> None:
    e = some(lengths, goals="within", extras=extras)
    kept, held = hold_out(e, share, seed)
    assert kept.num_steps >= 1 and held.num_steps >= 1
    assert sorted(transitions(kept) + transitions(held)) == transitions(e)
    for part in (kept, held):
        assert (part.goal_dims, part.obs_keys, part.env, part.name) == (e.goal_dims, e.obs_keys, e.env, e.name)
        last = np.cumsum(part.lengths) - 1
        assert (part.terminated | part.truncated)[last].all()  # a piece that goes on in the data is cut


@given(many_lengths, shares, seeds)
def test_the_share_is_met_to_within_one_piece(lengths: list[int], share: float, seed: int) -> None:
    e = some(lengths)
    kept, held = hold_out(e, share, seed)
    assert abs(held.num_steps - share * e.num_steps) <= longest_piece(e) + 1e-6
    assert max(kept.lengths.max(), held.lengths.max()) <= longest_piece(e)


@pytest.mark.parametrize(("steps", "piece"), [(2, 1), (30, 1), (2_000, 100), (30_500, LONGEST_PIECE_STEPS)])
def test_a_single_long_episode_is_cut(steps: int, piece: int) -> None:
    e = replace(some([steps]), terminated=np.arange(steps) == steps - 1)
    kept, held = hold_out(e, 0.1, 0)
    assert set(kept.lengths) | set(held.lengths) <= {piece, steps % piece or piece}
    assert kept.terminated.sum() + held.terminated.sum() == 1  # the one real end; all other pieces are cut
    assert kept.truncated.sum() + held.truncated.sum() >= len(kept) + len(held) - 1


@given(many_lengths)
def test_halves_share_no_episode_and_lack_none(lengths: list[int]) -> None:
    e = some(lengths)
    first, second = halves(e)
    if len(lengths) == 1:
        assert first == second == e
    else:
        assert transitions(e) == sorted(transitions(first) + transitions(second))
        assert 0 <= len(first) - len(second) <= 1


def test_of_a_single_step_nothing_can_be_held_out() -> None:
    with pytest.raises(ValueError, match=r"^tiny has a single step; nothing can be held out of it$"):
        hold_out(replace(some([1]), name="tiny"), 0.1, 0)
