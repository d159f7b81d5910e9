"""A world model's run as Gymnasium environments: one or many, the same episodes, and why each of them ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from small import DATASET

import envs  # noqa: F401  it registers gentraj/WorldModel-v0
from agents.bc import BCConfig
from envs.imagined import BOUNDS, DOUBT, NOT_FINITE, TIME_LIMIT, ImaginedConfig
from envs.world_model import WorldModelEnv, WorldModelVectorEnv
from gentraj import presets, runs, world_env
from gentraj.checkpoint import NothingSaved
from gentraj.data import Episodes, save_npz
from gentraj.networks import ResidualMLPConfig
from gentraj.runs import PolicyRunConfig
from gentraj.training import TrainingConfig
from gentraj.world_model import GENERATOR, WorldModel, WorldModelConfig
from gentraj.world_run import WorldModelRunConfig

ID = "gentraj/WorldModel-v0"
FREE: dict[str, Any] = {"margin": 1e9, "max_doubt": 1e9}  # nothing but a real end or the time limit ends an episode


def train(dataset: Path, folder: Path) -> Path:
    generator = replace(GENERATOR, network=ResidualMLPConfig(16, 1))
    world = WorldModelConfig(model=generator, members=2, width=16, depth=1, batch_size=32)
    config = WorldModelRunConfig(str(dataset), world=world, training=TrainingConfig(100, warmup=1, threads=1))
    runs.train(config, folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def hopping(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a world model of Hopper-v5."""
    return train(hopper_file, tmp_path_factory.mktemp("world") / "run")


@pytest.fixture(scope="module")
def walks() -> Episodes:
    """A point that is pushed about on its way to a goal: position and velocity. Which environment, they do not say."""
    rng, E, T = np.random.default_rng(0), 40, 12
    act_ETA = rng.uniform(-0.5, 0.25, (E, T, 2))
    velocity = np.concatenate([np.zeros((E, 1, 2)), act_ETA.cumsum(1)], 1)
    obs = np.concatenate([rng.normal(size=(E, 1, 2)) + 0.1 * velocity.cumsum(1), velocity], 2).reshape(-1, 4)
    goal = np.repeat(rng.normal(size=(E, 2)), T + 1, 0)
    return Episodes(obs, act_ETA.reshape(-1, 2), np.zeros(E * T), np.zeros(E * T, bool),
                    np.arange(E * T) % T == T - 1, np.full(E, T), {"goal": goal}, (0, 1), ("observation",))


@pytest.fixture(scope="module")
def walking(walks: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return train(save_npz(walks, folder / "walks.npz"), folder / "run")


def one(run: Path, **settings: Any) -> WorldModelEnv:
    made = gymnasium.make(ID, run=run, **settings).unwrapped
    assert isinstance(made, WorldModelEnv)
    return made


def many(run: Path, num_envs: int = 4, **settings: Any) -> WorldModelVectorEnv:
    made = gymnasium.make_vec(ID, num_envs=num_envs, run=run, **settings).unwrapped
    assert isinstance(made, WorldModelVectorEnv)
    return made


def tell(monkeypatch: pytest.MonkeyPatch, env: WorldModelEnv | WorldModelVectorEnv, rows: slice = slice(None),
         **values: float) -> None:
    """From now on these are what the world model says of each step, in these rows."""
    world: WorldModel = env.episodes.world
    imagine = world.imagine

    def told(*args: Any, **kwargs: Any) -> Any:
        made = imagine(*args, **kwargs)
        for name, value in values.items():
            getattr(made, name)[rows] = value
        return made

    monkeypatch.setattr(world, "imagine", told)


def pushes(steps: int, num_envs: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, num_envs, width)).astype(np.float32)


def rolled(env: WorldModelVectorEnv, seed: int | list[int], acts: np.ndarray) -> list[np.ndarray]:
    """Observations, rewards and flags, (steps, B, ...) each; the first row is the reset."""
    obs, zeros = env.reset(seed=seed)[0], np.zeros(env.num_envs)
    rows = [(obs, zeros, zeros > 0, zeros > 0), *(env.step(act)[:4] for act in acts)]
    flat = [(np.concatenate(list(obs.values()), 1) if isinstance(obs, dict) else obs, *rest) for obs, *rest in rows]
    return [np.stack(part) for part in zip(*flat, strict=True)]


# -- Gymnasium


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity",
                            "ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.parametrize("name", ["hopping", "walking"])
def test_gymnasium_finds_nothing_wrong(name: str, request: pytest.FixtureRequest) -> None:
    env = gymnasium.make(ID, run=request.getfixturevalue(name), **FREE)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", ["hopping", "walking"])
def test_what_is_seen_is_in_the_spaces(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    env, single = many(run, 3), one(run)
    assert single.observation_space == env.single_observation_space
    assert single.action_space == env.single_action_space
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    env.action_space.seed(0)
    seen = [env.reset(seed=0)[0], *(env.step(env.action_space.sample())[0] for _ in range(5))]
    assert all(obs in env.observation_space for obs in seen)


def test_the_real_environment_gives_action_space_and_time_limit_where_the_data_name_it(hopping: Path) -> None:
    env, real = one(hopping), gymnasium.make("Hopper-v5")
    assert env.action_space == real.action_space and env.observation_space.shape == real.observation_space.shape
    assert env.episodes.config.max_episode_steps == real.spec.max_episode_steps == 1000  # type: ignore[union-attr]
    assert many(hopping, max_episode_steps=7).episodes.config.max_episode_steps == 7
    real.close()


def test_else_actions_go_as_far_as_those_of_the_data(walks: Episodes, walking: Path) -> None:
    space = one(walking).action_space
    np.testing.assert_allclose([space.low, space.high], [walks.act.min(0), walks.act.max(0)], atol=0.05)


# -- one and many


@pytest.mark.parametrize("name", ["hopping", "walking"])
def test_environment_i_is_the_single_one_of_seed_plus_i(name: str, request: pytest.FixtureRequest) -> None:
    """Step for step, through ends and starts."""
    run, seed, settings = request.getfixturevalue(name), 5, {"max_episode_steps": 6, **FREE}
    env, single = many(run, **settings), world_env.make(run, **settings)
    acts = pushes(20, 4, env.single_action_space.shape[0])  # type: ignore[index]
    obs, reward, terminated, truncated = rolled(env, seed, acts)
    flat = lambda x: np.concatenate(list(x.values())) if isinstance(x, dict) else x  # noqa: E731
    lengths = []
    for i in range(4):
        assert np.array_equal(flat(single.reset(seed=seed + i)[0]), obs[0, i])
        ended, steps = False, 0
        for t, act in enumerate(acts[:, i], 1):
            step = (single.reset()[0], 0.0, False, False) if ended else single.step(act)[:4]
            assert np.array_equal(flat(step[0]), obs[t, i])
            assert step[1:] == (reward[t, i], terminated[t, i], truncated[t, i])
            steps = 0 if ended else steps + 1
            ended = step[2] or step[3]
            lengths += [steps] if ended else []
    assert max(lengths) == 6  # they are not all over at once


def test_the_same_seeds_give_the_same_rollouts(hopping: Path) -> None:
    settings = {"max_episode_steps": 6, **FREE}
    acts = pushes(12, 4, 3)
    env = many(hopping, **settings)
    made, again, other = rolled(env, 3, acts), rolled(env, [3, 4, 5, 6], acts), rolled(env, 9, acts)
    anew = rolled(many(hopping, **settings), 3, acts)
    for a, b, c in zip(made, again, anew, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)
    assert not np.array_equal(made[0], other[0])


def test_an_ended_episode_starts_anew_with_the_next_step(walks: Episodes, walking: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """That step earns nothing and ends nothing, whatever was done, and shows a start of the data."""
    env = many(walking, max_episode_steps=3, **FREE)
    tell(monkeypatch, env, end_BT=0.0, reward_BT=1.0)
    tell(monkeypatch, env, slice(0, 1), end_BT=1.0)
    starts = {row.tobytes() for row in walks.obs[walks.starts + np.arange(len(walks))]}
    obs, _ = env.reset(seed=0)
    acts, seen = pushes(8, 4, 2), []
    for act in acts:
        obs, reward, terminated, truncated, info = env.step(act)
        begun = [row.tobytes() in starts for row in obs["observation"]]
        seen.append((begun, reward.tolist(), terminated.tolist(), truncated.tolist(), info["_doubt"].tolist()))
    for t, (begun, reward, terminated, truncated, doubted) in enumerate(seen, 1):
        again = [t % 2 == 0, *[t % 4 == 0] * 3]
        assert begun == again and reward == [0.0 if new else 1.0 for new in again]
        assert terminated == [t % 2 == 1, False, False, False] and truncated == [False, *[t % 4 == 3] * 3]
        assert doubted == [not new for new in again]


def test_a_mask_resets_some_and_leaves_the_others(walking: Path) -> None:
    env = many(walking, **FREE)
    env.reset(seed=0)
    before = env.step(pushes(1, 4, 2)[0])[0]
    after = env.reset(options={"reset_mask": np.array([True, False, False, True])})[0]
    moved = (before["observation"] != after["observation"]).any(1)
    assert moved.tolist() == [True, False, False, True]
    assert env.episodes.elapsed_B.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("name", ["hopping", "walking"])
def test_what_was_seen_stays_and_writing_there_changes_nothing(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    env, other = one(run, **FREE), one(run, **FREE)
    act = np.zeros(env.action_space.shape, np.float32)  # type: ignore[arg-type]
    parts = lambda obs: list(obs.values()) if isinstance(obs, dict) else [obs]  # noqa: E731
    seen = parts(env.reset(seed=0)[0])
    kept = [x.copy() for x in seen]
    env.step(act)
    assert all(np.array_equal(a, b) for a, b in zip(seen, kept, strict=True))
    for part in parts(env.reset(seed=0)[0]):
        part[:] = 7
    other.reset(seed=0)
    for a, b in zip(parts(env.step(act)[0]), parts(other.step(act)[0]), strict=True):
        assert np.array_equal(a, b)


# -- why an episode is cut


def test_the_time_limit_cuts(hopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = world_env.make(hopping, max_episode_steps=3, **FREE)
    tell(monkeypatch, env, end_BT=0.0)
    for seed in range(2):
        env.reset(seed=seed)
        steps = [env.step(act[0])[2:] for act in pushes(3, 1, 3)]
        assert [step[:2] for step in steps] == [(False, False), (False, False), (False, True)]
        assert ["truncated_by" in info for *_, info in steps] == [False, False, True]
        assert steps[-1][2]["truncated_by"] == TIME_LIMIT


@pytest.mark.parametrize(("settings", "said", "why"), [
    ({"max_doubt": 1e9, "margin": 0.1}, {"obs_BTO": 1e6}, BOUNDS),
    ({"max_doubt": 1e9, "margin": 1e9}, {"obs_BTO": 1e6}, None),
    ({"max_doubt": 1e-6, "margin": 1e9}, {}, DOUBT),
    ({"max_doubt": 3.0, "margin": 1e9}, {"doubt_BT": 1e6}, DOUBT),
    ({"max_doubt": 1e-6, "margin": 0.0}, {"obs_BTO": -1e6}, BOUNDS)])
def test_an_episode_is_cut_where_nothing_is_known(settings: dict[str, float], said: dict[str, float], why: str | None,
                                                  hopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = one(hopping, **settings)
    tell(monkeypatch, env, end_BT=0.0, **said)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(pushes(1, 1, 3)[0, 0])
    assert (terminated, truncated, info.get("truncated_by")) == (False, why is not None, why)


@pytest.mark.parametrize(("settings", "said", "why"), [
    ({"margin": 0.1, "max_doubt": 1e9}, {"obs_BTO": 1e6}, BOUNDS), ({"max_doubt": 1e-6, "margin": 1e9}, {}, DOUBT),
    ({"margin": 1e9, "max_doubt": 1e9, "max_episode_steps": 1}, {}, TIME_LIMIT)])
def test_where_nothing_is_known_it_may_end_for_good(settings: dict[str, float], said: dict[str, float], why: str,
                                                    hopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a cost, and for nothing else; but not where only the time is up."""
    env, hoping = (world_env.make(hopping, unknown=unknown, cost=cost, **settings)
                   for unknown, cost in (("end", 5.0), ("cut", 0.0)))
    seen = []
    for each in (env, hoping):
        tell(monkeypatch, each, end_BT=0.0, reward_BT=1.0, **said)
        each.reset(seed=0)
        seen.append(each.step(pushes(1, 1, 3)[0, 0])[1:])
    (reward, terminated, truncated, info), (more, _, cut, _) = seen
    known = why == TIME_LIMIT
    assert (terminated, truncated, info["truncated_by"]) == (not known, known, why) and cut
    assert reward == pytest.approx(more if known else -5)


def test_where_nothing_is_known_an_end_is_not_believed_either(hopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who learns there would be paid for dying where nobody knows."""
    env = world_env.make(hopping, max_doubt=1e-6, margin=1e9, unknown="end", cost=5.0)
    tell(monkeypatch, env, end_BT=0.9, reward_BT=7.0)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(pushes(1, 1, 3)[0, 0])
    assert (reward, terminated, truncated, info["truncated_by"]) == (-5, True, False, DOUBT)


def test_episodes_start_anywhere_in_the_data_where_they_are_told_to(hopping: Path) -> None:
    env = world_env.make(hopping, starts="anywhere", **FREE)
    anywhere = env.episodes.world.facts.anywhere_NS.numpy()
    begun = np.stack([env.reset(seed=seed)[0] for seed in range(20)])
    assert (begun[:, None] == anywhere).all(-1).any(1).all() and len(np.unique(begun, axis=0)) > 10


def test_gymnasium_cuts_earlier_where_it_is_told_to(walking: Path) -> None:
    """`gymnasium.make` keeps `max_episode_steps` to itself and counts on its own."""
    env = gymnasium.make(ID, run=walking, max_episode_steps=2, **FREE)
    env.reset(seed=0)
    assert [env.step(act[0])[3] for act in pushes(2, 1, 2)] == [False, True]


def test_a_real_end_is_no_cut(hopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = world_env.make(hopping, max_doubt=1e-6, max_episode_steps=1)
    tell(monkeypatch, env, end_BT=0.6)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(pushes(1, 1, 3)[0, 0])
    assert (terminated, truncated) == (True, False) and "truncated_by" not in info


@pytest.mark.parametrize("field", ["obs_BTO", "reward_BT", "end_BT", "doubt_BT"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_that_is_not_finite_leaves_it(field: str, value: float, hopping: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """The episode is cut where it was; the others go on."""
    env = many(hopping, 2, **FREE)
    tell(monkeypatch, env, end_BT=0.0)
    tell(monkeypatch, env, slice(0, 1), **{field: value})
    before, _ = env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(pushes(1, 2, 3)[0])
    assert np.isfinite(obs).all() and np.isfinite(reward).all() and np.array_equal(obs[0], before[0])
    assert reward[0] == 0 and not terminated.any() and truncated.tolist() == [True, False]
    assert info["truncated_by"].tolist() == [NOT_FINITE, ""] and not np.array_equal(obs[1], before[1])
    obs, reward, *_ = env.step(pushes(1, 2, 3)[0])
    assert np.isfinite(obs).all() and reward[0] == 0


def test_a_penalty_takes_doubt_off_the_reward(hopping: Path) -> None:
    plain, careful = one(hopping, **FREE), one(hopping, penalty=2.0, **FREE)
    for env in (plain, careful):
        env.reset(seed=0)
    act = pushes(1, 1, 3)[0, 0]
    obs, reward, *_, info = plain.step(act)
    there, less, *_ = careful.step(act)
    assert np.array_equal(obs, there) and info["doubt"] > 0
    assert less == pytest.approx(reward - 2 * info["doubt"], rel=1e-5)


# -- goals


@pytest.mark.parametrize("num_envs", [0, 3], ids=["one", "many"])
def test_where_the_data_have_goals_it_shows_them(num_envs: int, walks: Episodes, walking: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = many(walking, num_envs, **FREE) if num_envs else one(walking, **FREE)
    tell(monkeypatch, env, end_BT=0.0)
    goals, shape = {row.tobytes() for row in walks.extras["goal"]}, env.action_space.shape
    obs, _ = env.reset(seed=0)
    seen = [obs] + [env.step(np.zeros(shape, np.float32))[0] for _ in range(4)]
    for each in seen:
        assert each in env.observation_space and set(each) == {"observation", "achieved_goal", "desired_goal"}
        assert np.array_equal(each["achieved_goal"], each["observation"][..., [0, 1]])
        assert np.array_equal(each["desired_goal"], obs["desired_goal"])  # it stays for the episode
    assert {row.tobytes() for row in np.atleast_2d(obs["desired_goal"])} <= goals


def test_goals_of_another_width_are_refused(walking: Path) -> None:
    run = runs.load(walking)
    with pytest.raises(ValueError, match=r"goal_dims \(0,\) name 1 entries; the world model has goals of 2"):
        WorldModelEnv(run.world_model, world_env.action_space(run), goal_dims=(0,))


def test_rewards_may_be_those_that_the_environment_gives_for_being_there(umaze: Episodes, tmp_path: Path) -> None:
    """One for a goal within 0.45 of where the model says that it is."""
    env = many(train(Path(DATASET), tmp_path / "run"), 64, own_rewards=True, temperature=0.0, **FREE)
    env.reset(seed=0)
    away_B2 = np.random.default_rng(0).uniform(-0.5, 0.5, (64, 2))
    env.episodes.place(env.episodes.obs_BO, env.episodes.obs_BO[:, :2] + away_B2)
    obs, reward, *_ = env.step(np.zeros((64, 2), np.float32))
    apart = np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"], axis=1)
    assert np.array_equal(reward, apart <= 0.45) and 0 < reward.sum() < 64
    assert np.array_equal(env.compute_reward(obs["achieved_goal"], obs["desired_goal"], {}), reward)


# -- what is refused


@pytest.mark.parametrize("name", ["hopping", "walking"])
def test_an_environment_without_rewards_of_goals_gives_none(name: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(ValueError, match=r"has no compute_reward of goals; leave own_rewards out$"):
        one(request.getfixturevalue(name), own_rewards=True)


@pytest.mark.parametrize("num_envs", [0, 3], ids=["one", "many"])
@pytest.mark.parametrize("spoilt", ["narrow", "wide", "nan", "inf", "scalar"])
def test_a_wrong_action_is_refused(num_envs: int, spoilt: str, hopping: Path) -> None:
    env: Any = many(hopping, num_envs) if num_envs else one(hopping)
    env.reset(seed=0)
    act = np.zeros(env.action_space.shape, np.float32)
    wrong = {"narrow": act[..., 1:], "wide": np.concatenate([act, act], -1), "nan": act + np.nan, "inf": act + np.inf,
             "scalar": np.float32(0)}[spoilt]
    before = env.episodes.obs_BO.copy()
    with pytest.raises(ValueError, match=r"^actions of shape .* were given; finite ones of shape .* are expected$"):
        env.step(wrong)
    assert np.array_equal(env.episodes.obs_BO, before) and (env.episodes.elapsed_B == 0).all()


@pytest.mark.parametrize("make", [one, many])
def test_a_run_that_is_no_world_model_is_said_in_one_line(make: Any, hopper_file: Path, tmp_path: Path) -> None:
    policy = presets.PRESETS["bc-gaussian"].policy  # type: ignore[union-attr]
    assert isinstance(policy, BCConfig)
    tiny = replace(policy, batch_size=8, model=policy.model.with_network(ResidualMLPConfig(8, 1, frequencies=0)))
    runs.train(PolicyRunConfig(str(hopper_file), policy=tiny, training=TrainingConfig(1)), tmp_path / "run",
               progress=False)
    with pytest.raises(ValueError, match=r"^.*run is a policy \(BC, gaussian\) and no world model; train one .*$"):
        make(tmp_path / "run")
    with pytest.raises(NothingSaved, match=r"^.*nowhere: no run there \(config.json is missing\).*$"):
        make(tmp_path / "nowhere")


@pytest.mark.parametrize(("settings", "message"), [
    ({"max_episode_steps": 0}, "max_episode_steps is 0"), ({"temperature": -1.0}, "temperature is -1"),
    ({"margin": -0.1}, "margin is -0.1")])
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, walking: Path) -> None:
    with pytest.raises(ValueError, match=rf"ImaginedConfig\.{message}"):
        ImaginedConfig(**settings)
    for make in (world_env.make, world_env.make_vec):
        with pytest.raises(ValueError, match=message):
            make(walking, **settings)


def test_no_picture_without_an_environment(walking: Path) -> None:
    env = one(walking, render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="nothing draws this world model"):
        env.render()
    assert one(walking).render() is None


def test_no_environments_are_no_vector(walking: Path) -> None:
    with pytest.raises(ValueError, match="num_envs is 0; give at least 1"):
        many(walking, 0)


def test_what_it_says_is_what_the_world_model_imagines(hopping: Path) -> None:
    """A step is one of `imagine`, in environment units; without temperature no seed matters."""
    env = one(hopping, temperature=0.0, **FREE)
    start, _ = env.reset(seed=0)
    act = pushes(1, 1, 3)[0]
    obs, reward, *_, info = env.step(act[0])
    made = runs.load(hopping).world_model.imagine(torch.from_numpy(start)[None], torch.from_numpy(act)[:, None],
                                                  seeds=[0], temperature=0.0)
    assert np.array_equal(obs, made.obs_BTO[0, 0].numpy())
    assert (reward, info["doubt"]) == (made.reward_BT.item(), made.doubt_BT.item())
