"""Every policy of `POLICIES` keeps the same contract; a new one is tested as soon as it is registered."""

from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.diffusion_ql import DiffusionQLConfig
from gentraj.agents.policies.fql import FQLConfig
from gentraj.agents.policies.generators import GENERATORS
from gentraj.agents.policies.iql import IQLConfig
from gentraj.agents.policies.one_step import OneStepConfig
from gentraj.agents.policies.policy import Policy, PolicyConfig, RewardStatistics, Scales, mean_one
from gentraj.agents.policies.student import StudentConfig
from gentraj.agents.policies.swift import SwiftConfig
from gentraj.agents.policies.td3bc import TD3BCConfig
from gentraj.data import ContextConfig, Episodes, Windows, concatenate
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import RowNoise, generator
from gentraj.runs import PolicyRunConfig
from gentraj.testing import check_policy
from gentraj.training.optimization import LearningConfig, NonFinite, adamw, apply_gradients
from gentraj.trajectory import SamplingOptions, TrajectorySpec

SMALL = ResidualMLPConfig(width=32, depth=1, frequencies=0)
every_policy = pytest.mark.parametrize("kind", POLICIES.configs)


def bandit(number: int = 2_000) -> Episodes:
    """Episodes of one step with the noisy actions 0.6 and -0.6; the reward is 1 for the one with the sign of s_0."""
    rng = np.random.default_rng(0)
    obs, side = rng.normal(size=(number, 2, 2)), rng.choice([-1, 1], number)
    act = (0.6 * side + 0.1 * rng.normal(size=number)).clip(-1, 1)
    reward, yes, no = np.sign(act) == np.sign(obs[:, 0, 0]), np.ones(number, bool), np.zeros(number, bool)
    return Episodes(obs.reshape(-1, 2), act[:, None], reward, yes, no, np.ones(number, int))


def small(kind: type, **changes: Any) -> Any:
    """The default settings with networks of width 32."""
    config, parts = kind(**changes), dict[str, Any]()
    if config.model is not None:
        model = config.model.with_network(SMALL)
        faster = {"learning_rate": 5e-3} if hasattr(model, "learning_rate") else {}
        parts["model"] = replace(model, ema=0.98, **faster)
    if isinstance(student := getattr(config, "student", None), OneStepConfig):
        parts["student"] = replace(student, network=SMALL, ema=0.98, learning_rate=5e-3)
    if config.critic is not None:
        faster = {"tau": 0.05} if hasattr(config.critic, "tau") else {}
        parts["critic"] = replace(config.critic, width=32, learning_rate=3e-3, **faster)
    if any(field.name == "width" for field in fields(config)):
        parts["width"] = 32
    return replace(config, **parts)


def make(config: Any, episodes: Episodes, contexts: ContextConfig | None = None) -> Policy:
    torch.manual_seed(0)
    scales = Scales.fit(episodes, contexts or ContextConfig())
    return POLICIES.made_of(config)(episodes.obs_dim, episodes.act_dim, config, scales)


def train(policy: Policy, episodes: Episodes, steps: int, contexts: ContextConfig | None = None) -> dict[str, Any]:
    windows, optimizers, metrics = Windows(episodes, policy.spec, contexts), policy.optimizers(), {}
    for step in range(steps):
        metrics = policy.update(windows.batch(step, 0, 128), optimizers, generator(step))
    return metrics


def act(policy: Policy, obs: torch.Tensor, seeds: list[int], goal: torch.Tensor | None = None) -> torch.Tensor:
    actor = Actor(policy, -np.ones(policy.spec.act_dim), np.ones(policy.spec.act_dim))
    actor.reset(None, seeds)
    return actor.act(obs, goal)


@cache
def trained(kind: type) -> Policy:
    """A policy that has learnt from the bandit. Leave it as it is."""
    config = small(kind)
    if kind is FQLConfig:
        config = replace(config, alpha=0.3)  # the noise itself leads to one of the two actions: let it be left
    policy = make(config, data := bandit())
    train(policy, data, 150)
    return policy


@pytest.mark.parametrize("kind", [kind for kind in POLICIES.configs if kind().critic is not None])
def test_what_earns_more_is_done_more_often_than_in_the_data(kind: type) -> None:
    policy = trained(kind)
    obs = torch.randn(100, 2, generator=generator(9)) * 2
    right = (act(policy, obs, list(range(100)))[:, 0].sign() == obs[:, 0].sign()).float().mean()
    assert right > 0.85  # of the data it is a half


def test_swift_is_guided_from_the_data_s_actions_to_the_better_ones() -> None:
    """Without guidance it is as often right as the data, and conditioned on a positive advantage nearly always."""
    config = small(SwiftConfig, temperature=1.0)
    policy = make(replace(config, context_dropout=0.3), data := bandit())
    train(policy, data, 300)
    obs, right = torch.randn(400, 2, generator=generator(9)) * 2, {}
    for guidance in (0.0, 1.0, 2.0):
        policy.config = replace(config, guidance=guidance)
        act_NA = act(policy, obs, list(range(400)))[:, 0]
        right[guidance] = (act_NA.sign() == obs[:, 0].sign()).float().mean().item()
    assert 0.4 < right[0.0] < 0.6 and right[1.0] > 0.8 and right[2.0] >= right[1.0]


def test_swift_is_guided_away_from_what_it_has_learnt_only() -> None:
    with pytest.raises(ValueError, match=r"guidance is 1.5, .* never learns with a context_dropout of 0"):
        SwiftConfig(context_dropout=0.0)
    assert SwiftConfig(context_dropout=0.0, guidance=1.0).guidance == 1
    other = PolicyRunConfig(policy=SwiftConfig()).with_generator(GENERATORS["flow"])
    assert other.policy.model.path == "flow" and other.policy.context_dropout == 0.1  # type: ignore[union-attr]


@pytest.mark.usefixtures("batch_invariance")
@every_policy
def test_actions_are_inside_the_bounds_and_depend_on_their_own_seed_only(kind: type) -> None:
    policy, obs = make(small(kind), bandit(50)), 3 * torch.randn(40, 2, generator=generator(1))
    together = act(policy, obs, list(range(40)))
    assert together.shape == (40, 1)
    assert torch.equal(act(policy, obs[3:5], [3, 4]), together[3:5])
    assert torch.equal(act(policy, obs, list(range(40))), together)
    decided = policy.sample_actions(policy.state(100 * obs, None)[:32], list(range(32)))
    assert decided.shape == (32, policy.chunk, 1) and (decided.abs() <= 1).all()
    actor = Actor(policy, np.full(1, -0.01), np.full(1, 0.01))
    assert (actor.act(obs).abs() <= 0.01).all()


@every_policy
def test_an_action_without_noise_does_not_depend_on_its_seed(kind: type) -> None:
    policy, one_BS = make(small(kind), bandit(50)), torch.full((16, 2), 0.3)
    cold, warm = (policy.sample_actions(one_BS, list(range(16)), SamplingOptions(temperature=each)) for each in (0, 1))
    torch.testing.assert_close(cold, cold[:1].expand_as(cold))
    assert (len(warm.unique()) > 1) == (kind not in (IQLConfig, TD3BCConfig, SwiftConfig, StudentConfig))  # the mean


@every_policy
def test_the_same_updates_give_the_same_weights_whatever_the_global_seed(kind: type) -> None:
    policies = [make(small(kind), data := bandit(100)) for _ in range(2)]
    for i, policy in enumerate(policies):
        torch.manual_seed(i)
        metrics = train(policy, data, 3)
        assert all(torch.isfinite(torch.as_tensor(value)) for value in metrics.values())
    assert all(torch.equal(a, b) for a, b in zip(policies[0].parameters(), policies[1].parameters(), strict=True))


@every_policy
def test_a_number_that_is_not_finite_stops_an_update(kind: type) -> None:
    policy = make(small(kind), data := bandit(100))
    with torch.no_grad():
        network: Any = getattr(policy, "student", None) or getattr(policy, "model", policy).network
        next(p for p in network.parameters() if p.ndim == 2).fill_(torch.inf)
    with pytest.raises(NonFinite):
        train(policy, data, 1)


@every_policy
def test_a_chunk_is_carried_out_before_the_next_is_decided(kind: type) -> None:
    policy = make(small(kind, chunk=4, execute=3), chain())
    actor = Actor(policy, -np.ones(1), np.ones(1))
    actor.reset(None, [1, 2])
    first = [actor.act(torch.zeros(2, 2)) for _ in range(3)]
    actor.reset(None, [1, 2])
    assert all(torch.equal(actor.act(torch.zeros(2, 2) if i == 0 else torch.ones(2, 2)), first[i]) for i in range(3))
    assert not torch.equal(actor.act(torch.ones(2, 2)), first[0])
    actor.reset(torch.tensor([True, False]))  # the second goes on with its chunk
    calls = policy.network_calls
    actor.act(torch.ones(2, 2))
    assert policy.network_calls > calls


@every_policy
def test_other_settings_to_act_by_need_no_other_training(kind: type) -> None:
    """It acts as a policy that was made with those settings and has the same weights, and changes nothing itself."""
    others = {"execute": 1, "candidates": 1, "choice": "softmax", "temperature": 0.3, "guidance": 0.5, "sample": True}
    policy, data = make(small(kind, chunk=4, execute=3), chain()), torch.randn(5, 2)
    seeds, before = [*range(5)], act(policy, data, [*range(5)])
    config = replace(small(kind, chunk=4, execute=3), **{key: others[key] for key in kind.ACTING})
    anew = make(config, chain())
    anew.load_state_dict(policy.state_dict())
    assert torch.equal(act(policy.acting(config), data, seeds), act(anew, data, seeds))
    assert policy.acting(config).execute == 1 and policy.execute == 3
    assert torch.equal(act(policy, data, seeds), before)


@every_policy
def test_a_goal_is_part_of_the_state(kind: type) -> None:
    data = chain()
    data = replace(data, extras={"goal": np.arange(float(len(data.obs)))[:, None]})
    contexts = ContextConfig(("goal",))
    policy = make(small(kind), data, contexts)
    assert policy.state_dim == 3
    train(policy, data, 2, contexts)
    here = act(policy, torch.zeros(2, 2), [1, 1], torch.tensor([[0.0], [9.0]]))
    assert not torch.equal(here[0], here[1])
    with pytest.raises(ValueError, match="trained with a goal was given none"):
        act(policy, torch.zeros(2, 2), [1, 1])


@pytest.mark.parametrize("name", GENERATORS)
def test_cloning_with_any_generator_draws_both_of_the_data_s_actions(name: str) -> None:
    policy = make(small(BCConfig, model=GENERATORS[name]), data := bandit())
    train(policy, data, 120 if name == "gan" else 300)
    actions = act(policy, torch.zeros(400, 2), list(range(400)))[:, 0]
    assert actions.mean().abs() < 0.2 and actions.std() == pytest.approx(0.6, abs=0.2)
    if name != "gaussian":  # of which 0.62 are there
        assert (actions.abs() > 0.3).float().mean() > 0.7


def chain() -> Episodes:
    """Episodes of three and two steps with rewards 1, 2, 3 and 4, 5: the first terminates, the second is truncated."""
    obs = np.stack([np.arange(7.0), -np.arange(7.0)], 1)
    ends, cuts = np.array([0, 0, 1, 0, 0], bool), np.array([0, 0, 0, 0, 1], bool)
    return Episodes(obs, np.linspace(-1, 1, 5)[:, None], np.arange(1.0, 6.0), ends, cuts, np.array([3, 2]))


def test_a_transition_bootstraps_through_a_cut_and_not_through_an_end() -> None:
    policy, data = make(small(BCConfig, chunk=2), chain()), chain()
    batch = Windows(data, policy.spec).gather(np.arange(5))
    t = policy.transition(batch, 0.5)
    size = np.sqrt((data.reward**2).mean())
    torch.testing.assert_close(t.reward_B * size, torch.tensor([1 + 1.0, 2 + 1.5, 3, 4 + 2.5, 5]))
    torch.testing.assert_close(t.discount_B, torch.tensor([0.25, 0, 0, 0.25, 0.5]))
    assert t.real_BK.tolist() == [[True, True], [True, True], [True, False], [True, True], [True, False]]
    assert t.whole_B.tolist() == [True, True, True, True, False]  # nothing follows an end, something a cut
    assert torch.equal(policy.transition(batch, 0).whole_B, t.whole_B)
    after = torch.from_numpy(data.obs[[2, 3, 3, 6, 6]])
    torch.testing.assert_close(policy.obs.unnormalize(t.next_BS), after)


@pytest.mark.parametrize(("n_step", "reward", "discount", "after"), [
    (1, [1, 2, 3, 4, 5], [0.5, 0.5, 0, 0.5, 0.5], [1, 2, 3, 5, 6]),
    (2, [1 + 1, 2 + 1.5, 3, 4 + 2.5, 5], [0.25, 0, 0, 0.25, 0.5], [2, 3, 3, 6, 6]),
    (3, [1 + 1 + 0.75, 2 + 1.5, 3, 4 + 2.5, 5], [0, 0, 0, 0.25, 0.5], [3, 3, 3, 6, 6]),
    (4, [1 + 1 + 0.75, 2 + 1.5, 3, 4 + 2.5, 5], [0, 0, 0, 0.25, 0.5], [3, 3, 3, 6, 6])])
def test_n_steps_are_earned_and_the_state_after_them_is_discounted_by_as_many(
        n_step: int, reward: list[float], discount: list[float], after: list[int]) -> None:
    data = chain()
    policy = Policy(2, 1, BCConfig(), Scales.fit(data, ContextConfig()), n_step)
    t = policy.transition(Windows(data, policy.spec).gather(np.arange(5)), 0.5)
    narrow = replace(data, obs=data.obs[:, :1])  # the last observation is real, and its action is not
    single = Policy(1, 1, BCConfig(), Scales.fit(narrow, ContextConfig()), n_step)
    same = single.transition(Windows(narrow, single.spec).gather(np.arange(5)), 0.5)
    assert torch.equal(same.discount_B, t.discount_B) and torch.equal(same.next_BS, t.next_BS[:, :1])
    torch.testing.assert_close(t.reward_B * np.sqrt((data.reward**2).mean()), torch.tensor(reward, dtype=torch.float32))
    assert t.discount_B.tolist() == discount
    torch.testing.assert_close(policy.obs.unnormalize(t.next_BS), torch.from_numpy(data.obs[after]))
    torch.testing.assert_close(policy.obs.unnormalize(t.state_BS), torch.from_numpy(data.obs[[0, 1, 2, 4, 5]]))
    torch.testing.assert_close(t.chunk_BX, torch.linspace(-1, 1, 5)[:, None])
    assert t.whole_B.all() and t.real_BK.shape == (5, 1) and t.episode_B.tolist() == [0, 0, 0, 1, 1]
    assert t.weight_B is None and t.weights().tolist() == [1]


@pytest.mark.parametrize(("chunk", "n_step", "horizon"), [(1, 1, 2), (4, 1, 5), (4, 6, 7)])
def test_a_transition_is_as_long_as_its_chunk_or_its_steps(chunk: int, n_step: int, horizon: int) -> None:
    policy = Policy(2, 1, BCConfig(chunk=chunk), Scales.fit(chain(), ContextConfig()), n_step)
    assert policy.spec == TrajectorySpec(2, 1, horizon) and policy.window_spec == TrajectorySpec(2, 1, chunk)


@pytest.mark.parametrize("missing", ["reward_BH", "terminal_BH", "episode_B"])
def test_what_lacks_rewards_is_no_transition(missing: str) -> None:
    policy = Policy(2, 1, BCConfig(), Scales.fit(chain(), ContextConfig()))
    batch = Windows(chain(), policy.spec).gather(np.arange(5))
    with pytest.raises(ValueError, match="take a batch of Windows"):
        policy.transition(replace(batch, **{missing: None}), 0.5)


def goal_policy() -> Policy:
    """Chunks of two actions in [-1, 3] and [5, 5], for states of mean 1 and deviation 2 and a goal in [0, 10]."""
    scales = Scales(Normalizer(torch.ones(2), torch.full((2,), 2.0)),
                    Normalizer(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 1.0])),
                    Normalizer(torch.tensor([5.0]), torch.tensor([5.0])), Normalizer.identity(1))
    return Policy(2, 2, BCConfig(chunk=2), scales)


def test_a_state_is_what_is_observed_within_ten_deviations_and_the_goal() -> None:
    policy, obs, goal = goal_policy(), torch.tensor([[3.0, 22.0], [1.0, -98.0]]), torch.tensor([[10.0], [30.0]])
    assert policy.state_dim == 3
    assert policy.state(obs, goal).tolist() == [[1, 10, 1], [0, -10, 5]]  # a goal may be anywhere
    with pytest.raises(ValueError, match="with a goal was given none"):
        policy.state(obs, None)
    plain = Policy(2, 1, BCConfig(), Scales.blank(2, 1, 0))
    assert plain.state_dim == 2 and torch.equal(plain.state(obs, None), obs.clamp(-10, 10))
    with pytest.raises(ValueError, match="without a goal was given one"):
        plain.state(obs, goal)


def test_the_limits_are_where_states_are_clamped_and_the_narrower_bounds_of_actions() -> None:
    policy = goal_policy()
    assert [bound.tolist() for bound in policy.bounds()] == [[-19, -19], [21, 21]]
    limits = policy.limits(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 9.0]))
    assert (limits.act_low_A.tolist(), limits.act_high_A.tolist()) == ([-1, 4], [2, 6])
    assert limits.obs_low_O is not None and limits.obs_high_O is not None
    assert (limits.obs_low_O.tolist(), limits.obs_high_O.tolist()) == ([-19, -19], [21, 21])


def test_the_model_s_windows_are_the_state_in_each_timestep_and_the_chunk() -> None:
    policy, state = goal_policy(), torch.tensor([[1.0, 2.0, 3.0]])
    joined = policy.join(state, torch.tensor([[[4.0, 5.0], [6.0, -7.0]]]))
    assert joined.tolist() == [[[1, 2, 3, 4, 5], [1, 2, 3, 6, -7]]]
    assert policy.states(joined).tolist() == [[1, 2, 3]] and policy.states(joined[:, None]).shape == (1, 1, 3)
    assert policy.actions(joined / 5).tolist() == [[[pytest.approx(0.8), 1], [1, -1]]]
    condition = policy.condition(state)
    assert condition.values_BHD.tolist() == [[[1, 2, 3, 0, 0]] * 2]
    assert condition.mask_BHD.tolist() == [[[True] * 3 + [False] * 2] * 2]
    with pytest.raises(ValueError, match="NaN or infinite"):
        policy.condition(state * torch.nan)
    assert policy.condition(state * torch.nan, finite=True).batch == 1


def test_a_cut_chunk_is_learnt_as_far_as_it_goes() -> None:
    policy = make(small(BCConfig, chunk=2), chain())
    t = policy.transition(Windows(chain(), policy.spec).gather(np.arange(5)), 0.5)
    batch = policy.windows(t)
    assert batch.weight_B is None
    assert batch.mask_BHD[..., :2].all() and torch.equal(batch.mask_BHD[..., 2], t.real_BK)
    assert torch.equal(batch.x_BHD[:, 0, :2], t.state_BS) and torch.equal(batch.x_BHD[:, 1, :2], t.state_BS)
    torch.testing.assert_close(batch.x_BHD[..., 2], torch.tensor([[-1, -0.5], [-0.5, 0], [0, 0], [0.5, 1], [1, 0]]))
    assert mean_one(torch.zeros(3)).tolist() == [0, 0, 0] and mean_one(torch.tensor([1.0, 3.0])).tolist() == [0.5, 1.5]


@pytest.mark.usefixtures("batch_invariance")
def test_candidates_of_a_state_are_drawn_by_its_seed() -> None:
    policy, state = make(small(BCConfig), bandit(50)), torch.randn(2, 2, generator=generator(3))
    both = policy.candidates(policy.model, state, 3, [5, 6])
    assert both.shape == (2, 3, 1, 1) and (both.abs() <= 1).all() and len(both.unique()) == 6
    assert torch.equal(policy.candidates(policy.model, state[1:], 3, [6]), both[1:])


@pytest.mark.parametrize("family", ["diffusion", "gan"])
def test_the_candidates_of_diffusion_ql_scatter_as_its_temperature_says(family: str) -> None:
    data, state_BS, seeds = bandit(64), torch.zeros(4, 2), [1, 2, 3, 4]
    policy, acts = make(small(DiffusionQLConfig, model=GENERATORS[family]), data), []
    for temperature in (0.0, 0.5):
        policy.config = replace(policy.config, temperature=temperature)
        options = SamplingOptions(temperature=temperature)
        drawn_BNKA = policy.candidates(policy.model, state_BS, policy.config.candidates, seeds, options)
        acts.append(policy.sample_actions(state_BS, seeds))
        assert torch.equal(acts[-1], policy.critic.best(state_BS, drawn_BNKA))
    policy.config = replace(policy.config, temperature=1.0)
    assert torch.equal(policy.sample_actions(state_BS, seeds, SamplingOptions(temperature=0.5)), acts[1])
    torch.testing.assert_close(acts[0], acts[0][:1].expand_as(acts[0]))  # without noise a seed has no effect
    assert len(acts[1].unique()) == 4


def test_rewards_that_are_all_zero_are_not_scaled() -> None:
    assert RewardStatistics(3.0, 0.25).initial_value(0.8) == pytest.approx(3 / 0.4)  # 0.6 of a value goes on
    data = chain()
    scales = Scales.fit(replace(data, reward=np.zeros(5)), ContextConfig())
    assert scales.reward.scale_D.item() == 1 and scales.reward_statistics.reward == 0
    scales = Scales.fit(data, ContextConfig())
    assert scales.reward_statistics == pytest.approx((3 / 11**0.5, 0.2)) and scales.reward.shift_D.item() == 0
    assert scales.reward.scale_D.item() == pytest.approx(11**0.5)  # the root of the mean of 1, 4, 9, 16 and 25
    blank = Scales.blank(2, 1, 3)
    assert [len(part.shift_D) for part in (blank.obs, blank.act, blank.context, blank.reward) if part] == [2, 1, 3, 1]
    assert Scales.blank(2, 1, 0).context is None and blank.reward_statistics == (0, 0)


def test_windows_of_another_length_make_no_transitions() -> None:
    """Their n-step returns would not be those of the policy's settings."""
    policy, spec = make(small(IQLConfig), data := bandit(8)), TrajectorySpec(2, 1, 9)
    assert policy.spec.horizon == 33
    with pytest.raises(ValueError, match=r"windows of shape \(4, 9, 3\) were given; \(B, 33, 3\) is expected"):
        policy.update(Windows(data, spec).batch(0, 0, 4), policy.optimizers(), generator(0))


class Linear(Policy):
    """A policy with the three methods that docs/extending.md asks for, and no generative model."""

    def __init__(self, config: PolicyConfig, scales: Scales):
        super().__init__(2, 1, config, scales)
        self.config, self.layer = config, torch.nn.Linear(2, 1)

    def optimizers(self) -> dict[str, Any]:
        return {"layer": adamw(self.layer, LearningConfig())}

    def update(self, batch: Any, optimizers: dict[str, Any], generator: torch.Generator) -> dict[str, torch.Tensor]:
        t = self.transition(batch, 1.0)
        loss = (self.layer(t.state_BS) - t.chunk_BX).square().mean()
        apply_gradients(loss, optimizers["layer"], 1.0)
        return {"loss": loss.item()}  # type: ignore[dict-item]

    def sample_actions(self, state_BS: torch.Tensor, seeds: Any, options: Any = None) -> torch.Tensor:
        return self.layer(state_BS)[:, None].clamp(-1, 1)


def test_a_policy_of_ones_own_needs_no_generative_model() -> None:
    policy = Linear(PolicyConfig(), Scales.fit(bandit(64), ContextConfig()))
    check_policy(policy)
    assert policy.trajectory_model is None and policy.sampling() == "Linear"
    actor = Actor(policy, -np.ones(1), np.ones(1))
    for decisions in (1, 2):
        actor.act(torch.zeros(3, 2))
        assert actor.network_calls == decisions
    run = PolicyRunConfig("a.npz", policy=policy.config)
    assert run.sampling({"policy": policy}, None, SamplingOptions()) == "Linear"
    vars(policy)["sample_actions"] = lambda state_BS, seeds, options: policy.layer(state_BS)  # without the chunk's axis
    for batch in (1, 3):
        with pytest.raises(ValueError, match=rf"Linear returned shape \({batch}, 1\); \({batch}, 1, 1\), a chunk of"):
            actor.act(torch.zeros(batch, 2))


def test_a_chunk_is_not_carried_out_beyond_its_end() -> None:
    PolicyConfig(chunk=10_000, batch_size=1)
    for setting in ({"chunk": 0}, {"execute": 0}, {"execute": 2}, {"chunk": 4, "execute": 5}, {"chunk": 10_001},
                    {"batch_size": 0}):
        with pytest.raises(ValueError, match=list(setting)[-1]):
            PolicyConfig(**setting)


@every_policy
def test_a_policy_learns_nothing_of_what_a_world_model_imagined(kind: type) -> None:
    """The critic does learn from synthetic data, so it is fixed here.

    Synthetic actions and rewards then change nothing but the mean absolute value that normalises the values, which is
    that of the whole batch.
    """
    config, data, learnt = small(kind), bandit(256), []
    if config.critic is not None:
        config = replace(config, critic=replace(config.critic, learning_rate=0.0))
    imagined = np.repeat(np.arange(256) % 2, 2)[:, None].astype(np.float32)
    other = imagined[::2] == 1
    for act, reward in ((data.act, data.reward), (np.where(other, -data.act, data.act), data.reward + other[:, 0])):
        policy = make(config, data)
        train(policy, replace(data, act=act, reward=reward, extras={"imagined": imagined}), 3)
        learnt.append(list(policy.parameters()))
    for one, another in zip(*learnt, strict=True):
        torch.testing.assert_close(one, another, rtol=0, atol=1e-4)
    before = list(make(config, data).parameters())
    assert not all(map(torch.equal, before, learnt[0]))


def test_windows_of_what_was_imagined_have_no_weight() -> None:
    data = bandit(4)
    policy, marks = make(small(BCConfig), data), np.repeat([0, 1, 0, 1], 2)[:, None]
    marked = replace(data, extras={"imagined": marks})
    t = policy.transition(Windows(marked, policy.spec).gather(np.arange(4)), 1.0)
    assert policy.windows(t).weight_B.tolist() == [2, 0, 2, 0]
    assert policy.windows(t, torch.tensor([1.0, 2.0, 3.0, 4.0])).weight_B.tolist() == [1, 0, 3, 0]


def test_rewards_and_ends_are_scaled_by_real_data_and_states_by_all() -> None:
    data = bandit(64)
    marked = concatenate([data, replace(data, obs=9 * data.obs, reward=data.reward - 100,
                                        extras={"imagined": np.ones((128, 1))})])
    ours, alone = Scales.fit(marked, ContextConfig()), Scales.fit(data, ContextConfig())
    assert ours.reward_statistics == alone.reward_statistics and torch.equal(ours.reward.scale_D, alone.reward.scale_D)
    assert (ours.obs.scale_D > 2 * alone.obs.scale_D).all()


def test_fql_acts_by_the_average_of_a_student_as_large_as_its_teacher() -> None:
    data = bandit(200)
    policy: Any = POLICIES.made_of(small(FQLConfig))(2, 1, small(FQLConfig), Scales.fit(data, ContextConfig()))

    def size(network: torch.nn.Module) -> list[tuple[int, ...]]:
        return [tuple(p.shape) for p in network.parameters()]

    assert size(policy.student) == size(policy.model.network) == size(policy.student_ema.module)
    optimizers, windows = policy.optimizers(), Windows(data, policy.spec)
    for step in range(5):
        policy.update(windows.batch(step, 0, 32), optimizers, generator(0, step))
    state, z = torch.zeros(3, 2), RowNoise([1, 2, 3]).normal(1, 1)
    acted, student, average = (policy.sample_actions(state, [1, 2, 3]).flatten(1),
                               policy.one_step(policy.student, state, z), policy.one_step(policy.student_ema, state, z))
    assert torch.equal(acted, average.clamp(-1, 1)) and not torch.equal(student, average)
