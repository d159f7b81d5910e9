from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from some_episodes import any_lengths, some

from gentraj.data import ContextConfig, Episodes, Windows
from gentraj.data.windows import EARLY_STEPS, repeat_last
from gentraj.trajectory import TrajectorySpec


def numbered(lengths: list[int]) -> Episodes:
    """obs is (episode, t), act is (episode, t): every entry says where it belongs. From 1 on, for padding is 0."""
    obs = np.concatenate([[(e + 1, t + 1) for t in range(T + 1)] for e, T in enumerate(lengths)])
    act = np.concatenate([[(e + 1, t + 1) for t in range(T)] for e, T in enumerate(lengths)])
    S = len(act)
    return Episodes(obs, act, np.zeros(S), np.zeros(S, bool), np.zeros(S, bool), np.array(lengths))


@given(any_lengths, st.integers(1, 9), st.integers(1, 3))
def test_windows_hold_every_step_never_cross_an_episode_and_mask_what_is_not_real(lengths, horizon, stride):
    e = numbered(lengths)
    windows = Windows(e, TrajectorySpec(2, 2, horizon, stride))
    batch = windows.gather(np.arange(len(windows)))
    obs, act = batch.x_BHD[..., :2], batch.x_BHD[..., 2:]
    real_obs, real_act = batch.mask_BHD[..., 0], batch.mask_BHD[..., 2]
    starts = np.concatenate([[(i + 1, t + 1) for t in range(T)] for i, T in enumerate(lengths)])

    assert {tuple(row) for row in act[real_act].int().tolist()} == {tuple(row) for row in e.act.astype(int)}
    episode = torch.from_numpy(starts[:, :1]).float()
    t = torch.from_numpy(starts[:, 1:]) + stride * torch.arange(horizon)
    last = torch.tensor(lengths)[starts[:, 0] - 1][:, None]
    assert torch.equal(real_obs, t <= last + 1)
    assert torch.equal(real_act, t <= last)
    for values, real in ((obs, real_obs), (act, real_act)):  # the right numbers where real, zeros where not
        assert torch.equal(values[..., 0], episode * real)
        assert torch.equal(values[..., 1], t * real)
    assert batch.mask_BHD.sum() == 2 * (real_obs.sum() + real_act.sum())
    assert batch.x_BHD.dtype == torch.float32


def test_a_batch_is_a_function_of_seed_and_step_alone():
    windows = Windows(some([20, 30]), TrajectorySpec(3, 2, 4))
    first = windows.batch(7, 3, 16)
    torch.manual_seed(1)
    np.random.default_rng(1).random(9)
    windows.batch(8, 3, 16)
    again, other_step, other_seed = windows.batch(7, 3, 16), windows.batch(8, 3, 16), windows.batch(7, 4, 16)
    assert torch.equal(first.x_BHD, again.x_BHD)
    assert not torch.equal(first.x_BHD, other_step.x_BHD)
    assert not torch.equal(first.x_BHD, other_seed.x_BHD)


def test_the_least_fraction_of_the_windows_begins_early_and_each_episode_keeps_its_share():
    least, lengths, size = 0.5, [10, 200], 40_000
    own = (10 + EARLY_STEPS) / sum(lengths)
    share = (least - own) / (1 - own)  # of the windows is moved
    starts = Windows(numbered(lengths), TrajectorySpec(2, 0, 1), early=least).batch(0, 0, size).x_BHD[:, 0].int()
    found = torch.zeros(2, max(lengths)).index_put_(tuple((starts - 1).long().T), torch.ones(size), accumulate=True)
    expected = torch.zeros(2, max(lengths))
    for episode, length in enumerate(lengths):
        expected[episode, :length] = (1 - share) / sum(lengths)
        expected[episode, : min(length, EARLY_STEPS)] += share * length / sum(lengths) / min(length, EARLY_STEPS)
    assert (found[expected == 0] == 0).all()
    assert ((found - size * expected).abs() <= 5 * (size * expected).sqrt()).all()
    assert expected[0].sum() + expected[1, :EARLY_STEPS].sum() == pytest.approx(least)


@given(any_lengths, st.integers(1, 9), st.integers(1, 3))
def test_every_reward_is_earned_once_and_only_a_true_end_is_terminal(lengths, horizon, stride):
    e = some(lengths)
    batch = Windows(e, TrajectorySpec(e.obs_dim, e.act_dim, horizon, stride)).gather(np.arange(e.num_steps))
    first, real = e.starts.tolist(), batch.mask_BHD[..., 0]
    for i, start in enumerate(first):
        ends = start + int(e.lengths[i])
        for row in range(-(-(ends - start) // stride)):
            if row < horizon:
                expected = e.reward[start + row * stride : min(start + (row + 1) * stride, ends)].sum()
                assert batch.reward_BH[start, row] == pytest.approx(expected, rel=1e-4, abs=1e-30)
        for at in range(start, ends):
            row = -(-(ends - at) // stride)  # the first at or after the end
            expected = [row] if row < horizon and e.terminated[ends - 1] else []
            assert batch.terminal_BH[at].nonzero()[:, 0].tolist() == expected
    assert not batch.reward_BH[~real].any()


@given(any_lengths)
def test_a_window_says_of_which_episode_it_is_or_which_part_of_it_between_two_goals(lengths):
    e, spec = some(lengths), TrajectorySpec(3, 2, 2)
    every = np.arange(e.num_steps)
    numbers = Windows(e, spec).gather(every).episode_B.tolist()
    assert numbers == np.repeat(np.arange(len(lengths)), lengths).tolist()

    sent = np.concatenate([np.arange(T + 1) // 2 for T in lengths])[:, None]  # elsewhere after every other step
    found = Windows(replace(e, extras={"goal": sent}), spec, ContextConfig(("goal",))).gather(every).episode_B
    parts = [(i, t // 2) for i, T in enumerate(lengths) for t in range(T)]
    assert found.tolist() == [sorted(set(parts)).index(part) for part in parts]


def test_padding_is_the_last_real_value_of_each_entry() -> None:
    batch = Windows(numbered([3, 1]), TrajectorySpec(2, 2, 5)).gather(np.array([1, 3]))
    filled = repeat_last(batch)
    assert filled[..., 1].tolist() == [[2, 3, 4, 4, 4], [1, 2, 2, 2, 2]]  # observations, one more than actions
    assert filled[..., 3].tolist() == [[2, 3, 3, 3, 3], [1, 1, 1, 1, 1]]
    assert filled[..., [0, 2]].tolist() == [[[1, 1]] * 5, [[2, 2]] * 5]
    assert torch.equal(repeat_last(batch, 2), filled[:, :2])
