"""Every planner by name: trained, saved, loaded and evaluated in closed loop; which of them plan for goals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from gentraj import runs
from gentraj.agents.planning.inverse_dynamics import InverseDynamicsConfig
from gentraj.agents.planning.plan_critic import PlanCritic
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig
from gentraj.agents.realtime.background import Deadline
from gentraj.agents.realtime.planner import RealTimePlanner
from gentraj.config import with_settings
from gentraj.envs.making import environment_factory
from gentraj.families import FAMILIES
from gentraj.networks import ResidualMLPConfig, TemporalUNetConfig
from gentraj.runs import PlannerRun, PlannerRunConfig
from gentraj.runs.judge.evaluation import say_leaps
from gentraj.runs.kinds import presets
from gentraj.runs.kinds.presets import with_model
from gentraj.training import TrainingConfig

FOR_RETURNS = ("veteran", "veteran+", "decision-diffuser", "hierarchical-diffuser", "diffuser-lite", "diffuser")
FOR_GOALS = ("pointmaze", "far-goals", "diffuser-pointmaze", "diffuser-goals")  # goals: below, with a memory


def tiny(name: str, dataset: str | Path) -> PlannerRunConfig:
    """The preset with narrow networks and three steps of training; it tries few plans and, in a maze, plans rarely."""
    config = presets.PRESETS[name]
    assert isinstance(config, PlannerRunConfig)
    network = (ResidualMLPConfig(16, 1) if isinstance(config.model.network, ResidualMLPConfig)
               else TemporalUNetConfig(width=8))
    planner = replace(config.planner, candidates=min(config.planner.candidates, 3), steps=min(config.planner.steps, 2))
    if config.planner.replan > 1:
        planner = replace(planner, replan=15)
    if not config.joint:
        config = replace(config, inverse=replace(config.inverse or InverseDynamicsConfig(), width=16))
    if config.critic is not None:
        config = replace(config, critic=replace(config.critic, width=16))
    return replace(config, dataset=str(dataset), model=config.model.with_network(network), planner=planner,
                   arrival=replace(config.arrival, width=16), training=TrainingConfig(steps=3, threads=1))


def check(config: PlannerRunConfig, folder: Path, width: int) -> torch.Tensor:
    """A loaded run gives the same actions and episodes, and an episode's seed its actions.

    Returns what two episodes of different seeds did, (steps, 2, A).
    """
    made = runs.train(config, folder=folder / "a", progress=False)
    loaded = runs.load(folder / "a")
    obs = made.reference.x_BHD[:1, 0, :width].expand(3, -1)
    goal = made.example_goal(made.reference, obs)
    acts = []
    for run in (made, loaded):
        space = run.action_space()
        agent = run.agent(space)
        agent.pad_batches()
        agent.reset([1, 2, 2])
        acts.append(torch.stack([agent.act(obs, goal) for _ in range(3)]))
        assert acts[-1].shape == (3, 3, *space.shape) and space.contains(acts[-1][0, 0].numpy())
    assert torch.equal(acts[0], acts[1])
    assert torch.equal(acts[0][:, 1], acts[0][:, 2])
    in_time = loaded.agent(space, deadline=Deadline(600.0))
    assert isinstance(in_time, RealTimePlanner)
    in_time.reset([1])
    assert space.contains(in_time.act(obs[:1], None if goal is None else goal[:1])[0].numpy())
    assert in_time.timing()["acted_by"] == {"the plan": 1}
    short = environment_factory(str(made.data.env), {"max_episode_steps": 20})  # in a maze, two plans
    first, second = (run.evaluate(short.spec_json, 2, num_envs=2, baselines=False, progress=False)
                     for run in (made, loaded))
    assert first.recorded == second.recorded
    return acts[0][:, :2]


@pytest.mark.parametrize("name", FOR_RETURNS)
def test_a_planner_for_returns_trains_saves_and_acts(name: str, hopper_file: Path, tmp_path: Path) -> None:
    config = tiny(name, hopper_file)
    assert not torch.equal(*check(config, tmp_path, 11).unbind(1))
    run = runs.load(tmp_path / "a")
    assert isinstance(run.config, PlannerRunConfig)
    assert len(run.components) == 1 + (config.critic is not None) + (config.inverse is not None) + len(config.refine)
    agent = run.agent()
    assert isinstance(agent, Planner)
    assert [fine.spec.dim for fine in agent.sampler.finer][-1:] in ([], [agent.tracker.spec.dim])
    assert isinstance(agent.sampler.critic, PlanCritic) == (config.critic is not None)
    assert bool(run.config.planner.context) == bool(config.context.kinds)  # a return to aim at, chosen from the data


def test_plans_with_actions_may_have_inverse_dynamics_beside_them(hopper_file: Path, tmp_path: Path) -> None:
    check(replace(tiny("veteran+", hopper_file), inverse=InverseDynamicsConfig(width=8, batch_size=8)), tmp_path, 11)
    run = runs.load(tmp_path / "a")
    assert isinstance(run.config, PlannerRunConfig) and set(run.components) == {"model", "inverse", "critic"}
    obs, own = run.reference.x_BHD[:1, 0, :11], run.config.planner
    assert own.actions == "joint"
    acts = [run.agent(config=replace(own, actions=actions)).act(obs) for actions in ("joint", "inverse")]
    assert not torch.equal(*acts)


@pytest.mark.parametrize("family", ["flow", "gan"])
def test_a_critic_of_noisy_plans_follows_another_generator(family: str, hopper_file: Path, tmp_path: Path) -> None:
    """The critic trains with that generator's noise and normaliser, and without noise if it has none."""
    generator = FAMILIES[family].with_network(ResidualMLPConfig(16, 1))
    config = with_model(tiny("diffuser", hopper_file), generator)
    run = runs.train(config, folder=tmp_path / "run", progress=False)
    act = run.agent(run.action_space()).act(run.reference.x_BHD[:1, 0, :11])
    assert act.shape == (1, 3)
    assert isinstance(run.config, PlannerRunConfig)
    assert bool(run.config.critic.noise_fraction) == (family == "flow")


def test_what_cannot_act_is_refused_before_the_training(tmp_path: Path, hopper_file: Path) -> None:
    config = replace(tiny("veteran", hopper_file), planner=PlannerConfig("fixed", replan=1, lookahead=2))
    with pytest.raises(ValueError, match="trained to look 1 steps ahead"):
        runs.train(config, folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", FOR_GOALS)
def test_a_planner_for_goals_trains_saves_and_acts(name: str, umaze: object, tmp_path: Path) -> None:
    check(tiny(name, small.DATASET), tmp_path, 4)


@pytest.mark.filterwarnings("ignore:no recorded way")  # in so few data
def test_a_planner_for_far_goals_may_have_another_model(umaze: object, tmp_path: Path) -> None:
    model = FAMILIES["gan"].with_network(ResidualMLPConfig(16, 1))
    check(replace(with_model(tiny("far-goals", small.DATASET), model), batch_size=8), tmp_path, 4)


def test_a_planner_for_goals_may_choose_by_values_of_goals_in_hindsight(umaze: object, tmp_path: Path) -> None:
    config = with_settings(tiny("goals", small.DATASET), {"context.goals": "hindsight", "critic.width": 16,
                                                          "planner.select": "value", "planner.candidates": 2})
    check(config, tmp_path, 4)
    run = runs.load(tmp_path / "a")
    assert isinstance(run, PlannerRun)
    assert run.critic is not None and run.critic.goal_dims == (0, 1)
    with pytest.raises(ValueError, match="only chooses plans"):
        run.sampler(replace(run.planning, guidance="value"))
    for changes, message in (({"critic": None, "planner.select": "trust"}, "which would not be trained"),
                             ({"critic.discount": 1.0}, "values would have no bound"),
                             ({"planner.guidance": "value"}, "only chooses plans")):
        with pytest.raises(ValueError, match=message):
            with_settings(config, changes)


def test_goals_that_only_the_settings_name_are_the_run_s_and_need_an_environment_that_gives_them(
        hopper_file: Path, tmp_path: Path) -> None:
    """Without a goal, it followed plans to nowhere, and was scored."""
    config = tiny("goals", hopper_file)
    config = replace(config, conditioning=replace(config.conditioning, goal_dims=(0,)))
    in_time = replace(config, training=replace(config.training, eval_every=1))
    with pytest.raises(ValueError, match=r"eval_every= .* goals \(entries \(0,\) of .*, and Hopper-v5 gives none"):
        runs.train(in_time, folder=tmp_path / "run", progress=False)
    run = runs.train(config, folder=tmp_path / "run", progress=False)
    assert run.data.goal_dims == (0,)
    with pytest.raises(ValueError, match=r"acts towards goals \(entries \(0,\) of .*, and Hopper-v5 gives none; "):
        run.evaluate(episodes=1, progress=False)


def test_a_planner_for_returns_is_refused_where_the_data_have_goals(umaze: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has goals, and these settings plan for returns .* pointmaze in mazes"):
        runs.train(tiny("veteran", small.DATASET), folder=tmp_path / "run")


def test_guidance_of_what_a_model_denoises_needs_a_model_that_does() -> None:
    with pytest.raises(ValueError, match=r"'classifier-free', which changes what a model denoises, and .* family gan"):
        with_model(presets.PRESETS["decision-diffuser"], FAMILIES["gan"])


def test_more_sampling_steps_than_levels_of_noise_are_refused_before_any_training() -> None:
    tracked = presets.PRESETS["diffuser-pointmaze"]
    few = replace(FAMILIES["diffusion"], levels=10)  # type: ignore[call-arg]
    for model in (few, replace(FAMILIES["latent"], prior=few)):  # type: ignore[call-arg]
        with pytest.raises(ValueError, match=r"planner.steps is 20, but .* 10 levels of noise; set planner.steps too"):
            replace(tracked, model=model)  # type: ignore[call-arg]


@pytest.mark.parametrize(("leaps", "said"), [
    ((18.0, 1.0, 6.0), "at least 6 times as long"), ((2.4, 1.0, 9.0), ""), ((), "")])
def test_plans_that_leap_are_told_of_after_an_evaluation(leaps: tuple[float, ...], said: str,
                                                          capsys: pytest.CaptureFixture) -> None:
    say_leaps(torch.tensor(leaps))
    err = capsys.readouterr().err
    assert bool(err) == bool(said) and said in err
