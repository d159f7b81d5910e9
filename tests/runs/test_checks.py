"""What data and an environment have not in common is one line before a training."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small

from gentraj.data import ContextConfig, Episodes, load_episodes
from gentraj.data.windows import GoalContext
from gentraj.envs.making import environment_factory
from gentraj.runs import DataFacts, RunConfig
from gentraj.runs.kinds.planner_run import PlannerRun
from gentraj.runs.kinds.presets import PRESETS, short_training
from gentraj.runs.learn.training import check_data, check_lessons


def checked(episodes: Episodes, env_id: str | None = None) -> list[str]:
    """Returns the warnings of `check_data`, which name the data, and none of what is collected as garbage meanwhile."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", f"{re.escape(episodes.name)}: ")
        check_data(DataFacts.of(episodes, ContextConfig(), env_id), episodes, env_id)
    return [str(one.message) for one in warned]


def test_actions_outside_the_action_space_are_reported(umaze: Episodes) -> None:
    act = umaze.act.copy()
    act[100:200] *= 50
    text, = checked(replace(umaze, act=act))
    assert " % of the actions lie outside the action space of PointMaze_UMaze-v3, Box(-1.0, 1.0, (2,), float32)" in text
    assert checked(umaze) == []


def test_observations_outside_the_observation_space_are_reported(follow: Path) -> None:
    data = load_episodes(follow)
    assert checked(data) == []
    obs = data.obs.copy()
    obs[:, 1] *= 1000
    text, = checked(replace(data, obs=obs))
    assert "entry 1 is" in text and "may be -1 to 1" in text and "entry 0" not in text
    obs = data.obs.copy()
    obs[0, 1] = 1.5  # once, as environments leave their spaces
    assert checked(replace(data, obs=obs)) == []


def test_observations_of_another_width_than_the_environment_has_are_refused(umaze: Episodes) -> None:
    for env in (environment_factory("Hopper-v5").spec_json, umaze.env):
        wrong = replace(umaze, env=env, obs=umaze.obs[:, :3], obs_keys=(), goal_dims=(), extras={})
        with pytest.raises(ValueError, match=r"the data have observations of width 3 and actions of 2, but .* env="):
            checked(wrong)


def test_an_environment_that_cannot_be_made_here_is_left_for_later_in_so_many_words(umaze: Episodes) -> None:
    assert checked(replace(umaze, env=None)) == []
    broken = environment_factory("Hopper-v5", {"colour": "red"}).spec_json  # its class takes no such argument
    for env, why in (('{"id": "Absent-v0"}', "unknown environment 'Absent-v0'"), (broken, "colour")):
        line, = checked(replace(umaze, env=env))
        assert "cannot be made here, so nothing is compared with its spaces" in line and why in line


def test_wrappers_that_the_environment_is_made_without_are_reported(umaze: Episodes) -> None:
    """Data name them, but they are code, which no data may have run."""
    def recorded(*wrappers: object) -> Episodes:
        return replace(umaze, env=json.dumps(json.loads(str(umaze.env)) | {"additional_wrappers": list(wrappers)}))

    names = "RecordVideo", "RescaleAction", "a\nb"
    text, = checked(recorded(*({"name": name, "entry_point": "os:system", "kwargs": {}} for name in names)))
    assert "recorded with the wrappers RescaleAction, without which their environment is made here" in text
    assert checked(recorded({"name": "RecordVideo"}, 3)) == []


def test_goals_of_another_width_than_the_environment_has_are_refused(umaze: Episodes) -> None:
    goal = umaze.extras["goal"]
    wide = replace(umaze, goal_dims=(0, 1, 2), extras=umaze.extras | {"goal": goal[:, [0, 1, 1]]})
    with pytest.raises(ValueError, match=r"goals of width 3, but PointMaze_UMaze-v3 has goals of 2; .*env="):
        checked(wide)


def lessons(config: RunConfig, episodes: Episodes) -> list[str]:
    """Returns the warnings of `check_lessons`."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        check_lessons(config, episodes)
    return [str(one.message) for one in warned]


def test_actions_that_are_all_the_same_are_reported_whatever_learns_from_them(hopper: Episodes) -> None:
    still = replace(hopper, act=np.full_like(hopper.act, 0.5))
    for preset in ("bc-gaussian", "iql", "veteran+", "world-ensemble"):
        assert lessons(PRESETS[preset], hopper) == []
        text, = lessons(PRESETS[preset], still)
        assert "0.5" in text
    assert lessons(PRESETS["veteran+"], replace(hopper, act=hopper.act[:, :0])) == []  # trajectories without actions


@pytest.mark.parametrize(("preset", "learns"), [
    ("iql", True), ("swift", True), ("fql", True), ("veteran+", True), ("decision-diffuser", True),
    ("world-ensemble", False), ("bc-gaussian", False), ("diffusion-policy", False), ("pointmaze", False),
    ("goals", False)])
def test_rewards_of_zero_and_ends_without_flags_are_reported_where_they_are_learned_from(
        hopper: Episodes, preset: str, learns: bool) -> None:
    config, never = PRESETS[preset], np.zeros(hopper.num_steps, bool)
    for lacking, word in ((replace(hopper, reward=np.zeros_like(hopper.reward)), "reward"),
                          (replace(hopper, terminated=never, truncated=never), "flag")):
        found = lessons(config, lacking)
        assert [word in text for text in found] == [True] * learns
    in_time = replace(hopper, terminated=never, truncated=hopper.terminated | hopper.truncated)
    assert lessons(config, in_time) == []


def test_goals_in_hindsight_have_rewards_of_their_own(umaze: Episodes) -> None:
    config = replace(PRESETS["iql"], context=GoalContext(goals=PRESETS["far-objects"].context.goals))
    assert lessons(config, replace(umaze, reward=np.zeros_like(umaze.reward))) == []


def test_a_horizon_longer_than_every_episode_is_a_warning(umaze: Episodes) -> None:
    whole = replace(umaze, goal_dims=(), extras={}, obs_keys=())[0]
    T = whole.num_steps
    short = small.config()
    short = replace(short, conditioning=replace(short.conditioning, goal=0.0))
    with pytest.warns(UserWarning, match=f"64 timesteps span {63 * 100} environment steps, .* has {T}, so that"):
        PlannerRun.resolve(replace(short, horizon=64, stride=100), whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PlannerRun.resolve(replace(short, horizon=T + 1, stride=1), whole)
    with pytest.warns(UserWarning, match=f"span {T + 1} environment steps"):
        PlannerRun.resolve(replace(short, horizon=T + 2, stride=1), whole)


def test_a_plan_of_one_timestep_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon"):
        replace(small.config(), horizon=1)
    assert replace(small.config(), horizon=2).horizon == 2


@pytest.mark.parametrize("name", PRESETS)
def test_a_training_of_less_than_half_the_usual_steps_is_called_short(name: str) -> None:
    def of_steps(steps: int) -> str | None:
        return short_training(replace(PRESETS[name], training=replace(PRESETS[name].training, steps=steps)))

    assert of_steps(PRESETS[name].training.steps) is None
    found = of_steps(100)
    assert found is not None and "100 updates" in found
    usual = int(found.split()[-1].replace(",", ""))
    assert 100 < usual <= PRESETS[name].training.steps and of_steps(usual // 2) is None


def test_a_training_like_no_preset_is_not_called_short() -> None:
    own = replace(PRESETS["iql"], policy=replace(PRESETS["iql"].policy, model=PRESETS["bc-gan"].policy.model))
    assert short_training(replace(own, training=replace(own.training, steps=1))) is None
