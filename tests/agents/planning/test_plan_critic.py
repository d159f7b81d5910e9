"""The critic of plans: targets computed by hand at truncations and terminations, what it learns, what it ignores."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gentraj.agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from gentraj.data import ContextConfig, Episodes, HindsightConfig, HindsightWindows, Windows
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=2, act_dim=1, horizon=3)
SMALL = PlanCriticConfig(width=16, heads=2, depth=1, n_step=1, discount=0.5)
every_network = pytest.mark.parametrize("network", ["perceptron", "transformer"])


def make(spec: TrajectorySpec = SPEC, **changes: Any) -> PlanCritic:
    torch.manual_seed(0)
    return PlanCritic.blank(spec, replace(SMALL, **changes))


def chain() -> Episodes:
    """Episodes of three and two steps with rewards 1, 2, 3 and 4, 5: the first terminates, the second is truncated."""
    obs = np.stack([np.arange(7.0), -np.arange(7.0)], 1)
    ends, cuts = np.array([0, 0, 1, 0, 0], bool), np.array([0, 0, 0, 0, 1], bool)
    return Episodes(obs, np.linspace(-1, 1, 5)[:, None], np.arange(1.0, 6.0), ends, cuts, np.array([3, 2]))


def ring(cuts: int = 40, length: int = 12) -> Episodes:
    """Episodes that go round 6 places and are truncated after 12 steps; the reward for leaving place k is k."""
    place = (np.arange(length + 1) + np.arange(cuts)[:, None]) % 6
    obs = np.stack([np.cos(place * np.pi / 3), np.sin(place * np.pi / 3)], -1).reshape(-1, 2)
    end = np.tile(np.arange(length) == length - 1, cuts)
    act = np.random.default_rng(0).normal(size=(cuts * length, 1))
    return Episodes(obs, act, place[:, :-1].reshape(-1), np.zeros_like(end), end, np.full(cuts, length))


def worth_its_first_entry(critic: PlanCritic) -> PlanCritic:
    """V(s) is s_0."""

    class First(nn.Module):
        def forward(self, state_BO: Tensor) -> Tensor:
            return state_BO[None, :, 0]

    critic.target = First()  # type: ignore[assignment]
    return critic


def train(critic: PlanCritic, episodes: Episodes, steps: int, size: int = 64) -> None:
    windows, optimizers = Windows(episodes, critic.spec), critic.optimizers()
    for step in range(steps):
        critic.update(TrainingStep(windows.batch(step, 0, size), optimizers, generator(step)))


@pytest.mark.parametrize(("n_step", "expected"), [(1, [1 + 1 + 0.25 * 2, 2 + 1.5, 3, 4 + 2.5 + 0.25 * 6, 5 + 0.5 * 6]),
                                                  (4, [1 + 1 + 0.75, 2 + 1.5, 3, 4 + 2.5 + 0.25 * 6, 5 + 0.5 * 6])])
def test_targets_go_on_through_a_truncation_and_not_through_an_end(n_step: int, expected: list[float]) -> None:
    critic = worth_its_first_entry(make(n_step=n_step))
    batch = Windows(chain(), critic.spec).gather(np.arange(5))
    torch.testing.assert_close(critic.targets(batch), torch.tensor(expected))



@pytest.mark.parametrize(("terminal", "expected"), [(True, 9 + 0.25 * 3), (False, 9 + 0.25 * 7.0)])
def test_what_is_earned_after_the_last_row_counts_before_an_end_between_two_rows(terminal: bool,
                                                                                   expected: float) -> None:
    """A truncation there loses nothing, as V(s) = 7 of the last timestep stands for the same reward."""
    critic = worth_its_first_entry(make(replace(SPEC, stride=2)))
    x, real = torch.full((1, 3, 3), 7.0), torch.tensor([[True, True, False]])[..., None].expand(1, 3, 3)
    batch = Batch(x, real, None, torch.tensor([[9.0, 3.0, 0.0]]), torch.tensor([[False, False, terminal]]))
    torch.testing.assert_close(critic.targets(batch), torch.tensor([expected]))


def test_it_learns_the_discounted_sum_of_what_never_ends() -> None:
    """Also where rewards and returns are normalised."""
    config = replace(SMALL, width=32, tau=0.2, expectile=0.5, learning_rate=1e-2, discount=0.8)
    torch.manual_seed(0)
    critic = PlanCritic.fit(ring(), SPEC, config)
    train(critic, ring(), 200)
    rewards = np.arange(600) % 6
    expected = torch.tensor([(0.8 ** np.arange(500) * rewards[k : k + 500]).sum() for k in range(6)]).float()
    batch = Windows(ring(1), critic.spec).gather(np.arange(6))
    torch.testing.assert_close(critic.reward.unnormalize(critic(batch.x_BHD)).detach(), expected, rtol=0.07, atol=0.3)


@every_network
def test_plans_of_one_start_have_different_values(network: str) -> None:
    """The episodes have two steps, and their reward is their last action."""
    act, end = np.random.default_rng(0).uniform(-1, 1, (400, 1)), np.tile([False, True], 200)
    reward = np.where(end, act[:, 0], 0)
    data = Episodes(np.zeros((600, 2)), act, reward, end, np.zeros_like(end), np.full(200, 2))
    critic = make(network=network, learning_rate=1e-2, discount=1.0)
    train(critic, data, 100)
    batch = Windows(data, critic.spec).gather(np.arange(0, 400, 2))
    found = critic(batch.x_BHD).detach().numpy()
    assert np.corrcoef(found, reward[1::2])[0, 1] > 0.85


def test_a_higher_expectile_is_worth_more() -> None:
    """Episodes of one step have a random reward of 0 or 1: the expectile 0.5 is their mean, and 0.9 is 0.9."""
    number, rng = 400, np.random.default_rng(0)
    one, none = np.ones(number, bool), np.zeros(number, bool)
    data = Episodes(np.zeros((2 * number, 2)), np.zeros((number, 1)), rng.permutation(np.arange(number) % 2), one, none,
                    np.ones(number, int))
    for tau in (0.5, 0.9):
        critic = make(expectile=tau, learning_rate=1e-2)
        train(critic, data, 60, size=256)
        value = critic.state_network(torch.zeros(1, 2)).mean()
        assert value.item() == pytest.approx(tau, abs=0.1)
        assert critic(torch.zeros(1, 3, 3)).item() == pytest.approx(0.5, abs=0.1)  # a plan is worth what is expected


def test_statistics_of_the_data_scale_the_rewards_and_not_the_zero() -> None:
    critic = PlanCritic.fit(chain(), SPEC, SMALL)
    assert critic.reward.scale_D.item() == pytest.approx(11**0.5) and critic.reward.shift_D.item() == 0
    torch.testing.assert_close(critic.plan.shift_D, torch.tensor([3.0, -3.0, 0.0]))
    returns = np.array([1 + 1 + 0.75, 2 + 1.5, 3, 0, 4 + 2.5, 5, 0]) / 11**0.5  # 0 after the last step
    assert critic.returns.shift_D.item() == pytest.approx(returns.mean())
    assert critic.returns.scale_D.item() == pytest.approx(returns.std())
    silent = replace(chain(), reward=np.zeros(5))
    assert PlanCritic.fit(silent, replace(SPEC, act_dim=0), SMALL).reward.scale_D.item() == 1


@every_network
@pytest.mark.parametrize("noised", [0.0, 0.5])
def test_an_update_depends_on_its_generator_only_and_not_on_padding(network: str, noised: float) -> None:
    after = []
    for seed in (1, 2):
        critic = make(network=network, noise_fraction=noised, n_step=5)
        batch = Windows(chain(), critic.spec).gather(np.arange(5))
        batch.x_BHD[~batch.mask_BHD] = seed * 1e3
        torch.manual_seed(seed)
        critic.update(TrainingStep(batch, critic.optimizers(), generator(0)))
        after.append(torch.cat([p.flatten() for p in critic.parameters()]))
    assert torch.equal(*after)


@every_network
def test_the_later_observations_count_for_who_sees_the_plan_or_where_there_are_no_actions(network: str) -> None:
    for inputs, act_dim, counts in (("actions", 1, False), ("plan", 1, True), ("actions", 0, True)):
        critic = make(replace(SPEC, act_dim=act_dim), network=network, inputs=inputs)
        x = torch.zeros(16, 3, 2 + act_dim)
        later, first = x.clone(), x.clone()
        later[:, 1:, 0], first[:, 0, 0] = 1, 1
        assert torch.equal(critic(later), critic(x)) is not counts and not torch.equal(critic(first), critic(x))
        if act_dim:
            later[:, 2, 2] = 1
            assert not torch.equal(critic(later), critic(x))


@every_network
@pytest.mark.parametrize(("noised", "path"), [(0.0, "vp-cosine"), (0.5, "vp-cosine"), (0.5, "edm")])
def test_guidance_raises_the_value_of_plans(network: str, noised: float, path: str) -> None:
    critic = make(network=network, noise_fraction=noised, inputs="plan")
    settings = DiffusionConfig(ResidualMLPConfig(16, 1, 0), path=path, levels=None, clip=None)
    model = Diffusion(SPEC, settings, Normalizer.identity(3))
    start = Condition.empty(SPEC, 64).with_obs(0, torch.ones(2))
    plain, guided = (critic(model.sample(start, guide=guide, seed=0)[:, 0]) for guide in (None, critic.guide(3.0)))
    assert (guided - plain).mean() > 2 * (guided - plain).std() / 8


def test_a_width_that_its_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 18"):
        PlanCriticConfig(width=18)


def test_values_of_goals_in_hindsight_are_the_steps_to_them_and_a_plan_towards_the_goal_has_the_higher_one() -> None:
    place_ET, never = np.tile(np.arange(9.0), (40, 1)), np.zeros(40 * 8, bool)  # all walk along a line
    e = Episodes(place_ET.reshape(-1, 1), np.zeros((320, 1)), 0 * never, never, never, np.full(40, 8), goal_dims=(0,))
    config = PlanCriticConfig(width=32, n_step=1, discount=0.8, expectile=0.9, tau=0.2, learning_rate=5e-3)
    torch.manual_seed(0)
    critic = PlanCritic.fit(e, TrajectorySpec(1, 0, 2), config, (0,))
    windows = HindsightWindows(e, critic.spec, ContextConfig(goals=HindsightConfig(steps=4.0)))
    optimizers = critic.optimizers()
    for step in range(300):
        critic.update(TrainingStep(windows.batch(step, 0, 128), optimizers, generator(step)))
    goal_BG = torch.arange(4.0, 9)[:, None]
    steps_B = critic.steps_to_go(torch.full_like(goal_BG, 3.0), goal_BG)
    torch.testing.assert_close(steps_B, goal_BG[:, 0] - 3, rtol=0, atol=0.8)
    plans = torch.tensor([[[3.0], [4.0]], [[4.0], [5.0]], [[7.0], [8.0]]])  # the last one has passed the goal
    first, nearer, past = critic(plans, torch.full((3, 1), 6.0))
    assert past < first < nearer
    other = PlanCritic.blank(TrajectorySpec(1, 0, 2), replace(config, network="transformer"), (0,))
    assert other(plans, torch.full((3, 1), 6.0)).shape == (3,)
