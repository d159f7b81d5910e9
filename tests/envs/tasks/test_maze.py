"""The grid agrees with that of Gymnasium-Robotics, and its paths are the shortest."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from gentraj.envs.making import environment_factory
from gentraj.envs.tasks.maze import Maze, detour

rows = st.integers(1, 6).map(lambda width: st.lists(st.sampled_from([0, 0, 1]), min_size=width, max_size=width))
maps = rows.flatmap(lambda row: st.lists(row, min_size=1, max_size=6))


def relaxed_distances(maze: Maze, goal: int) -> np.ndarray:
    """Returns the distances to the goal by Bellman-Ford over the grid, which is slow and simple."""
    distance = np.where(np.arange(maze.free.size) == goal, 0, np.inf).reshape(maze.free.shape)
    for _ in range(maze.free.size):
        padded = np.pad(distance, 1, constant_values=np.inf)
        near = np.min([padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2]], 0)
        distance = np.where(maze.free, np.minimum(distance, near + 1), np.inf)
    return distance.ravel()


@given(maps)
def test_each_next_cell_is_one_step_nearer_to_the_goal(maze_map):
    assume(sum(cell == 0 for row in maze_map for cell in row) >= 2)
    maze = Maze(maze_map)
    longest = 0.0
    for goal in maze.cells:
        distance = relaxed_distances(maze, int(goal))
        reached = np.isfinite(distance) & (distance > 0)
        assert (distance[maze.next_cell[goal]][reached] == distance[reached] - 1).all()
        assert (maze.next_cell[goal][~reached] == np.flatnonzero(~reached)).all()
        longest = max(longest, distance[np.isfinite(distance)].max())
    assert maze.longest_way == longest


def test_an_obstacle_lies_where_another_way_is_left():
    ring = Maze([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert detour(ring, 0, 8) in (2, 6)
    assert detour(ring, 0, 1) is None  # nothing lies between neighbours
    assert detour(Maze([[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]]), 0, 3) == 2
    assert detour(Maze([[0, 0, 0]]), 0, 2) is None


def test_cells_and_positions_are_those_of_the_environment():
    factory = environment_factory("pointmaze-large")
    theirs, maze = factory().unwrapped.maze, factory.maze
    for cell in maze.cells:
        row_column = np.array(divmod(cell, maze.free.shape[1]))
        assert (maze.centre(cell) == theirs.cell_rowcol_to_xy(row_column)).all()
        for shift in ((0.0, 0.0), (0.49, -0.49), (-0.49, 0.49)):
            position = maze.centre(cell) + shift
            assert maze.cell(position) == maze.number(*theirs.cell_xy_to_rowcol(position)) == cell


@pytest.mark.parametrize("maze_map", [
    [[0, 0, 1, 0]], [["r", 0, 1, "g"]], [["g", 0, 0]], [["r", 0, 0, 1]], [["c", 0, "g", "r"]], [["c", "c", 0]]])
def test_starts_and_goals_are_those_of_the_environment(maze_map):
    factory = environment_factory("PointMaze_UMaze-v3", {"maze_map": maze_map})
    theirs, maze = factory().unwrapped.maze, factory.maze
    for ours, places in ((maze.goals, theirs.unique_goal_locations), (maze.starts, theirs.unique_reset_locations)):
        assert ours.tolist() == sorted(maze.cell(np.array(places)).tolist())


@pytest.mark.parametrize("maze_map", [[[1, "c", 0, 1]], [["c", "g", 0]]], ids=["one cell", "one start"])
def test_a_map_in_which_a_reset_would_never_end_is_refused(maze_map):
    """The environment chooses one of the goals, and then searches for a start in another cell."""
    with pytest.raises(ValueError, match="for each goal, a start in another cell"):
        environment_factory("AntMaze_UMaze-v5", {"maze_map": maze_map})
    ended = environment_factory("PointMaze_UMaze-v3", {"maze_map": [["r", "g", "g", 0]]})
    assert ended.kwargs["maze_map"] == [["r", "g", "g", 0]]


@pytest.mark.parametrize(("maze_map", "message"), [
    ([[1, 0], [0]], "rows of one width"), ([[1, 0], [1, 1]], "two free cells"), (["1001"], "has the cell '1'"),
    ([["r", "r"]], "goals in 0 cells and starts in 2")])
def test_a_malformed_map_is_refused(maze_map, message):
    with pytest.raises(ValueError, match=message):
        Maze(maze_map)
