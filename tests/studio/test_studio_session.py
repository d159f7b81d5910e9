"""The studio's session, without viser and without a browser: questions, plans, obstacles, the closed loop, exports."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import DATASET, gentraj

from gentraj.data import save_npz
from gentraj.envs import RandomAgent, environment_factory, rollout
from gentraj.studio.export import plan_npz, python_call
from gentraj.studio.latest import Latest
from gentraj.studio.loading import BODY, Loaded, load_runs
from gentraj.studio.planning import Disc, cross_boxes, cross_disc, described, plan_for
from gentraj.studio.session import Session

INSIDE = np.array([0.3, 0.05])  # in the wall of UMaze
CORNER = np.array([1.0, 1.0])


@pytest.fixture(scope="module")
def loaded(small_run: Path) -> Loaded:
    return load_runs([small_run])[0]


def test_a_run_in_the_working_directory_has_the_name_of_its_folder(
        small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_run)
    assert [each.name for each in load_runs([Path()])] == [small_run.name]


@pytest.fixture
def session(loaded: Loaded):
    session = Session([loaded])
    yield session
    session.close()


def test_a_plan_leads_from_the_start_to_the_goal(session: Session) -> None:
    session.move_start(CORNER)
    session.move_goal([1.0, -1.0])
    answer = session.plan()
    x_HD, row = answer.x_NHD[answer.chosen], answer.row_N[answer.chosen]
    np.testing.assert_array_equal(x_HD[0, :4], [1, 1, 0, 0])
    np.testing.assert_array_equal(x_HD[row, :2], [1, -1])
    assert answer.ms > 0 and len(answer.frames) == session.own.steps
    np.testing.assert_array_equal(answer.places(answer.chosen)[-1], [1, -1])


def test_a_line_crosses_a_box_or_a_disc_exactly_if_one_of_its_points_is_inside() -> None:
    draw, inf = np.random.default_rng(0), np.inf
    low_W2 = np.array([[-0.5, -0.2], [0.6, -inf]])
    high_W2 = np.array([[0.3, 0.4], [inf, inf]])
    places_H2 = draw.uniform(-1, 1, (200, 2))
    places_H2[3, 0] = places_H2[4, 0]  # along an axis
    part_P1 = np.linspace(0, 1, 4001)[:, None]
    points_SP2 = places_H2[:-1, None] + part_P1 * np.diff(places_H2, axis=0)[:, None]
    inside_SPW = ((points_SP2[:, :, None] > low_W2) & (points_SP2[:, :, None] < high_W2)).all(-1)
    np.testing.assert_array_equal(cross_boxes(places_H2, low_W2, high_W2), inside_SPW.any((1, 2)))
    inside_SP = np.linalg.norm(points_SP2 - [0.2, -0.1], axis=-1) < 0.35
    np.testing.assert_array_equal(cross_disc(places_H2, np.array([0.2, -0.1]), 0.35), inside_SP.any(1))
    still_H2 = np.array([[-0.5, 0.0], [-0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])  # on the border, and inside
    assert cross_boxes(still_H2, low_W2, high_W2).tolist() == [False, True, True]


def test_parts_of_a_plan_between_timesteps_that_cross_something_are_counted(session: Session) -> None:
    answer = session.plan()
    start, goal = np.array([-1.0, 1.0]), np.array([-1.0, -1.0])  # with the wall of UMaze between them
    through = np.zeros_like(answer.x_NHD)
    through[:, :, :2] = np.where(np.arange(through.shape[1])[:, None] < 2, start, goal)
    leaps = replace(answer, x_NHD=through, row_N=np.full(len(through), 3))
    assert leaps.crossing.tolist() == [False, True, False]
    assert "cross a wall or an obstacle: **1 of 3**" in described(leaps)
    stays = replace(leaps, row_N=np.ones(len(through), int))
    assert not stays.crossing.any() and "cross" not in described(stays)
    blocked = replace(stays, question=replace(answer.question, discs=(Disc(-1.0, 1.2, 0.3),)))
    assert blocked.crossing.tolist() == [True]


def test_places_in_walls_move_to_the_nearest_free_place(session: Session, loaded: Loaded) -> None:
    session.move_start(INSIDE)
    assert loaded.maze is not None and loaded.maze.is_free(np.array(session.obs[:2]))
    low, high = loaded.maze.wall_boxes()
    gap_W2 = np.maximum(low - np.array(session.obs[:2]), np.array(session.obs[:2]) - high)
    assert gap_W2.max(1).min() == pytest.approx(BODY)  # it touches the wall, and enters none
    session.move_goal([50.0, 0.0])
    assert session.goal and loaded.maze.is_free(np.array(session.goal[:2]))
    session.move_goal(CORNER)
    np.testing.assert_array_equal(np.array(session.goal[:2]), CORNER)  # a free place stays


def test_only_the_newest_request_is_worked_on() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def work(request: int) -> None:
        begun.set()
        go_on.wait(10)
        done.append(request)

    latest = Latest(work, "test")
    latest.ask(0)
    begun.wait(10)
    for request in range(1, 100):
        latest.ask(request)
    go_on.set()
    assert latest.wait(10) and done == [0, 99]
    latest.close()
    latest.ask(100)
    assert latest.thread is not None
    latest.thread.join(10)
    assert not latest.thread.is_alive() and done == [0, 99]


def test_work_that_fails_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done, reported = [], []
    monkeypatch.setattr(threading, "excepthook", lambda about: reported.append(about.exc_value))

    def work(request: int) -> None:
        done.append(1 // request)

    latest = Latest(work, "test")
    latest.ask(0)
    assert latest.wait(10) and not done
    latest.ask(1)
    assert latest.wait(10) and done == [1]
    assert [type(each) for each in reported] == [ZeroDivisionError]
    latest.close()


def test_obstacles_are_kept_out_of_and_certified(session: Session) -> None:
    session.move_start(CORNER)
    session.move_goal([1.0, -1.0])
    session.add_disc([0.0, 1.2], 0.2)
    answer = session.plan()
    assert answer.certificate is not None and answer.certificate.worst.shape == (len(answer.x_NHD),)
    distance_NH = np.linalg.norm(answer.x_NHD[..., :2] - [0.0, 1.2], axis=-1)
    depth_N = np.clip(0.2 - distance_NH.min(1), 0, None)
    found_N = next(v for name, v in answer.certificate.by_name.items() if "Circle" in name).numpy()
    np.testing.assert_allclose(found_N, depth_N, atol=1e-6)
    session.remove_discs()
    assert session.plan().certificate is None


@pytest.mark.parametrize("obstacles", [False, True])
def test_the_python_call_gives_the_same_plans_to_the_bit(session: Session, obstacles: bool) -> None:
    session.move_start(np.array([0.7, 1.1]))
    session.set(temperature=0.7, candidates=2, seed=5, steps=2)
    if obstacles:
        session.add_disc([0.0, 1.3], 0.15)
    answer, names = session.plan(), {}
    exec(python_call(answer), names)  # noqa: S102 - the program that the studio exports
    assert torch.equal(names["plans"].x_BNHD[0], torch.from_numpy(answer.x_NHD))
    assert int(names["plans"].chosen_B) == answer.chosen


def test_the_exported_plan_holds_what_was_shown(session: Session) -> None:
    answer = session.plan()
    with np.load(io.BytesIO(plan_npz(answer)), allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["obs"], answer.x_NHD[..., :4])
        np.testing.assert_array_equal(saved["start"], session.obs)
        assert saved["chosen"] == answer.chosen and saved["goal"].tolist() == list(session.goal)


def test_settings_that_a_run_does_not_have_stay_as_they_are(session: Session, loaded: Loaded) -> None:
    session.set(scale=3.0, steps=10_000, temperature=0.5)
    assert session.own.scale == 0  # the run has neither a critic nor a context
    assert session.own.steps == loaded.most_steps and session.own.temperature == 0.5


def test_a_student_of_some_steps_keeps_their_number(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gentraj.studio.loading.only_steps", lambda _: 3)
    for steps in (1, 9):
        session.set(steps=steps)
        assert session.own.steps == 3


def test_the_closed_loop_steps_turns_and_begins_anew(session: Session) -> None:
    session.move_start(CORNER)
    session.loop.step(3)
    drive = session.loop.drive
    assert drive is not None and len(drive.path) == 4 and drive.plan is not None
    np.testing.assert_allclose(drive.path[0], [1, 1, 0, 0], atol=1e-6)
    drive.success = True
    session.move_goal([-1.0, 1.0])
    assert not drive.success and drive.question.goal == (-1, 1)  # of which the video and the words are
    session.loop.step()
    np.testing.assert_array_equal(drive.envs.goal_BG, [[-1, 1]])
    assert len(drive.path) == 5 and np.abs(drive.path[4] - drive.path[3]).max() < 0.5  # it was not moved
    session.reset()
    assert session.loop.drive is None


def test_the_closed_loop_runs_until_it_is_paused(session: Session) -> None:
    moved = threading.Event()
    session.loop.changed = moved.set
    session.loop.play()
    assert moved.wait(20)
    session.loop.pause()
    assert session.loop.drive is not None and not session.loop.playing.is_set()


def test_a_loop_that_is_paused_in_a_step_does_not_go_on_beside_the_next(session: Session) -> None:
    shown, go_on, loops = threading.Event(), threading.Event(), []

    def show() -> None:
        loops.append(threading.current_thread())
        shown.set()
        assert go_on.wait(20)

    session.loop.changed = show
    session.loop.play()
    assert shown.wait(20)
    session.loop.pause()
    session.loop.play()
    go_on.set()
    loops[0].join(20)
    assert not loops[0].is_alive() and session.loop.playing.is_set()
    session.close()
    steps = len(session.loop.drive.path) if session.loop.drive else 0
    session.loop.step()
    assert session.loop.drive is not None and len(session.loop.drive.path) == steps > 1  # none is taken after the end


def test_settings_that_cannot_be_are_told_in_one_line(session: Session) -> None:
    session.set(temperature=-1.0)
    with pytest.raises(ValueError, match=r"temperature is -1\.0"):
        session.plan()
    assert session.problem and "\n" not in session.problem
    session.set(temperature=1.0)
    session.plan()
    assert not session.problem


def test_a_run_without_a_maze_or_a_folder_without_a_run_is_refused(tmp_path: Path, capsys) -> None:
    assert gentraj("studio", tmp_path) == 2
    assert gentraj("studio") == 2
    assert gentraj("studio", tmp_path, "--page-steps", 5) == 2
    assert gentraj("studio", tmp_path, "--export-page", tmp_path / "a.html", "--port", 9) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "no run there" in errors[0] and "no run was given" in errors[1]
    assert "--page-steps are those of --export-page" in errors[2] and "leave --host and --port out" in errors[3]


def test_a_run_on_data_without_an_environment_is_refused_with_what_to_do(hopper: Any, tmp_path: Path, capsys) -> None:
    """And its training names what needs no environment."""
    save_npz(replace(hopper, env=None), tmp_path / "robot.npz")
    run = tmp_path / "run"
    assert gentraj("train", "bc-gaussian", "--dataset", tmp_path / "robot.npz", "--run-dir", run, "--steps", 2) == 0
    assert capsys.readouterr().out == (f"next: gentraj evaluate {run} --env-id ID; or, without an environment: gentraj "
                                       f"export {run} --low LOW --high HIGH --out FILE.onnx\n")
    assert gentraj("studio", run) == 2
    assert "so the studio cannot show it; train it with --env-id" in capsys.readouterr().err


def test_a_run_without_a_scene_is_refused_before_it_is_served(tmp_path: Path) -> None:
    """Pendulum is not one of MuJoCo's environments."""
    factory = environment_factory("Pendulum-v1")
    space = factory().action_space
    recorded = rollout(RandomAgent(space.low, space.high), factory, 2, record=True, progress=False).recorded
    save_npz(recorded, tmp_path / "pendulum.npz")
    run = tmp_path / "run"
    assert gentraj("train", "bc-gaussian", "--dataset", tmp_path / "pendulum.npz", "--run-dir", run, "--steps", 2) == 0
    with pytest.raises(ValueError, match=r"Pendulum-v1.*not a MuJoCo environment"):
        load_runs([run])


@pytest.fixture(scope="module")
def policy(umaze: None, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("policy") / "bc"
    assert gentraj("train", "bc-gaussian", "--dataset", DATASET, "--run-dir", folder, "--steps", 4) == 0
    return load_runs([folder])[0]


def test_a_policy_shows_the_path_that_it_takes(policy: Loaded, session: Session,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    own, names = Session([policy, session.loaded]), {}
    own.move_start(CORNER)
    own.move_goal([1.0, 0.5])
    answer = own.plan()
    assert gentraj("train", "--resume", policy.run.folder, "--steps", 8) == 0  # which changes nothing of what was shown
    np.testing.assert_allclose(answer.x_NHD[0, 0], [1, 1, 0, 0], atol=1e-6)
    assert answer.x_NHD.shape[1] == answer.row_N[0] + 1 > 1
    exec(python_call(answer), names)  # noqa: S102 - the program that the studio exports
    np.testing.assert_array_equal(names["answer"].x_NHD, answer.x_NHD)
    with np.load(io.BytesIO(plan_npz(answer)), allow_pickle=False) as saved:
        assert saved["stride"] == 1
    own.choose(1)  # the planner in the same maze keeps start and goal
    assert own.plan().question.goal == answer.question.goal
    [drive], closed = own.plans._ahead.values(), []
    monkeypatch.setattr(drive, "close", lambda: closed.append(drive))
    own.close()
    assert closed == [drive]


def test_plans_do_not_depend_on_what_was_asked_before(session: Session, loaded: Loaded) -> None:
    question = session.question()
    first = plan_for(loaded, question)
    session.set(temperature=0.1, candidates=3)
    session.plan()
    np.testing.assert_array_equal(plan_for(loaded, question).x_NHD, first.x_NHD)
