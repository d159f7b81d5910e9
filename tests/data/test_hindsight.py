"""Goals in hindsight: which observations are drawn, and rewards that make values the lengths of shortest ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from some_episodes import any_lengths, some

from gentraj.agents.policies import POLICIES, PRESETS
from gentraj.agents.policies.critic import steps_to_go
from gentraj.agents.policies.scales import StateActionScales
from gentraj.data import ContextConfig, DataError, Episodes, HindsightConfig, HindsightWindows, Windows, windows_of
from gentraj.data.goals import Hindsight
from gentraj.trajectory import TrajectorySpec

DISCOUNT = 0.9


def grid_walks(side: int = 3, walks: int = 300, steps: int = 12) -> Episodes:
    """Random walks on a grid with a wall; an observation is the number of its cell."""
    rng = np.random.default_rng(0)
    cell = rng.integers(side * side, size=walks)
    seen = [cell]
    for _ in range(steps):
        dx, dy = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])[rng.integers(4, size=walks)].T
        x, y = (cell % side + dx).clip(0, side - 1), (cell // side + dy).clip(0, side - 1)
        through = (np.minimum(cell // side, y) == 1) & (cell // side != y) & (x < side - 1)
        cell = np.where(through, cell, x + side * y)
        seen.append(cell)
    return lined_up(np.stack(seen, 1))


def lined_up(cell_ET: np.ndarray) -> Episodes:
    E, T = cell_ET.shape
    never = np.zeros(E * (T - 1), bool)
    return Episodes(cell_ET.reshape(-1, 1), np.zeros((E * (T - 1), 1)), np.zeros(E * (T - 1)), never, never,
                    np.full(E, T - 1), goal_dims=(0,))


def slid(goal_dims: tuple[int, ...] = (0,)) -> Episodes:
    """A box that rests for ten steps, slides for five to another place, and so on."""
    place_N = np.concatenate([np.r_[np.full(10, before), np.linspace(before, before + 1, 6)[1:-1]]
                              for before in range(6)])
    never = np.zeros(len(place_N) - 1, bool)
    return Episodes(place_N[:, None], np.zeros((len(never), 1)), np.zeros(len(never)), never, never,
                    np.array([len(never)]), goal_dims=goal_dims)


def test_goals_at_rest_are_where_the_box_rests_next():
    config = HindsightConfig(at_rest=True, actor_steps=1.0)
    _, goal_B = Hindsight(config, slid()).draw(np.array([0, 9, 12, 14, 60, 78]), np.random.default_rng(0))
    assert goal_B.tolist() == [14, 14, 14, 28, 70, 83]  # and the last step where it does not rest again


def test_goals_at_rest_need_data_that_rest():
    with pytest.raises(DataError, match="never come to rest"):
        Hindsight(HindsightConfig(at_rest=True), lined_up(np.arange(20.0)[None]))


def test_goals_at_rest_need_data_that_say_what_a_goal_is():
    with pytest.raises(DataError, match="at_rest"):
        Hindsight(HindsightConfig(at_rest=True), slid(goal_dims=()))


def shortest(e: Episodes, cells: int) -> np.ndarray:
    """The fewest steps from each cell to each other one along recorded steps."""
    steps = np.full((cells, cells), np.inf)
    np.fill_diagonal(steps, 0)
    for one in e:
        steps[one.obs[:-1, 0].astype(int), one.obs[1:, 0].astype(int)] = 1
    np.fill_diagonal(steps, 0)
    for via in range(cells):
        steps = np.minimum(steps, steps[:, via, None] + steps[via])
    return steps


@pytest.mark.parametrize("n_step", [1, 2])
def test_the_best_values_of_drawn_goals_are_those_of_the_shortest_ways(n_step: int):
    e, cells = grid_walks(), 9
    config = replace(PRESETS["iql"][1], observations="raw")
    config = replace(config, critic=replace(config.critic, n_step=n_step, width=8, discount=DISCOUNT))
    contexts = ContextConfig(("goal",), goals=HindsightConfig(random=0.6))
    scales = StateActionScales.fit(e, contexts, config.observations, config.rewards)
    policy = POLICIES.made_of(config)(config, scales)
    t = policy.transition(HindsightWindows(e, policy.spec, contexts).batch(0, 0, 60_000), DISCOUNT)
    goal = scales.context.unnormalize(t.state_BS[:, 1:])
    assert torch.equal(goal, scales.context.unnormalize(t.next_BS[:, 1:]))
    here, there, after = (x.round().long() for x in (t.state_BS[:, 0], goal[:, 0], t.next_BS[:, 0]))
    value = torch.full((cells, cells), -1 / (1 - DISCOUNT))
    for _ in range(200):  # V(s, g) = max over the data of r + discount^n V(s', g)
        target = t.reward_B + t.discount_B * value[after, there]
        value = torch.full_like(value, -torch.inf).view(-1).scatter_reduce(0, here * cells + there, target, "amax")
        value = value.view(cells, cells)
    steps = torch.from_numpy(shortest(e, cells)).float()
    torch.testing.assert_close(value, -(1 - DISCOUNT**steps) / (1 - DISCOUNT), rtol=0, atol=1e-3)
    torch.testing.assert_close(steps_to_go(value, DISCOUNT), steps, rtol=0, atol=0.05)


@given(any_lengths, st.integers(1, 9), st.integers(1, 3))
def test_each_step_costs_one_until_the_goal_which_is_terminal(lengths: list[int], horizon: int, stride: int):
    e, spec = some(lengths), TrajectorySpec(3, 2, horizon, stride)
    contexts = ContextConfig(("goal",), goals=HindsightConfig(0.3, 0.4, 2.0, actor_random=0.5))
    windows, plain = HindsightWindows(e, spec, contexts), Windows(e, spec)
    starts = np.arange(e.num_steps)
    row = starts + np.repeat(np.arange(len(lengths)), lengths)
    goal, own = windows.goals.draw(row, np.random.default_rng(len(lengths)))
    batch = windows.gather(starts, np.stack([goal, own]))
    assert torch.equal(batch.x_BHD, plain.gather(starts).x_BHD)
    assert torch.equal(batch.mask_BHD, plain.gather(starts).mask_BHD)
    assert np.array_equal(batch.goal_BG, e.obs[goal])
    assert np.array_equal(batch.context_BC, e.obs[own])
    last = np.repeat(np.cumsum(np.array(lengths) + 1) - 1, lengths)
    reached = np.where((goal >= row) & (goal <= last), goal - row, 10**6)
    for b, steps in enumerate(np.minimum(reached, last - row)):
        costs = [-(min(steps, t + stride) - min(steps, t)) for t in spec.times]
        assert batch.reward_BH[b].tolist() == costs
        ends = [h for h, t in enumerate(spec.times) if t >= reached[b]][:1]
        assert batch.terminal_BH[b].nonzero()[:, 0].tolist() == ends


def drawn(config: HindsightConfig) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The numbers of first observations, of the last ones of their episodes, and of the goals of values and actions."""
    lengths = np.array([1, 400, 3_000])
    never = np.zeros(lengths.sum(), bool)
    e = Episodes(np.arange(len(never) + 3.0)[:, None], np.zeros((len(never), 1)), 0.0 * never, never, never, lengths)
    contexts = ContextConfig(("goal",), goals=config)
    batch = HindsightWindows(e, TrajectorySpec(1, 1, 2), contexts).batch(3, 0, 60_000)
    first, last_E = batch.x_BHD[:, 0, 0].numpy(), np.cumsum(lengths + 1) - 1
    return first, last_E[np.searchsorted(last_E, first)], [batch.goal_BG[:, 0].numpy(), batch.context_BC[:, 0].numpy()]


def test_goals_are_drawn_in_the_given_shares():
    first, last, goals = drawn(HindsightConfig(actor_random=0.25))
    for goal, current, random in zip(goals, (0.2, 0.0), (0.3, 0.25), strict=True):
        assert (goal == first).mean() == pytest.approx(current, abs=0.01)
        by_chance = ((last - first) / 3_404).mean()  # of the random ones, is later in the episode
        later = (goal > first) & (goal <= last)
        assert later.mean() == pytest.approx(1 - current - random * (1 - by_chance), abs=0.01)


def test_later_goals_are_geometrically_or_evenly_far():
    first, last, (near, even) = drawn(HindsightConfig(0.0, 0.0, 100.0))
    assert (near > first).all() and (even > first).all() and (near <= last).all() and (even <= last).all()
    long = last - first > 1_000
    for steps in (1, 50, 200):
        assert (near - first <= steps)[long].mean() == pytest.approx(1 - 0.99**steps, abs=0.015)
    assert ((even - first) / (last - first))[long].mean() == pytest.approx(0.5, abs=0.01)


def test_plain_windows_refuse_goals_in_hindsight():
    with pytest.raises(ValueError, match="windows_of"):
        Windows(some([20]), TrajectorySpec(3, 2, 4), ContextConfig(("goal",), goals=HindsightConfig()))


def test_goals_follow_from_seed_and_step():
    contexts = ContextConfig(("goal",), goals=HindsightConfig())
    windows = windows_of(some([20, 30]), TrajectorySpec(3, 2, 4), contexts)
    one, again = windows.batch(5, 1, 16), windows.batch(5, 1, 16)
    for name, tensor in vars(one).items():
        assert tensor is None or torch.equal(tensor, getattr(again, name))
    assert not torch.equal(one.goal_BG, windows.batch(6, 1, 16).goal_BG)
