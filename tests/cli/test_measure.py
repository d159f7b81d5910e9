"""`gentraj measure` on a tiny run: what it writes, what it refuses, and that what it says of data and plans is true."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import DATASET, changed, gentraj

from gentraj.data import Episodes, Windows, load_episodes, save_npz
from gentraj.envs.evaluation.replay import CannotReplay
from gentraj.metrics import METRICS
from gentraj.runs import Run, load
from gentraj.runs.judge.measures import (
    UNITS,
    ReferenceMetrics,
    choose_windows,
    conditions,
    limits,
    measure_run,
    plan_actions,
)
from gentraj.trajectory import TrajectorySpec

OWN = ["novelty", "walls_share", "walls_worst", "observations_share",
       "observations_worst", "row_error"]
COLUMNS = ["data", "start", "start and goal"]


@pytest.fixture
def run(small_run: Path) -> Run:
    return load(small_run)


# -- the command


def test_measures_are_written_and_shown(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new" / "m.json"
    assert gentraj("measure", small_run, "--num", 16, "--steps", 2, "--seed", 1, "--out", out) == 0
    text, err = capsys.readouterr()
    measured = json.loads(out.read_text())
    assert {key: measured[key] for key in ("step", "seed", "steps", "dataset", "num", "left_out")} == {
        "step": 6, "seed": 1, "steps": 2, "dataset": "reference windows", "num": 16, "left_out": {}}
    assert list(measured["measures"]) == COLUMNS
    for column in measured["measures"].values():
        assert column.keys() == measured["units"].keys() == {*METRICS, *OWN}
        assert all(value is None or math.isfinite(value) for value in column.values())
    assert all(measured["units"].values()) and set(measured["units"]) <= set(UNITS)
    assert f"measures in {out}" in err
    lines = text.splitlines()
    assert lines[1] == "|  | data | start | start and goal | unit |"
    assert [line.split()[1] for line in lines[3:]] == list(measured["units"])


# -- windows and conditions


def test_the_same_seed_measures_the_same_on_no_more_than_half_the_windows(run: Run) -> None:
    few = changed(run, reference=run.reference.take(torch.arange(40)))
    whole = len(choose_windows(few, None, 10**6, 0)[1])
    a, b, c = (measure_run(few, steps=1, seed=seed) for seed in (1, 1, 2))
    assert 16 <= whole <= 40 and a["num"] == whole // 2
    assert a == b and a["measures"] != c["measures"]


def test_windows_are_whole_and_different(run: Run) -> None:
    windows, train = choose_windows(run, None, 60, seed=0)
    whole = run.reference.x_BHD[run.reference.mask_BHD.flatten(1).all(1)]
    assert len(train) <= len(whole) and (whole[:, None, 0] == train[None, :, 0]).all(-1).any(1).all()
    assert len(torch.unique(windows.x_BHD, dim=0)) == 60 and windows.mask_BHD.all()
    assert not (windows.x_BHD[:, -1] == 0).all(1).any()  # which is what padding holds


def test_samples_have_the_contexts_of_their_windows(run: Run) -> None:
    """A planner for returns or goals would otherwise be measured by what it samples without any."""
    told = changed(run, reference=replace(run.reference, context_BC=run.reference.x_BHD[:, 0, :1] + 1))
    windows, _ = choose_windows(told, None, 60, seed=0)
    assert torch.equal(windows.x_BHD, choose_windows(run, None, 60, seed=0)[0].x_BHD)
    for condition in conditions(told, windows).values():
        assert condition.context_BC is not None
        assert torch.equal(condition.context_BC, windows.x_BHD[:, 0, :1] + 1)


def three_episodes() -> Episodes:
    """Returns three episodes of 160 steps, cut from one run: each starts where the one before stops."""
    episodes, end = load_episodes(DATASET), np.arange(480) % 160 == 159
    rows = np.concatenate([np.arange(160 * e, 160 * e + 161) for e in range(3)])
    return replace(episodes, obs=episodes.obs[rows], extras={}, act=episodes.act[:480], reward=episodes.reward[:480],
                   terminated=episodes.terminated[:480], truncated=end, lengths=np.full(3, 160))


def test_windows_of_another_dataset(run: Run, tmp_path: Path) -> None:
    """All its whole windows, each once: 160 steps hold 6 windows of 155, the 480 of one stitched run 326."""
    path = str(save_npz(three_episodes(), tmp_path / "three.npz"))
    uncut = changed(run, config=replace(run.config, stitch=False))
    for which, count in ((uncut, 18), (run, 326)):
        windows, train = choose_windows(which, path, 10**6, seed=0)
        assert len(torch.unique(windows.x_BHD, dim=0)) == len(windows.x_BHD) == count and windows.mask_BHD.all()
        assert torch.equal(train, choose_windows(which, None, 10**6, seed=0)[1])  # the run's own, whatever the dataset
    measured = measure_run(uncut, dataset=path, steps=1)
    assert (measured["dataset"], measured["num"]) == (path, 9)


def test_too_short_episodes_are_refused(run: Run, tmp_path: Path) -> None:
    path = str(save_npz(three_episodes()[0], tmp_path / "one.npz"))
    message = r"one.npz: only 6 windows of 32 timesteps, 5 environment steps apart.* at least 16 are needed"
    with pytest.raises(ValueError, match=message):
        measure_run(run, dataset=path)


def test_conditions_are_those_of_the_windows(run: Run) -> None:
    windows, _ = choose_windows(run, None, 20, seed=0)
    start, goal = conditions(run, windows).values()
    assert start.mask_BHD[:, 0].all() and not start.mask_BHD[:, 1:].any()
    assert goal.mask_BHD[:, -1].tolist() == [[True, True, False, False]] * 20
    for condition in (start, goal):
        known = condition.mask_BHD
        assert (condition.values_BHD[known] == windows.x_BHD[known]).all()


# -- reference metrics


def test_what_is_like_data_scores_like_data_and_what_is_not_does_not(run: Run) -> None:
    windows, train = choose_windows(run, None, 200, seed=0)
    metrics = ReferenceMetrics(run, windows.x_BHD[:100], seed=0)
    same, shifted = (metrics.measure(windows.x_BHD[100:] + by, train) for by in (0.0, 5.0))
    assert same["novelty"] == 0 and same["walls_share"] == 0
    assert 0 < metrics.measure(windows.x_BHD[100:], train, own=True)["novelty"] < shifted["novelty"]
    assert same["coverage"] > 0.5 and shifted["coverage"] == 0
    assert shifted["walls_share"] == shifted["observations_share"] == 1
    assert shifted["walls_worst"] > 2 and shifted["two_sample_accuracy"] > 0.99 > same["two_sample_accuracy"]
    assert shifted["row_error"] > same["row_error"]


def test_bounds_are_the_action_spaces_own(run: Run) -> None:
    joint = changed(run, _model=_Joint(TrajectorySpec(4, 2, 5)))
    x = torch.zeros(3, 5, 6)
    made = limits(joint, x, None)
    assert made["actions"].low == (0, 0) and "walls" not in made
    metrics = ReferenceMetrics(joint, x, seed=0)
    assert metrics.constraints["actions"].constraints["Box"].high == (1, 1)
    assert not (metrics.constraints["actions"].certificate(x + 1.25).worst - 0.25).any()


def test_own_actions_are_replayed_where_rows_are_steps(run: Run) -> None:
    x = torch.randn(3, 5, 6)
    assert (plan_actions(changed(run, _model=_Joint(TrajectorySpec(4, 2, 5))), x) == x[:, :-1, 4:]).all()
    with pytest.raises(CannotReplay, match="2 environment steps apart"):
        plan_actions(changed(run, _model=_Joint(TrajectorySpec(4, 2, 5, stride=2))), x)


def test_the_actions_of_data_lead_where_the_data_go(run: Run) -> None:
    spec = TrajectorySpec(4, 2, 16)
    x = Windows(load_episodes(DATASET), spec).batch(0, 0, 20).x_BHD
    metrics = ReferenceMetrics(changed(run, _model=_Joint(spec)), x, seed=0)
    true, other = metrics.measure(x, x), metrics.measure(torch.cat([x[..., :4], x.flip(0)[..., 4:]], -1), x)
    assert true["row_error"] < 1e-6 and true["actions_share"] == 0
    assert other["row_error"] > 1e-3


def test_inverse_dynamics_look_along_the_plan_and_never_beyond_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a straight plan the target is k steps further along it, and k is what is left where that is less."""
    asked: list = []

    def inverse(obs: torch.Tensor, target: torch.Tensor, k: int) -> torch.Tensor:
        asked.append((obs, target, k))
        return obs[:, :2]

    monkeypatch.setattr(run.inverse, "forward", inverse)
    model = changed(run, _model=_Joint(TrajectorySpec(4, 0, 4, stride=5)))
    x = 5.0 * torch.arange(4)[None, :, None].expand(2, 4, 4) + torch.tensor([0.0, 100])[:, None, None]
    act = plan_actions(model, x)
    assert act.shape == (2, 15, 2)
    torch.testing.assert_close(act[..., 0], torch.arange(15.0) + torch.tensor([[0.0], [100]]))  # each at its own step
    lookahead = run.config.planner.lookahead
    assert sorted({k for *_, k in asked}) == list(range(1, lookahead + 1)) and lookahead < 15
    for obs, target, k in asked:
        torch.testing.assert_close(target - obs, torch.full_like(obs, k))


def test_what_cannot_be_measured_is_named(run: Run) -> None:
    nowhere = changed(run, data=replace(run.data, env=None))
    measured = measure_run(nowhere, num=8, steps=1)
    assert measured["left_out"].keys() == {"walls", "dynamics"}
    assert not {"walls_share", "row_error"} & measured["units"].keys()
    strange = changed(run, data=replace(run.data, obs_keys=("achieved_goal", "desired_goal")))
    assert "is made of" in measure_run(strange, num=8, steps=1)["left_out"]["dynamics"]


class _Joint:
    """A model with only what the actions of a plan need."""

    device = torch.device("cpu")

    def __init__(self, spec: TrajectorySpec):
        self.spec = spec
