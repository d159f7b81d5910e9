"""The studio's session, without viser and without a browser: questions, plans, obstacles, the closed loop."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import DATASET, changed, gentraj

from gentraj import runs
from gentraj.envs.tasks.maze import Disc
from gentraj.runs.kinds.world_run import WorldModelRunConfig
from gentraj.studio.loading import Loaded, alike, load_runs, ready
from gentraj.studio.planning import answers
from gentraj.studio.session import Session, Worker
from gentraj.training import TrainingConfig
from gentraj.worlds.model import WorldModelConfig

INSIDE = np.array([0.3, 0.05])  # in the wall of UMaze
CORNER = np.array([1.0, 1.0])


def test_a_plan_leads_from_the_start_to_the_goal(session: Session) -> None:
    session.move_start(CORNER)
    session.move_goal([1.0, -1.0])
    answer = session.plan()
    x_HD = answer.x_NHD[answer.chosen]
    np.testing.assert_array_equal(x_HD[0, :4], [1, 1, 0, 0])
    np.testing.assert_array_equal(x_HD[answer.arrival_step_N[answer.chosen], :2], [1, -1])
    np.testing.assert_array_equal(answer.places(answer.chosen)[-1], [1, -1])
    assert answer.ms > 0 and len(answer.frames) == answer.question.settings.steps


def test_places_in_walls_move_to_the_nearest_free_place(session: Session) -> None:
    maze = session.loaded.maze
    assert maze is not None
    session.move_start(INSIDE)
    start_2 = np.array(session.obs[:2])
    low_W2, high_W2 = maze.wall_boxes()
    gap_W2 = np.maximum(low_W2 - start_2, start_2 - high_W2)
    assert gap_W2.max(1).min() == pytest.approx(session.loaded.body)  # it touches the wall, and enters none
    session.move_goal([50.0, 0.0])
    assert maze.is_free(np.array(session.goal[:2]))
    session.move_goal(CORNER)
    np.testing.assert_array_equal(session.goal[:2], CORNER)  # a free place stays


def test_of_jobs_of_a_name_the_newest_is_done_when_the_oldest_was_due() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[object] = []

    def work(request: int) -> None:
        begun.set()
        assert go_on.wait(10)
        done.append(request)
        raise ZeroDivisionError

    worker = Worker(lambda error: done.append(type(error)))
    worker.do("work", lambda: work(0))
    assert begun.wait(10)
    worker.do("later", lambda: done.append("later"), 0.05)
    for request in range(1, 100):
        worker.do("work", lambda request=request: work(request))
    worker.do("other", lambda: done.append("other"))
    worker.do("work", lambda: work(100))
    go_on.set()
    assert worker.wait("work", "other", "later")
    assert done == [0, ZeroDivisionError, 100, ZeroDivisionError, "other", "later"]
    worker.close()
    worker.do("work", lambda: work(101))
    assert not worker.thread.is_alive() and len(done) == 6


def test_obstacles_are_kept_out_of_and_certified(session: Session) -> None:
    session.move_start(CORNER)
    session.move_goal([1.0, -1.0])
    session.block(Disc(0.0, 1.2, 0.2))
    answer = session.plan()
    assert answer.certificate is not None
    distance_NH = np.linalg.norm(answer.x_NHD[..., :2] - [0.0, 1.2], axis=-1)
    depth_N = np.clip(0.2 - distance_NH.min(1), 0, None)
    [found_N] = [violation for name, violation in answer.certificate.by_name.items() if "Circle" in name]
    np.testing.assert_allclose(found_N, depth_N, atol=1e-6)
    session.block()
    assert session.plan().certificate is None


@pytest.mark.parametrize("discs", [(), (Disc(0.0, 1.3, 0.15),)])
def test_the_same_question_has_the_same_plans_to_the_bit_and_they_are_exported(session: Session,
                                                                               discs: tuple[Disc, ...]) -> None:
    session.move_start(np.array([0.7, 1.1]))
    session.set(temperature=0.7, candidates=2, seed=5, steps=2)
    session.block(*discs)
    answer = session.plan()
    again = next(answers(load_runs([session.loaded.run.folder])[0], answer.question))
    np.testing.assert_array_equal(again.x_NHD, answer.x_NHD)
    assert again.chosen == answer.chosen


def test_settings_stay_within_what_a_run_can_do(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.set(scale=3.0, steps=10_000, temperature=math.nan, candidates=10**9, seed=-1)
    own = session.settings[session.loaded]
    assert own.scale == 0  # the run has neither a critic nor a context
    assert (own.temperature, own.candidates, own.seed) == (0, 16, 0) and own.steps < 10_000
    monkeypatch.setattr("gentraj.studio.planning.only_steps", lambda _: 3)
    session.set(steps=9)
    assert session.settings[session.loaded] == own  # a student of some steps has no other number


def test_the_closed_loop_steps_turns_and_begins_anew(session: Session) -> None:
    session.move_start(CORNER)
    session.step(3)
    drive = session.drive
    assert drive is not None and drive.steps == 3 and drive.plan_at(3) is not None
    np.testing.assert_allclose(drive.path[0], [1, 1, 0, 0], atol=1e-6)
    drive.success = True
    session.move_goal([-1.0, 1.0])
    assert not drive.success and drive.question.goal == (-1, 1)
    session.step()
    np.testing.assert_array_equal(drive.envs.goal_BG, [[-1, 1]])
    assert drive.steps == 4 and np.abs(drive.path[4] - drive.path[3]).max() < 0.5  # it was not moved
    session.reset()
    assert session.drive is None


def test_what_cannot_be_planned_is_told_in_one_line(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("this cannot\nbe planned")

    with monkeypatch.context() as context:
        context.setattr("gentraj.studio.session.answers", fail)
        session.ask()
        with pytest.raises(ValueError, match="this cannot be planned"):
            session.plan()
    session.ask()
    session.plan()
    assert not session.problem


def test_a_run_that_observes_something_else_is_not_alike(bodies: list[Loaded], session: Session) -> None:
    planner, policy = bodies
    other = replace(planner, run=changed(planner.run, data=replace(planner.run.data, obs_dim=105)))
    assert alike(planner, policy) and not alike(other, policy)


def test_the_command_refuses_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("studio", tmp_path) == 2
    assert "no run there" in capsys.readouterr().err


def test_the_command_says_where_a_world_model_is_seen(hopper_file: Path, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture) -> None:
    world = WorldModelConfig(model=None, members=2, width=16, depth=1, batch_size=32)
    config = WorldModelRunConfig(str(hopper_file), world=world, training=TrainingConfig(4, warmup=1, threads=1))
    runs.train(config, folder=tmp_path / "world")
    capsys.readouterr()
    assert gentraj("studio", tmp_path / "world") == 2
    [line] = capsys.readouterr().err.splitlines()
    for words in ("is a world model", "shows planners and policies", f"gentraj judge {tmp_path / 'world'}"):
        assert words in line


def test_without_runs_it_shows_those_that_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = list[Loaded]()

    class Stopped:
        def __init__(self, loaded: list[Loaded], _: int):
            served.extend(loaded)
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gentraj.studio.server.Studio", Stopped)
    assert gentraj("studio") == 130
    assert [each.name for each in served] == ["pointmaze-large", "pointmaze-large-student"]


def test_a_run_of_an_unknown_environment_is_refused(mazes: list[Loaded]) -> None:
    run = mazes[0].run
    with pytest.raises(ValueError, match="train it with env="):
        ready(changed(run, data=replace(run.data, env=None)))


@pytest.mark.filterwarnings("ignore:no recorded way")
def test_the_way_to_a_far_goal_goes_round_obstacles_until_one_closes_it(far: list[Loaded]) -> None:
    session = Session(far)
    session.ask()
    answer = session.plan()
    assert answer.route is not None
    place_N2 = answer.route.place_NG
    np.testing.assert_allclose(place_N2[[0, -1]], [session.obs, session.goal], atol=1e-6)
    assert f"way to the goal: {answer.route.left:.0f} steps" in str(answer)
    np.testing.assert_array_equal(answer.places(answer.chosen)[[0, -1]], [session.obs, session.goal])
    assert answer.x_NHD.shape[1] == len(answer.step_H) > answer.arrival_step_N[answer.chosen] > 5
    session.step(2)
    assert session.drive is not None
    np.testing.assert_allclose(session.drive.path[0], session.obs, atol=1e-6)
    np.testing.assert_allclose(session.drive.envs.goal_BG, [session.goal])
    assert session.drive.decisions[0].route is not None
    session.reset()
    x, y = place_N2[len(place_N2) // 2].tolist()
    session.block(Disc(x, y, 1.0))
    around = session.plan()
    assert around.route is not None and np.linalg.norm(around.route.place_NG - [x, y], axis=1).min() > 1
    assert around.certificate is not None and around.certificate.worst.shape == around.ratio_N.shape
    x, y = place_N2[2].tolist()
    session.block(*session.discs, Disc(x, y, 1.0))  # in the only way from the start
    assert session.plan().lacks_way and "No recorded way" in str(session.plan())
    session.close()


def test_a_policy_shows_the_path_that_it_takes(tmp_path: Path, session: Session) -> None:
    narrow = ("--policy.batch-size", 16, "--policy.model.network.width", 8, "--policy.model.network.depth", 1)
    assert gentraj("train", "bc-gaussian", "--dataset", DATASET, "--run-dir", tmp_path / "bc", "--steps", 2,
                   *narrow) == 0
    [policy] = load_runs([tmp_path / "bc"])
    own = Session([policy, session.loaded])
    own.move_start(CORNER)
    own.move_goal([1.0, 0.5])
    answer = own.plan()
    assert gentraj("train", "--resume", policy.run.folder, "--steps", 4) == 0  # which changes nothing of what was shown
    np.testing.assert_allclose(answer.x_NHD[0, 0], [1, 1, 0, 0], atol=1e-6)
    assert answer.x_NHD.shape[1] == answer.arrival_step_N[0] + 1 > 1
    own.choose(session.loaded)  # the planner in the same maze keeps start and goal
    assert own.plan().question.goal == answer.question.goal
    own.close()
