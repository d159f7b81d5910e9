"""What a batch says beside its windows, against the definitions written out step by step."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from some_episodes import any_lengths, some

from gentraj.data import CONTEXTS, ContextConfig, DataError, Episodes, Windows
from gentraj.data.windows import MAX_TASKS, Kind, context_width, return_quantile
from gentraj.trajectory import TrajectorySpec

BAD_TASKS = (0.5, -1, MAX_TASKS)


def rich(lengths: list[int], **changes: object) -> Episodes:
    """Episodes that have what every kind of context needs; the task is the episode's number, from 0 to 2."""
    e = replace(some(lengths, goals="joined"), reward=np.random.default_rng(1).normal(size=sum(lengths)))
    task = np.repeat(np.arange(len(lengths)) % 3, np.array(lengths) + 1)[:, None]
    return replace(e, **({"extras": {**e.extras, "task": task}} | changes))


def contexts(e: Episodes, *kinds: Kind, discount: float = 0.99, horizon: int = 4, stride: int = 1) -> np.ndarray:
    """Returns the contexts of the windows that start at each step."""
    windows = Windows(e, TrajectorySpec(3, 2, horizon, stride), ContextConfig(kinds, discount))
    return windows.gather(np.arange(len(windows))).context_BC.numpy()


def per_step(e: Episodes, value: Callable[[Episodes, int], object]) -> np.ndarray:
    """`value(episode, t)` of every step."""
    return np.array([value(one, t) for one in e for t in range(len(one.act))])


@given(any_lengths, st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_return_sums_the_discounted_rewards_up_to_the_end_of_the_episode(lengths, discount):
    e = rich(lengths)
    expected = per_step(e, lambda one, t: [sum(discount**k * r for k, r in enumerate(one.reward[t:].tolist()))])
    np.testing.assert_allclose(contexts(e, "return", discount=discount), expected, rtol=1e-5, atol=1e-6)


@given(any_lengths, st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_the_return_to_aim_at_is_a_quantile_of_whole_episodes(lengths, quantile):
    e, config = rich(lengths), ContextConfig(("return",), discount=0.9)
    returns = [e.reward[start : start + T] @ 0.9 ** np.arange(T) for start, T in zip(e.starts, e.lengths, strict=True)]
    assert return_quantile(e, config, quantile) == pytest.approx(np.quantile(returns, quantile), abs=1e-5)


@given(any_lengths, st.integers(1, 9), st.integers(1, 3))
def test_a_goal_is_where_the_episode_was_sent_else_where_the_window_ends(lengths, horizon, stride):
    sent = rich(lengths)
    unsent = replace(sent, extras={})
    given_goal = per_step(sent, lambda one, t: one.extras["goal"][t])
    reached = per_step(sent, lambda one, t: one.obs[t : t + (horizon - 1) * stride + 1 : stride][-1, :2])
    assert np.array_equal(contexts(sent, "goal", horizon=horizon, stride=stride), given_goal)
    assert np.array_equal(contexts(unsent, "goal", horizon=horizon, stride=stride), reached)


@given(any_lengths)
def test_a_task_is_the_one_hot_row_of_its_number(lengths):
    e = rich(lengths)
    one_hot = contexts(e, "task")
    assert one_hot.shape == (e.num_steps, min(len(lengths), 3))
    assert np.array_equal(one_hot, np.eye(one_hot.shape[1])[per_step(e, lambda one, t: int(one.extras["task"][t, 0]))])


# -- what holds for every kind


def test_kinds_lie_side_by_side_in_the_order_given():
    e = rich([5, 6])
    assert list(CONTEXTS) == list(get_args(Kind))
    one = {kind: contexts(e, kind) for kind in get_args(Kind)}
    for order in (("task", "return", "goal"), ("goal", "task", "return")):
        assert np.array_equal(contexts(e, *order), np.concatenate([one[kind] for kind in order], 1))
        assert context_width(e, ContextConfig(order)) == sum(c.shape[1] for c in one.values())


@given(any_lengths, st.integers(1, 9), st.integers(1, 3), st.sampled_from(["goal", "task"]))
def test_a_window_conditioned_on_a_goal_ends_where_the_goal_changes(lengths, horizon, stride, kind: Kind):
    sent = np.random.default_rng(len(lengths)).integers(0, 3, (sum(lengths) + len(lengths), 1))
    sent = sent.repeat(2, 1) if kind == "goal" else sent
    e, spec = rich(lengths, extras={kind: sent}), TrajectorySpec(3, 2, horizon, stride)
    batch = Windows(e, spec, ContextConfig((kind,))).gather(np.arange(e.num_steps))
    plain, start = Windows(e, spec).gather(np.arange(e.num_steps)), 0
    for one in e:
        for t in range(len(one.act)):
            same = [k for k in range(t, len(one.act)) if (one.extras[kind][t : k + 1] == one.extras[kind][t]).all()]
            rows, steps = t + stride * np.arange(horizon), len(same)
            assert batch.mask_BHD[start, :, 0].tolist() == (rows <= t + steps).tolist()
            assert batch.mask_BHD[start, :, -1].tolist() == (rows < t + steps).tolist()
            earned = sum(float(one.reward[k]) for k in same if k < t + horizon * stride)
            assert batch.reward_BH[start].sum().item() == pytest.approx(earned, rel=1e-4, abs=1e-5)
            start += 1
    assert torch.equal(batch.x_BHD, plain.x_BHD * batch.mask_BHD)


# -- what is refused


@pytest.mark.parametrize(("kind", "changes", "message"), [
    ("goal", {"extras": {}, "goal_dims": ()}, r"dataset: the context 'goal' needs extras\['goal'\], or goal_dims"),
    ("task", {"extras": {}}, r"dataset: the context 'task' needs extras\['task'\].*has none"),
    ("task", {"extras": {"task": np.zeros((7, 2))}}, "dataset: episode 0, step 0: task is .0. 0..; one whole number"),
    *[("task", {"extras": {"task": np.array([[0], [0], [0], [0], [0], [bad], [1]])}},
       rf"dataset: episode 1, step 2: task is \[.*{bad}.*\]; one whole number from 0 to 1023") for bad in BAD_TASKS],
])
def test_data_that_lack_a_context_are_refused_before_training(kind: Kind, changes: dict, message: str):
    e, config = rich([2, 3], **changes), ContextConfig((kind,))
    for attempt in (lambda: Windows(e, TrajectorySpec(3, 2, 4), config), lambda: context_width(e, config)):
        with pytest.raises(DataError, match=message) as error:
            attempt()
        assert "\n" not in str(error.value)
