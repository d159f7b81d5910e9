"""Every policy keeps the same contract; a new one is tested as soon as it has a preset."""

from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from gentraj.agents.policies import ACTORS, POLICIES, PRESETS
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.critic import CriticConfig
from gentraj.agents.policies.expo import EditConfig, ExpoConfig
from gentraj.agents.policies.policy import Policy, Transition, mean_one
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.steering import SteeredConfig, SteeringActorConfig
from gentraj.agents.policies.student import StudentConfig
from gentraj.agents.roadmap.far_goals import FarGoals, RoadmapConfig, Waypoints, roadmap_of
from gentraj.data import ContextConfig, Episodes, HindsightConfig, HindsightWindows, Windows, concatenate
from gentraj.families import ACTION_MODELS
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.testing import check_policy
from gentraj.training import optimization
from gentraj.training.optimization import NonFinite
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, SamplingOptions

SMALL = ResidualMLPConfig(width=32, depth=1, frequencies=0)
EVERY = {name: config for name, (_, config) in PRESETS.items() if name not in ("bc-flow", "bc-gan", "diffusion-policy")}
EVERY["student"] = StudentConfig()
EVERY["steered"] = SteeredConfig(frozen=BCConfig(chunk=4))
EVERY["expo"] = ExpoConfig(frozen=BCConfig(chunk=4), delay=1, caution=0.0, by="newest")
LEARNERS = StudentConfig | SteeringActorConfig | EditConfig  # settings of a network of their own
NO_CONTEXT = ContextConfig()
every_policy = pytest.mark.parametrize("name", EVERY)


def bandit(number: int = 2_000) -> Episodes:
    """Episodes of one step with the noisy actions 0.6 and -0.6; the reward is 1 for the one with the sign of s_0."""
    rng = np.random.default_rng(0)
    obs, side = rng.normal(size=(number, 2, 2)), rng.choice([-1, 1], number)
    act = (0.6 * side + 0.1 * rng.normal(size=number)).clip(-1, 1)
    reward, yes, no = np.sign(act) == np.sign(obs[:, 0, 0]), np.ones(number, bool), np.zeros(number, bool)
    return Episodes(obs.reshape(-1, 2), act[:, None], reward, yes, no, np.ones(number, int))


def chain() -> Episodes:
    """Episodes of three and two steps with rewards 1, 2, 3 and 4, 5: the first terminates, the second is truncated."""
    obs = np.stack([np.arange(7.0), -np.arange(7.0)], 1)
    ends, cuts = np.array([0, 0, 1, 0, 0], bool), np.array([0, 0, 0, 0, 1], bool)
    return Episodes(obs, np.linspace(-1, 1, 5)[:, None], np.arange(1.0, 6.0), ends, cuts, np.array([3, 2]))


def narrow(config: Any) -> Any:
    """Settings, and those within them, with networks of width 32 that learn fast."""
    changes: dict[str, Any] = {}
    names = {field.name for field in fields(config)}
    if "network" in names:
        changes = {"network": SMALL, "ema": 0.98}
    if "learning_rate" in names and ("network" in names or isinstance(config, LEARNERS)):
        changes["learning_rate"] = 5e-3
    if isinstance(config, LEARNERS):
        changes["width"] = 32
    if isinstance(config, SteeringActorConfig):
        changes["ema"] = 0.98
    changes |= {key: narrow(getattr(config, key)) for key in ("model", "actor", "edit", "frozen") if key in names}
    if "critic" in names:
        faster = {"tau": 0.05} if isinstance(config.critic, CriticConfig) else {}
        changes["critic"] = replace(config.critic, width=32, learning_rate=3e-3, **faster)
    return replace(config, **changes)


def small(name: str, **changes: Any) -> Any:
    """The settings of a preset with small networks."""
    config: Any = EVERY[name]
    return narrow(replace(config, **changes))


def make(config: Any, episodes: Episodes, contexts: ContextConfig = NO_CONTEXT) -> Any:
    torch.manual_seed(0)
    scales = StateActionScales.fit(episodes, contexts, config.observations, config.rewards)
    return POLICIES.made_of(config)(config, scales)


def two_ways(number: int = 2_000) -> Episodes:
    """Episodes of one step from 0 to the goal 1 or -1, by actions around 0.3 or -0.3."""
    rng = np.random.default_rng(0)
    side = rng.choice([-1.0, 1.0], number)
    act = (0.3 * side + 0.3 * rng.normal(size=number)).clip(-1, 1)
    obs = np.stack([0 * side, side], 1).reshape(-1, 1)
    never = np.zeros(number, bool)
    return Episodes(obs, act[:, None], 0 * side, never, never, np.ones(number, int), goal_dims=(0,))


def windows_of(policy: Policy, episodes: Episodes, discount: float) -> Transition:
    """The transitions that begin at each of the first five steps."""
    batch = Windows(episodes, policy.spec).gather(np.arange(min(5, len(episodes.act))))
    return policy.transition(batch, discount)


def train(policy: Policy, episodes: Episodes, steps: int, contexts: ContextConfig = NO_CONTEXT) -> dict[str, Any]:
    windows, optimizers, metrics = Windows(episodes, policy.spec, contexts), policy.optimizers(), {}
    for step in range(steps):
        metrics = policy.update(TrainingStep(windows.batch(step, 0, 64), optimizers, generator(step)))
    return metrics


def act(policy: Policy, obs: torch.Tensor, seeds: list[int], goal: torch.Tensor | None = None) -> torch.Tensor:
    actor = Actor(policy, -np.ones(policy.spec.act_dim), np.ones(policy.spec.act_dim))
    actor.reset(seeds)
    return actor.act(obs, goal)


@cache
def trained(name: str) -> Any:
    """A policy that has learnt from the bandit. Leave it as it is."""
    changes = {}
    if name in ("fql", "qc-fql"):
        changes = {"alpha": 0.3}  # the noise itself leads to one of the two actions
    policy = make(small(name, **changes), data := bandit())
    if name in ("steered", "expo"):
        train(frozen := make(policy.config.frozen, data), data, 100)
        policy.freeze(frozen)
    train(policy, data, 100)
    return policy


# -- the contract of every policy

HELD = (0.25, 3.0)  # what the second and the third action are in all of the data
GOAL = ContextConfig(("goal",))


def everything() -> Episodes:
    """Data with goals, and with actions that never vary."""
    data = bandit(100)
    return replace(data, act=np.column_stack([data.act, np.tile(HELD, (len(data.act), 1))]),
                   extras={"goal": np.arange(float(len(data.obs)))[:, None]})


@cache
def taught(name: str) -> Any:
    """A policy of chunks, towards goals, after two updates. Leave it as it is."""
    config = small(name, chunk=4, execute=3)
    policy = make(config, everything(), GOAL)
    before = torch.get_rng_state()
    metrics = train(policy, everything(), 2, GOAL)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in metrics.values())
    return policy


def actor_of(policy: Policy) -> Actor:
    return ACTORS.get(type(policy), Actor)(policy, np.array([-1, -1, -5], np.float32), np.array([1, 1, 3], np.float32))


def decide(policy: Policy, goal: float = 0.0) -> torch.Tensor:
    """The first four actions of two environments: a chunk of three, and the first of the next chunk."""
    actor = actor_of(policy)
    actor.reset([1, 2])
    return torch.stack([actor.act(torch.full((2, 2), float(i > 0)), torch.full((2, 1), goal)) for i in range(4)])


@every_policy
def test_every_policy_keeps_the_contract_with_chunks_and_goals(name: str) -> None:
    policy = taught(name)
    check_policy(policy)
    assert policy.state_dim == 3 and not torch.equal(decide(policy), decide(policy, goal=99.0))
    with pytest.raises(ValueError, match="trained with a goal was given none"):
        actor_of(policy).act(torch.zeros(2, 2))
    actor = actor_of(policy)  # it acts without a network until the chunk is carried out
    actor.reset([1, 2])
    calls = [actor.act(torch.ones(2, 2), torch.zeros(2, 1)) is not None and actor.network_calls for _ in range(4)]
    assert calls[0] == calls[2] < calls[3]


@pytest.mark.parametrize("name", ["bc-gaussian", "student"])
def test_a_way_is_looked_for_where_a_decision_is_made_and_at_no_other_step(
        name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, actor = [], actor_of(taught(name))
    road = roadmap_of(np.arange(300.0)[:, None], np.zeros(300))
    actor.ahead = FarGoals(road, RoadmapConfig(), (0,))
    monkeypatch.setattr(FarGoals, "aim", lambda far, obs_BO, goal_BG, detours: asked.append(
        obs_BO[:, 0].tolist()) or Waypoints(goal_BG + 1, goal_BG[:, 0]))
    for step in range(5):
        actor.reset(mask_B=torch.tensor([False, step == 1]))
        actor.act(torch.tensor([[step, 0.0], [step + 0.5, 0.0]]), torch.zeros(2, 1))
    assert asked == [[0, 0.5], [1.5], [3], [4.5]]  # chunks of three actions


@every_policy
def test_an_action_that_never_varies_in_the_data_stays_where_it_is(name: str) -> None:
    """No value was learned of any other."""
    act_TBA = decide(taught(name))
    torch.testing.assert_close(act_TBA[..., 1:], torch.tensor(HELD).expand(4, 2, 2), rtol=0, atol=1e-5)
    assert not actor_of(taught(name)).limits.clips(act_TBA[0].numpy() * [0, 1, 1]).any()  # 3 is the space's bound


@every_policy
def test_an_action_without_noise_does_not_depend_on_its_seed(name: str) -> None:
    policy, one_BS, seeds = taught(name), torch.full((16, 3), 0.3), [*range(16)]
    cold, half, warm = (policy.sample_actions(one_BS, seeds, SamplingOptions(temperature=each)) for each in (0, 0.5, 1))
    torch.testing.assert_close(cold, cold[:1].expand_as(cold))
    without = ("bc-mip", "iql", "td3bc", "swift", "student", "steered")
    assert (len(warm[..., 0].unique()) > 4) == (name not in without)
    if "temperature" in policy.config.ACTING and policy.config.temperature == 1:  # the two temperatures multiply
        halved = policy.with_config(replace(policy.config, temperature=0.5))
        assert torch.equal(halved.sample_actions(one_BS, seeds), half)


@every_policy
def test_other_settings_to_act_by_need_no_other_training(name: str) -> None:
    """It acts as a policy that was made with those settings and has the same weights, and changes nothing itself."""
    others = {"execute": 1, "candidates": 1, "choice": "softmax", "temperature": 0.3, "guidance": 0.5, "sample": True,
              "caution": 2.0, "by": "prior"}
    policy = taught(name)
    if isinstance(policy.config, BCConfig):
        others["guidance"] = 1.0  # another one needs a model that has learned actions without goals, too
    before, config = decide(policy), replace(policy.config, **{key: others[key] for key in policy.config.ACTING})
    anew = make(config, everything(), GOAL)
    anew.load_state_dict(policy.state_dict())
    other = policy.with_config(config)
    assert torch.equal(decide(other), decide(anew))
    for child, _ in policy.named_children():
        setattr(other, child, torch.nn.Identity())  # a part of the copy is no part of the original
    assert torch.equal(decide(policy), before) and policy.config != config
    with pytest.raises(ValueError, match="only these settings may change"):
        policy.with_config(replace(config, batch_size=7))


class Program(TorchDispatchMode):
    """Records the operations in its block, with the shapes of their tensors and all other arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = list[str]()

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_map(lambda x: tuple(x.shape) if isinstance(x, torch.Tensor) else x, (args, kwargs))
        if func.namespace == "aten" and not isinstance((kwargs or {}).get("generator"), torch.Generator):
            self.operations.append(f"{func} {given}")
        return func(*args, **kwargs or {})


@every_policy
def test_an_update_is_the_same_program_whatever_it_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what it does on an accelerator depends on a number that the host has read, so that it can be captured
    once; nor on random numbers but those of its step."""
    monkeypatch.setattr(optimization, "waits_to_read", lambda tensor: True)
    config = small(name)
    if isinstance(config.critic, CriticConfig):
        config = replace(config, critic=replace(config.critic, gradient="random"))
    policy = make(config, data := bandit(64))
    windows, optimizers = Windows(data, policy.spec), policy.optimizers()
    programs, torch_state = list[list[str]](), torch.get_rng_state()
    for number in range(6):
        with Program() as program:
            policy.update(TrainingStep(windows.batch(number, 0, 8), optimizers, generator(number), unread=[]))
        programs.append(program.operations)
    assert programs[2] == programs[3] == programs[4] == programs[5]  # some things are made once
    assert torch.equal(torch.get_rng_state(), torch_state)


@every_policy
def test_a_number_that_is_not_finite_stops_an_update(name: str) -> None:
    policy = make(small(name), data := bandit(100))
    optimizers = policy.optimizers()
    key = next(key for key in ("actor", "network", "generator") if key in optimizers)
    with torch.no_grad():
        next(p for p in optimizers[key].param_groups[0]["params"] if p.ndim == 2).fill_(torch.inf)
    with pytest.raises(NonFinite):
        train(policy, data, 1)


@pytest.mark.parametrize("name", [name for name, config in EVERY.items() if config.critic is not None])
def test_what_earns_more_is_done_more_often_than_in_the_data(name: str) -> None:
    obs = torch.randn(100, 2, generator=generator(9)) * 2
    right = (act(trained(name), obs, list(range(100)))[:, 0].sign() == obs[:, 0].sign()).float().mean()
    assert right > 0.85  # of the data it is a half


@every_policy
def test_a_policy_learns_nothing_of_what_a_world_model_imagined(name: str) -> None:
    """The critic does learn from synthetic data, so it is fixed here.

    Synthetic actions and rewards then change nothing but the mean absolute value that normalises the values, which is
    that of the whole batch.
    """
    config, data, learnt = small(name), bandit(256), []
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


# -- single policies


def test_swift_is_guided_from_the_data_s_actions_to_the_better_ones() -> None:
    """Without guidance it is as often right as the data. As all advantages are of one size, three quarters of the right
    actions are labelled better, and a quarter of the others; the odds are those to the power of the guidance."""
    config = small("swift", temperature=1.0)
    policy = make(replace(config, context_dropout=0.3), data := bandit())
    train(policy, data, 150)
    obs, right = torch.randn(400, 2, generator=generator(9)) * 2, {}
    for guidance in (0.0, 1.0, 3.0):
        act_NA = act(policy.with_config(replace(policy.config, guidance=guidance)), obs, list(range(400)))[:, 0]
        right[guidance] = (act_NA.sign() == obs[:, 0].sign()).float().mean().item()
    assert 0.4 < right[0.0] < 0.6 and 0.65 < right[1.0] < 0.85 and right[3.0] > 0.9


@pytest.mark.parametrize("name", ["flow", "gan"])
def test_cloning_with_any_generator_draws_both_of_the_data_s_actions(name: str) -> None:
    policy = make(narrow(BCConfig(ACTION_MODELS[name])), data := bandit())
    train(policy, data, 120 if name == "gan" else 250)
    actions = act(policy, torch.zeros(400, 2), list(range(400)))[:, 0]
    assert actions.mean().abs() < 0.2 and (actions.abs() > 0.3).float().mean() > 0.7


# -- transitions


@pytest.mark.parametrize(("n_step", "reward", "discount", "after"), [
    (1, [1, 2, 3, 4, 5], [0.5, 0.5, 0, 0.5, 0.5], [1, 2, 3, 5, 6]),
    (2, [1 + 1, 2 + 1.5, 3, 4 + 2.5, 5], [0.25, 0, 0, 0.25, 0.5], [2, 3, 3, 6, 6]),
    (4, [1 + 1 + 0.75, 2 + 1.5, 3, 4 + 2.5, 5], [0, 0, 0, 0.25, 0.5], [3, 3, 3, 6, 6])])
def test_n_steps_are_earned_and_the_state_after_them_is_discounted_by_as_many(
        n_step: int, reward: list[float], discount: list[float], after: list[int]) -> None:
    data = chain()
    policy = Policy(BCConfig(), StateActionScales.fit(data, NO_CONTEXT), n_step)
    t = windows_of(policy, data, 0.5)
    torch.testing.assert_close(t.reward_B * np.sqrt((data.reward**2).mean()), torch.tensor(reward, dtype=torch.float32))
    assert t.discount_B.tolist() == discount
    torch.testing.assert_close(policy.scales.obs.unnormalize(t.next_BS), torch.from_numpy(data.obs[after]))
    torch.testing.assert_close(policy.scales.obs.unnormalize(t.state_BS), torch.from_numpy(data.obs[[0, 1, 2, 4, 5]]))
    torch.testing.assert_close(t.chunk_BX, torch.linspace(-1, 1, 5)[:, None])
    assert t.whole_B.all() and t.real_BK.shape == (5, 1) and t.episode_B.tolist() == [0, 0, 0, 1, 1]
    assert t.weight_B.tolist() == [1] * 5


def test_a_cut_chunk_is_learnt_as_far_as_it_goes() -> None:
    policy = make(small("bc-gaussian", chunk=2), chain())
    t = windows_of(policy, chain(), 0.5)
    assert t.real_BK.tolist() == [[True, True], [True, True], [True, False], [True, True], [True, False]]
    assert t.whole_B.tolist() == [True, True, True, True, False]  # nothing follows an end, something a cut
    seen: list[Batch] = []
    policy.model.model.update = lambda step: seen.append(step.batch) or {}
    policy.update(TrainingStep(Windows(chain(), policy.spec).gather(np.arange(5)), {}, generator(0)))
    batch = seen[0]
    assert torch.equal(batch.weight_B, torch.ones(5))
    assert batch.mask_BHD[..., :2].all() and torch.equal(batch.mask_BHD[..., 2], t.real_BK)
    assert torch.equal(batch.x_BHD[:, 0, :2], t.state_BS) and torch.equal(batch.x_BHD[:, 1, :2], t.state_BS)
    torch.testing.assert_close(batch.x_BHD[..., 2], torch.tensor([[-1, -0.5], [-0.5, 0], [0, 0], [0.5, 1], [1, 0]]))
    assert mean_one(torch.zeros(3)).tolist() == [0, 0, 0] and mean_one(torch.tensor([1.0, 3.0])).tolist() == [0.5, 1.5]


@pytest.mark.parametrize("advantages", ["relative", "raw"])
def test_an_action_keeps_its_weight_beside_what_a_world_model_imagined(advantages: str) -> None:
    """The mean loss over two imagined rows and the three real ones is that over the real ones of data without any."""
    seen: list[Batch] = []
    beside = replace(chain(), extras={"imagined": np.array([[0], [0], [0], [0], [1], [1], [1]])})
    for data, rows in ((chain(), 3), (beside, 5)):
        policy = make(small("iql", advantages=advantages), data)
        policy.model.model.update = lambda step: seen.append(step.batch) or {}
        batch = Windows(data, policy.spec).gather(np.arange(rows))
        t = policy.transition(batch, 0.5)
        weight_B = policy.actor_weights(t, torch.tensor([2.0, -1.0, 0.5, 9.0, -9.0])[:rows])
        policy.model.update(t, TrainingStep(batch, {}, generator(0)), weight_B)
    real_B, all_B = (batch.weights() / len(batch.x_BHD) for batch in seen)
    torch.testing.assert_close(all_B, torch.cat([real_B, torch.zeros(2)]))


# -- scales


def goal_scales() -> StateActionScales:
    """Actions in [-1, 3] and [4, 6], states of mean 1 and deviation 2, and a goal in [0, 10]."""
    return StateActionScales(Normalizer(torch.ones(2), torch.full((2,), 2.0)),
                             Normalizer(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 1.0])),
                             Normalizer(torch.tensor([5.0]), torch.tensor([5.0])), Normalizer.identity(1))


def test_a_state_is_what_is_observed_within_ten_deviations_and_the_goal() -> None:
    scales, obs, goal = goal_scales(), torch.tensor([[3.0, 22.0], [1.0, -98.0]]), torch.tensor([[10.0], [30.0]])
    assert scales.state_dim == 3
    assert scales.state(obs, goal).tolist() == [[1, 10, 1], [0, -10, 5]]  # a goal may be anywhere
    with pytest.raises(ValueError, match="with a goal was given none"):
        scales.state(obs, None)
    plain = StateActionScales.blank(2, 1, 0)
    assert plain.state_dim == 2 and torch.equal(plain.state(obs, None), obs.clamp(-10, 10))
    with pytest.raises(ValueError, match="without a goal was given one"):
        plain.state(obs, goal)


def test_the_limits_are_where_states_are_clamped_and_the_narrower_bounds_of_actions() -> None:
    scales = goal_scales()
    assert [bound.tolist() for bound in scales.bounds()] == [[-19, -19], [21, 21]]
    limits = scales.limits(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 9.0]))
    assert (limits.act_low_A.tolist(), limits.act_high_A.tolist()) == ([-1, 4], [2, 6])
    assert limits.obs_low_O is not None and limits.obs_high_O is not None
    assert (limits.obs_low_O.tolist(), limits.obs_high_O.tolist()) == ([-19, -19], [21, 21])


def test_rewards_and_ends_are_scaled_by_real_data_and_states_by_all() -> None:
    data = bandit(64)
    marked = concatenate([data, replace(data, obs=9 * data.obs, reward=data.reward - 100,
                                        extras={"imagined": np.ones((128, 1))})])
    ours, alone = StateActionScales.fit(marked, NO_CONTEXT), StateActionScales.fit(data, NO_CONTEXT)
    assert (ours.mean_reward, ours.end_rate) == (alone.mean_reward, alone.end_rate)
    assert torch.equal(ours.reward.scale_D, alone.reward.scale_D)
    assert (ours.obs.scale_D > 2 * alone.obs.scale_D).all()


def test_guidance_exaggerates_what_the_goal_changes_and_needs_what_it_is_made_of():
    e, contexts = two_ways(), ContextConfig(("goal",), goals=HindsightConfig())
    policy = make(narrow(BCConfig(context_dropout=0.2, temperature=0.0, batch_size=64)), e, contexts)
    windows, optimizers = HindsightWindows(e, policy.spec, contexts), policy.optimizers()
    for step in range(150):
        policy.update(TrainingStep(windows.batch(step, 0, 64), optimizers, generator(step)))
    state_BS = policy.scales.state(torch.zeros(2, 1), torch.tensor([[-1.0], [1.0]]))
    found = {}
    for guidance in (0.0, 1.0, 3.0):
        guided = policy.with_config(replace(policy.config, guidance=guidance))
        left, right = guided.sample_actions(state_BS, [0, 0]).view(2)
        found[guidance] = (right - left).item()
    assert found[0.0] == 0 < found[1.0] < found[3.0]
    for settings in ({"guidance": 2.0}, {"guidance": 2.0, "context_dropout": 0.1, "model": ACTION_MODELS["gan"]}):
        with pytest.raises(ValueError, match="guidance is 2, which needs a model that denoises"):
            BCConfig(**settings)
    with pytest.raises(ValueError, match="there is no goal to drop"):
        make(BCConfig(context_dropout=0.1), bandit(10))
