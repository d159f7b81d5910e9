"""Rows that are not evenly apart in time: dense near, sparse far."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentraj import runs
from gentraj.agents.planning.sampler import PlannerConfig, level_specs
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.constraints import Speed
from gentraj.data import Episodes, Windows
from gentraj.runs import PlannerRunConfig
from gentraj.trajectory import TrajectorySpec

SPARSE = TrajectorySpec(1, 1, 5, 1, (1, 2, 4, 8))


def ramp(*lengths: int) -> Episodes:
    """s_t = t, a_t = 10 t and r_t = 2^t of every episode, which end for good."""
    obs = np.concatenate([np.arange(T + 1.0) for T in lengths])[:, None]
    t = np.concatenate([np.arange(float(T)) for T in lengths])
    ends = np.concatenate([np.arange(T) == T - 1 for T in lengths])
    return Episodes(obs.astype(np.float32), (10 * t[:, None]).astype(np.float32), (2**t).astype(np.float32),
                    ends, np.zeros_like(ends), np.array(lengths))


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 30))
def test_evenly_spaced_offsets_are_a_stride(horizon: int, stride: int, step: int) -> None:
    even = TrajectorySpec(1, 0, horizon, stride)
    assert even.times == tuple(range(0, horizon * stride, stride)) and even.gaps == (stride,) * horizon
    if horizon > 1:
        same = replace(even, offsets=even.times[1:])
        assert (same.times, same.gaps, same.longer(12).times) == (even.times, even.gaps, even.longer(12).times)
        index = [float(spec.fractional_index(torch.tensor([step]))) for spec in (same, even)]
        assert index[0] == pytest.approx(index[1])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_rows_are_the_inverse_of_times(gaps: list[int]) -> None:
    offsets = tuple(np.cumsum(gaps).tolist())
    spec = TrajectorySpec(1, 0, len(gaps) + 1, gaps[0], offsets)
    assert spec.fractional_index(torch.tensor(spec.times)).tolist() == list(range(len(offsets) + 1))
    row_T = spec.fractional_index(torch.arange(offsets[-1] + 5))
    assert (row_T.diff() > 0).all()
    assert spec.longer(len(offsets) + 3).times[: len(offsets) + 1] == spec.times


def test_a_window_holds_the_steps_that_its_rows_are_at() -> None:
    batch = Windows(ramp(12, 5), SPARSE).gather(np.array([0, 3, 12]))
    assert batch.x_BHD[0].tolist() == [[0, 0], [1, 10], [2, 20], [4, 40], [8, 80]]
    assert batch.mask_BHD[1, :, 0].all() and batch.x_BHD[1, :, 0].tolist() == [3, 4, 5, 7, 11]
    assert batch.mask_BHD[2, :, 0].tolist() == [True] * 4 + [False]
    assert batch.reward_BH is not None and batch.reward_BH[0].tolist() == [1, 2, 4 + 8, 16 + 32 + 64 + 128,
                                                                           256 + 512 + 1024 + 2048]
    assert batch.reward_BH[1, -1] == 2048  # the episode has no more


def test_a_plan_leads_step_by_step_and_arrives_at_its_row_s_time() -> None:
    x = torch.tensor([0.0, 1, 2, 4, 8])[None, :, None].expand(1, 5, 2)
    tracker = PlanTracker(SPARSE, PlannerConfig(replan=9, lookahead=1, actions="joint"), -np.ones(1), np.ones(1))
    along = tracker.targets(x, None)[0, :, 0]
    assert along.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    arrived = tracker.targets(x, torch.tensor([3]))[0, :6, 0]
    assert arrived.tolist() == [1, 2, 3, 4, 4, 4]


def test_what_needs_even_rows_says_so() -> None:
    for use in (lambda: level_specs(SPARSE, (2,), 1), lambda: Speed(1.0, dims=(0,), dt=0.1).unit(SPARSE)):
        with pytest.raises(ValueError, match=r"needs evenly spaced timesteps; these are at steps \(0, 1, 2, 4, 8\)"):
            use()


def test_a_planner_of_such_rows_trains_and_acts(umaze: object, tmp_path: Path) -> None:
    offsets = 1, 2, 4, 8, 16, 32, 64
    assert small.gentraj("train", "pointmaze", "--dataset", small.DATASET, "--run-dir", tmp_path / "run", "--steps", 2,
                         *small.WORDS, "--stride", *offsets) == 0
    run = runs.load(tmp_path / "run")
    assert run.model.spec.times == (0, *offsets) and isinstance(run.config, PlannerRunConfig)
    assert (run.config.horizon, run.config.stride) == (8, offsets)
    assert small.gentraj("evaluate", tmp_path / "run", "--episodes", 1, "--no-baselines") == 0
    assert small.gentraj("sample", tmp_path / "run", "--out", tmp_path / "x.npz") == 0
    assert np.load(tmp_path / "x.npz")["stride"].tolist() == list(offsets)
