"""Sets whose modes are known: what counts as a mode, and which models find them all (`benchmarks/modes.py`)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import modes
from benchmarks.mode_sets import RING, SETS, evenly, grid, shortest_ways, ways
from gentraj.envs.tasks.maze import Maze

every_set = pytest.mark.parametrize("name", SETS)


@every_set
def test_the_data_have_the_shares_that_the_recipe_says(name: str) -> None:
    data = SETS[name](0)
    share, deviation = data.shares(data.x_RHD), (data.true_K * (1 - data.true_K) / len(data.x_RHD)).sqrt()
    assert share.sum() > 0.97 and data.true_K.sum() == pytest.approx(1)
    assert ((share / share.sum() - data.true_K).abs() < 5 * deviation).all()


@every_set
def test_a_set_is_a_function_of_its_seed(name: str) -> None:
    assert torch.equal(SETS[name](1).x_RHD, SETS[name](1).x_RHD)
    assert not torch.equal(SETS[name](1).x_RHD, SETS[name](2).x_RHD)


@every_set
def test_what_is_known_is_taken_from_the_data(name: str) -> None:
    data = SETS[name](0)
    condition = data.conditions(3)
    assert condition.mask_BHD.any(2).sum(1).tolist() == [len(data.conditioned)] * 3
    assert torch.equal(condition.values_BHD[condition.mask_BHD], data.x_RHD[:3][condition.mask_BHD])


def test_an_even_blob_has_every_mode_and_none_as_often_as_the_data() -> None:
    """Samples between the modes belong to none; otherwise a model that has learnt nothing would pass."""
    data = grid(0)
    x = 10 * torch.rand(12_800, *data.x_RHD.shape[1:], generator=torch.Generator().manual_seed(0)) - 5
    row = modes.judged(data, x)
    assert (row["found"], row["close"]) == (25, 0) and row["total_variation"] > 0.5


def test_a_trajectory_is_of_the_way_that_it_takes() -> None:
    data, maze = ways(0), Maze([list(map(int, row)) for row in RING])

    def along(*cells: tuple[int, int]) -> Tensor:
        return evenly(maze.centre(np.array([maze.number(*cell) for cell in cells])), data.spec.horizon)

    left, right = along((3, 2), (3, 1), (1, 1), (1, 2)), along((3, 2), (3, 3), (1, 3), (1, 2))
    through = along((3, 2), (1, 2))
    assert data.mode(torch.stack([left, right, through, left + 0.1])).tolist() == [0, 1, -1, 0]


@given(st.integers(1, 4), st.integers(2, 4))
def test_an_open_room_has_binomially_many_shortest_ways(rows: int, columns: int) -> None:
    wall, row = [1] * (columns + 2), [1, *[0] * columns, 1]
    maze = Maze([wall, *[row] * rows, wall])
    found = shortest_ways(maze, maze.number(1, 1), maze.number(rows, columns))
    assert len(found) == len(set(map(tuple, found))) == math.comb(rows + columns - 2, rows - 1)
    assert all(len(way) == rows + columns - 1 for way in found)


def test_as_many_shares_as_ways_are_expected() -> None:
    with pytest.raises(ValueError, match=r"2 shares were given for 1 shortest paths from \(3, 2\) to \(3, 1\); give"):
        ways(0, goal=(3, 1))


def test_a_second_call_goes_on_where_the_first_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = modes.Args(tmp_path, models=("flow", "gan"), sets=("ways",), seeds=1, steps=2, samples=64)
    modes.main(args)
    log = tmp_path / "results.jsonl"
    first, second = log.read_text().splitlines()
    log.write_text(f"{first}\n{second[:20]}")
    trained: list[str] = []
    monkeypatch.setattr(modes, "train", lambda *given: trained.append(given[-1]))
    modes.main(args)
    assert trained == ["ways, gan, seed 0"] and log.read_text().splitlines()[0] == first
    assert (tmp_path / "ways.png").exists() and "| ways | gan | 1 |" in (tmp_path / "table.md").read_text()
