"""Inverse dynamics and the arrival model learn what is known in closed form."""

import numpy as np
import pytest
import torch

from gentraj.agents.planning.arrival import Arrival, ArrivalConfig
from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from gentraj.data import Episodes, Windows
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, TrajectorySpec


def walk(steps: int = 3000, speed: float | None = None) -> Episodes:
    """Episodes of x_{t+1} = x_t + a_t, whose actions stay the same for some steps."""
    rng = np.random.default_rng(0)
    act = np.repeat(rng.normal(size=(steps // 20, 2)), 20, 0).astype(np.float32)
    act = np.full_like(act, speed) if speed else act
    obs = np.concatenate([np.zeros((1, 2), np.float32), np.cumsum(act, 0)]).astype(np.float32)
    end = np.arange(steps) == steps - 1
    return Episodes(obs, act, np.zeros(steps), np.zeros(steps, bool), end, [steps], goal_dims=(0, 1))


def train(component: InverseDynamics | Arrival, episodes: Episodes, steps: int) -> None:
    windows, optimizers = Windows(episodes, component.spec), component.optimizers()
    for step in range(steps):
        component.update(TrainingStep(windows.batch(step, 0, component.batch_size), optimizers, generator(0, step)))


def test_inverse_dynamics_find_the_action_between_two_states() -> None:
    torch.manual_seed(0)
    inverse = InverseDynamics.fit(walk(), InverseDynamicsConfig(lookahead=4, width=64, learning_rate=3e-3))
    train(inverse, walk(), 400)
    act = torch.tensor([[0.5, -1.0], [1.0, 1.0]])
    found = inverse(torch.zeros(2, 2), 4 * act, 4)
    torch.testing.assert_close(found, act, atol=0.15, rtol=0)


def test_inverse_dynamics_towards_a_goal_do_not_see_the_other_entries() -> None:
    inverse = InverseDynamics.fit(walk(), InverseDynamicsConfig(lookahead=4, width=8, towards="goal"), (1,))
    here, there = torch.zeros(1, 2), torch.tensor([[3.0, 2.0]])
    there_too = torch.tensor([[-5.0, 2.0]])
    assert torch.equal(inverse(here, there, 4), inverse(here, there_too, 4))
    assert not torch.equal(inverse(here, there, 4), inverse(here, -there, 4))


@pytest.mark.parametrize("lookahead", [1, 2, 5])
def test_the_way_to_go_is_measured_by_half_of_it_and_a_step_by_where_it_leads(lookahead: int) -> None:
    """Differences over `lookahead // 2` steps are as those of one step, as the actions stay the same."""
    size = walk().obs.std(0) if lookahead == 1 else walk().act.std(0) * (lookahead // 2)
    inverse = InverseDynamics.fit(walk(), InverseDynamicsConfig(lookahead=lookahead))
    torch.testing.assert_close(inverse.delta.scale_D, torch.from_numpy(size), rtol=0.1, atol=0)


def test_the_way_to_go_in_episodes_shorter_than_half_of_it_is_measured_up_to_their_ends() -> None:
    """It was measured to the zeros of the padding, or, where a few were as long, by these alone."""
    lengths = [2] * 500 + [9]
    T, E = sum(lengths), len(lengths)
    step = np.concatenate([np.arange(n + 1) for n in lengths])
    towards = np.repeat(np.arange(E) % 2 * 2 - 1, np.array(lengths) + 1)
    obs = (1000 + step * towards).astype(np.float32)[:, None]
    episodes = Episodes(obs, np.ones((T, 1)), np.zeros(T), np.zeros(T), np.zeros(T), lengths)
    delta = InverseDynamics.fit(episodes, InverseDynamicsConfig(lookahead=16)).delta
    assert abs(delta.shift_D.item()) < 0.5 and 1 < delta.scale_D.item() < 2.5


def test_arrival_times_are_distance_over_speed() -> None:
    torch.manual_seed(0)
    episodes, spec = walk(400, speed=0.5), TrajectorySpec(2, 0, 10, stride=2)
    obs = Normalizer.fit("limits", [episodes.obs])
    arrival = Arrival(spec, (0, 1), ArrivalConfig(width=32, batch_size=128, learning_rate=1e-2), obs)
    train(arrival, episodes, 200)
    start = torch.full((3, 2), 20.0)
    rows = arrival.propose(start, start + torch.tensor([[2.0], [5.0], [8.0]]), (1.0,))
    assert rows[:, 0].tolist() == pytest.approx([2, 5, 8], abs=1)


def test_a_smaller_share_proposes_an_arrival_no_later() -> None:
    arrival = Arrival(TrajectorySpec(2, 0, 10), (0,), ArrivalConfig(), Normalizer.identity(2))
    rows = arrival.propose(torch.randn(50, 2), torch.randn(50, 1), (0.01, 0.3, 1.0))
    assert (rows.diff(dim=1) >= 0).all() and (rows >= 1).all() and (rows <= 9).all()


def test_windows_of_another_length_teach_no_part_of_a_planner() -> None:
    """Inverse dynamics, for example, would learn to look further ahead than their settings say."""
    spec = TrajectorySpec(2, 2, 5)
    parts = (InverseDynamics.blank(2, 2, InverseDynamicsConfig(lookahead=4)),
             PlanCritic.blank(spec, PlanCriticConfig(n_step=4)),
             Arrival(spec, (0, 1), ArrivalConfig(), Normalizer.identity(2)))
    longer = Windows(walk(), TrajectorySpec(2, 2, 6)).batch(0, 0, 8)
    for part in parts:
        with pytest.raises(ValueError, match=r"windows of shape \(8, 6, 4\) were given; \(B, 5, 4\) is expected"):
            part.update(TrainingStep(longer, part.optimizers(), generator(0)))


def test_windows_of_one_row_teach_no_arrival() -> None:
    arrival = Arrival(TrajectorySpec(2, 0, 10), (0, 1), ArrivalConfig(), Normalizer.identity(2))
    x, real = torch.randn(8, 10, 2), torch.zeros(8, 10, 2, dtype=torch.bool)
    real[:, 0] = True
    before = [p.clone() for p in arrival.parameters()]
    step = TrainingStep(Batch(x, real), {"network": torch.optim.SGD(arrival.parameters(), 1.0)}, generator(0))
    loss = arrival.update(step)["loss"]
    assert loss == 0 and all(torch.equal(a, b) for a, b in zip(before, arrival.parameters(), strict=True))
