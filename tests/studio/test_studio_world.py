"""A world model predicts the outcome of the simulator's actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from gentraj.studio.controls import Controls
from gentraj.studio.driving import compare_with_simulator
from gentraj.studio.loading import Loaded
from gentraj.studio.session import Session
from gentraj.studio.world_view import RANDOM, WorldView

STEPS = 10


@pytest.fixture(scope="module")
def world(bodies: list[Loaded]) -> Loaded:
    return bodies[1]


def test_both_get_the_same_actions_from_the_same_start(world: Loaded):
    beside = compare_with_simulator(world, None, STEPS)
    model, obs, act = world.run.world_model, torch.from_numpy(beside.obs_SO), torch.from_numpy(beside.act_TA)
    made = model.imagine(obs[:1], act[None], seeds=[0], temperature=0.0)
    np.testing.assert_array_equal(beside.predicted_SO[0], beside.obs_SO[0])
    np.testing.assert_allclose(beside.predicted_SO[1:], made.obs_BTO[0], rtol=1e-5)
    scale = model.facts.step_scale.numpy()
    expected = np.sqrt((((made.obs_BTO[0].numpy() - beside.obs_SO[1:]) / scale) ** 2).mean(1))
    np.testing.assert_allclose(beside.error_T, expected, rtol=1e-4)
    np.testing.assert_allclose(beside.uncertainty_T, made.uncertainty_BT[0], rtol=1e-4)


def test_with_restarts_it_begins_again_at_the_simulators_state(world: Loaded):
    beside, model = compare_with_simulator(world, None, STEPS, restart=1), world.run.world_model
    obs, act = torch.from_numpy(beside.obs_SO), torch.from_numpy(beside.act_TA)
    made = model.imagine(obs[:-1], act[:, None], seeds=[0] * len(act), temperature=0.0)
    np.testing.assert_allclose(beside.predicted_SO[1:], made.obs_BTO[:, 0], rtol=1e-5)
    never = compare_with_simulator(world, None, STEPS)
    np.testing.assert_array_equal(never.obs_SO, beside.obs_SO)  # the simulator knows nothing of the prediction
    every_five = compare_with_simulator(world, None, STEPS, restart=5)
    np.testing.assert_allclose(every_five.predicted_SO[:6], never.predicted_SO[:6], rtol=1e-4)
    np.testing.assert_allclose(every_five.predicted_SO[6], beside.predicted_SO[6], rtol=1e-4)


def test_a_seed_says_everything_and_noise_is_seeded(world: Loaded):
    first, second, mean, other = (compare_with_simulator(world, None, STEPS, temperature=temperature, seed=seed)
                                  for temperature, seed in ((1.0, 3), (1.0, 3), (0.0, 3), (1.0, 4)))
    np.testing.assert_array_equal(first.predicted_SO, second.predicted_SO)
    np.testing.assert_array_equal(first.obs_SO, mean.obs_SO)
    assert np.abs(first.predicted_SO - mean.predicted_SO).max() > 0
    assert np.abs(other.obs_SO[0] - first.obs_SO[0]).max() > 0


def test_another_run_acts_and_a_fall_ends_the_episode(bodies: list[Loaded]):
    planner, world, _ = bodies
    beside = compare_with_simulator(world, planner, 300)
    assert beside.ended == "terminated" and 0 < len(beside.act_TA) < 300
    assert beside.qpos_SQ is not None and beside.predicted_qpos_SQ is not None
    assert len(beside.qpos_SQ) == len(beside.predicted_qpos_SQ) == len(beside.obs_SO)
    np.testing.assert_array_equal(beside.predicted_qpos_SQ[0], beside.qpos_SQ[0])
    np.testing.assert_allclose(beside.predicted_qpos_SQ[:, 1:], beside.predicted_SO[:, :5], atol=1e-6)
    assert beside.trusted == np.argmax(np.append(beside.why_T != "", True))


def test_random_actions_are_within_the_data_where_the_environment_bounds_none(world: Loaded):
    unbounded = replace(world, space=Box(-np.inf, np.inf, world.space.shape))
    act_TA = compare_with_simulator(unbounded, None, STEPS).act_TA
    seen_NA = world.run.reference.x_BHD[..., world.run.data.obs_dim:].flatten(0, 1).numpy()
    assert (act_TA >= seen_NA.min(0)).all() and (act_TA <= seen_NA.max(0)).all() and np.ptp(act_TA) > 0


def test_an_actor_of_another_environment_is_refused(world: Loaded):
    other = replace(world, name="other", factory=replace(world.factory, env_id="Walker2d-v5"))
    with pytest.raises(ValueError, match="other acts in Walker2d-v5, and world predicts Hopper-v5"):
        compare_with_simulator(world, other, STEPS)


def test_the_panel_draws_both_bodies_at_the_chosen_step(client: Any, bodies: list[Loaded]):
    session = Session(bodies)
    session.choose(bodies[1])
    panel = WorldView(client.gui, client.scene, session)
    panel.steps.value = STEPS
    panel.actor.value = RANDOM
    panel.ask()
    assert session.worker.wait("predict", "show")
    beside = panel.beside
    assert beside is not None and len(beside.act_TA) == STEPS and panel.step.max == STEPS
    panel.step.value = 4
    assert session.worker.wait("show")
    real, predicted = panel.pair.real.handles[1], panel.pair.predicted.handles[1]
    assert real.batched_positions[0, 0] == pytest.approx(beside.qpos_SQ[4][0], abs=1e-5)
    assert predicted.batched_positions[0, 0] == pytest.approx(beside.predicted_qpos_SQ[4][0], abs=1e-5)
    assert predicted.batched_positions[0, 1] == pytest.approx(panel.pair.lane_3[1], abs=1e-5)
    assert f"step 4 of {STEPS}" in panel.status.content and f"error {beside.error_T[3]:.2f}" in panel.status.content
    np.testing.assert_allclose(panel.chart.data[1], beside.error_T)
    session.close()


def test_where_a_world_model_is_chosen_nothing_is_left_of_plans(client: Any, bodies: list[Loaded]):
    session = Session(bodies)
    controls = Controls(session, client)
    assert len(session.plan().frames) > 1
    assert session.worker.wait("texts") and "3 plans, of a run without" in controls.status.content
    assert not controls.obstacles.visible  # which are for mazes
    assert controls.denoising.visible
    controls.run.value = "world"
    assert session.worker.wait("choose", "predict", "plan", "texts") and session.loaded is bodies[1]
    assert not controls.denoising.visible and session.answer is None and "plans, of" not in controls.status.content
    controls.run.value = "planner"
    assert session.worker.wait("choose", "plan", "draw") and controls.denoising.visible
    session.close()
