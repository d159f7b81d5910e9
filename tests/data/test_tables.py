"""Logs of a plant as CSV and Parquet: what is read is what was logged, and what is lost is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from pyarrow.csv import CSVWriter
from pyarrow.parquet import write_table
from some_episodes import any_lengths, some

from gentraj.data import ContextConfig, DataError, Episodes, read_table
from gentraj.data.episodes import last_steps
from gentraj.runs import DataFacts
from gentraj.trajectory import Condition, TrajectorySpec

OBS, ACT = ("voltage", "current", "speed"), ("duty", "brake")
COLUMNS = {"obs": OBS, "act": ACT, "reward": "r", "episode": "id", "terminated": "trip", "time": "t"}
KINDS = ("a.csv", "a.parquet")


def motor(lengths: list[int], seed: int = 0) -> Episodes:
    """Episodes as a table can hold them: each ends in one way only, and every entry has a name."""
    e = some(lengths, seed=seed)
    return replace(e, truncated=last_steps(e.lengths) & ~e.terminated, obs_names=OBS, act_names=ACT)


def logged(e: Episodes) -> dict[str, np.ndarray]:
    """The columns of a log with a row for each observation, the last of an episode without action and reward."""
    rows_S = np.setdiff1d(np.arange(len(e.obs)), e.last_rows)
    act_NA, reward_N, trip_N = np.full((len(e.obs), 2), np.nan), np.full(len(e.obs), np.nan), np.zeros(len(e.obs), int)
    act_NA[rows_S], reward_N[rows_S], trip_N[rows_S] = e.act, e.reward, e.terminated
    times = np.concatenate([0.1 * np.arange(T + 1) for T in e.lengths])
    return {"id": np.repeat([f"e{i}" for i in range(len(e))], e.lengths + 1), "t": times,
            **dict(zip(OBS, e.obs.astype(np.float64).T, strict=True)), **dict(zip(ACT, act_NA.T, strict=True)),
            "r": reward_N, "trip": trip_N}


def write(path: Path, columns: dict[str, Any]) -> Path:
    table = pyarrow.table({key: pyarrow.array(x, from_pandas=True) for key, x in columns.items()})
    if path.suffix == ".parquet":
        write_table(table, path)
    else:
        with CSVWriter(path, table.schema) as file:
            file.write(table)
    return path


def text(path: Path, lines: str) -> Path:
    path.write_text("\n".join(lines.split()) + "\n")
    return path


@pytest.mark.parametrize("name", KINDS)
@trials(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=any_lengths, seed=st.integers(0, 2**32))
def test_episodes_of_any_lengths_are_read_as_they_were_logged(name: str, tmp_path: Path, lengths: list[int],
                                                              seed: int) -> None:
    e = motor(lengths, seed)
    assert read_table(write(tmp_path / name, logged(e)), **COLUMNS) == e


@pytest.mark.parametrize("name", KINDS)
def test_episodes_are_cut_at_gaps_and_nothing_else_is_lost(name: str, tmp_path: Path,
                                                           capsys: pytest.CaptureFixture) -> None:
    """Every step whose row and the next are whole is read, and no step leads over a gap."""
    e = motor([20, 1, 30, 7], seed=1)
    log = logged(e)
    rng = np.random.default_rng(0)
    log["speed"][rng.choice(len(e.obs), 6, replace=False)] = np.nan
    log["duty"][rng.choice(len(e.obs), 4, replace=False)] = np.nan
    kept = np.sort(rng.permutation(len(e.obs))[:-5])  # the logger dropped the other rows
    path = write(tmp_path / name, {key: x[kept] for key, x in log.items()})
    with pytest.raises(DataError, match=r"row \d+: .* missing .*cut_gaps") as caught:
        read_table(path, **COLUMNS)
    assert "\n" not in str(caught.value)

    found = read_table(path, **COLUMNS, cut_gaps=True)
    whole_N = np.isin(np.arange(len(e.obs)), kept) & ~np.isnan(log["speed"])
    expected = []
    for one, first in zip(e, e.last_rows - e.lengths, strict=True):
        for k in range(len(one.act)):
            row = first + k
            if whole_N[row] and not np.isnan(log["duty"][row]) and (whole_N[row + 1] or one.terminated[k]):
                after = one.obs[k + 1] if whole_N[row + 1] else one.obs[k]  # nobody saw what a trip led to
                expected.append((*one.obs[k], *one.act[k], one.reward[k], *after, one.terminated[k]))
    assert expected == [(*one.obs[k], *one.act[k], one.reward[k], *one.obs[k + 1], one.terminated[k])
                        for one in found for k in range(len(one.act))]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"4 episodes cut into {len(found)} pieces" in said


TRIPS = """
id,v,u,r,trip
a,1,0.1,0,0
a,2,0.2,-10,{0}
{1}"""


@pytest.mark.parametrize(("flag", "after", "last"), [
    (1, "", 2),  # the row of the action is the last: nobody saw where it led to
    (1, "a,3,,,0", 3),
    (0, "a,3,,,1", 3),  # the first row after the trip is marked
    (0, "a,3,,0,1", 3),
])
def test_a_trip_and_its_reward_are_kept_however_it_is_logged(tmp_path: Path, flag: int, after: str,
                                                             last: float) -> None:
    path = text(tmp_path / "a.csv", TRIPS.format(flag, after))
    e = read_table(path, obs="v", act="u", reward="r", episode="id", terminated="trip")
    assert e.reward.tolist() == [0, -10] and e.terminated.tolist() == [False, True]
    assert e.obs[:, 0].tolist() == [1, 2, last]


def test_the_rewards_of_last_rows_that_nothing_follows_are_counted(tmp_path: Path,
                                                                   capsys: pytest.CaptureFixture) -> None:
    path = text(tmp_path / "a.csv", TRIPS.format(0, "b,1,1,5,0 b,1,1,0,0"))
    e = read_table(path, obs=["v"], act=["u"], reward="r", episode="id")
    assert e.reward.tolist() == [0, 5] and "last rows of 1 episode are" in capsys.readouterr().err


def test_without_ids_a_file_is_an_episode_unless_it_terminates(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", logged(motor([9])) | {"trip": np.where(np.arange(10) == 3, 1, 0)})
    one = read_table(path, obs=OBS, act=ACT)
    assert one.lengths.tolist() == [9] and not one.reward.any()
    assert read_table(path, obs=OBS, act=ACT, terminated="trip").lengths.tolist() == [4, 5]


@pytest.mark.parametrize("times", [
    [0, 1, 2, 3, 5, 6],
    ["12:00:00", "12:00:01", "12:00:02", "12:00:03", "12:00:05", "12:00:06"],
    [f"2026-12-03 12:00:0{s}.5" for s in (0, 1, 2, 3, 5, 6)],
    [f"2026-12-03T12:00:0{s}Z" for s in (0, 1, 2, 3, 5, 6)],
])
def test_a_row_is_missed_by_times_in_any_form(tmp_path: Path, times: list) -> None:
    path = write(tmp_path / "a.csv", {"v": np.arange(6.0), "u": np.ones(6), "t": times})
    with pytest.raises(DataError, match="row 5: t does not go on"):
        read_table(path, obs="v", act="u", time="t")
    assert read_table(path, obs="v", act="u", time="t", cut_gaps=True).lengths.tolist() == [3, 1]


@pytest.mark.parametrize(("name", "lines"), [
    ("a.csv", "v;u\n1,5;0,25\n2,5;\n"), ("a.tsv", "v\tu\n1.5\t0.25\n2.5\tNaN\n"),
    ("a.CSV", '\ufeff"v","u"\r\n1.5,.25\r\n2.5,\r\n'),
])
def test_numbers_are_read_as_programs_write_them(tmp_path: Path, name: str, lines: str) -> None:
    (tmp_path / name).write_text(lines, encoding="utf-8", newline="")
    e = read_table(tmp_path / name, obs="v", act="u")
    assert e.obs.tolist() == [[1.5], [2.5]] and e.act.tolist() == [[0.25]]


@pytest.mark.parametrize("ids", [[7, 7, 3, 3], [0.5, 0.5, 1.0, 1.0], ["a b", "a b", "", ""]])
def test_ids_are_numbers_or_words(tmp_path: Path, ids: list) -> None:
    for array in (pyarrow.array(ids), pyarrow.array(ids).dictionary_encode()):
        write_table(pyarrow.table({"v": np.arange(4.0), "u": np.ones(4), "id": array}), tmp_path / "a.parquet")
        e = read_table(tmp_path / "a.parquet", obs="v", act="u", episode="id")
        assert e.obs[:, 0].tolist() == [0, 1, 2, 3] and e.lengths.tolist() == [1, 1]


@pytest.mark.parametrize(("lines", "wrong", "message"), [
    ("v,u,r,id 1,2,3,a 2,2,3,a", {"obs": ["w"]}, "unknown column 'w'"),
    ("v,u,r,id 1,2,3,a 2,2,3,a", {"act": []}, "act"),
    ("v,u,r,id 1,2,3,a 2,2,3,a", {"obs": ["v", "id"]}, "column id"),  # an id in words became a number
    ("v,u,r,id 1,2,3,a 2,2,3,a", {"act": ["v"]}, "column v"),
    ("v,u,r,id,v 1,2,3,a,1 2,2,3,a,1", {}, "several columns are called v"),
    ("v,u,r,id 1,2,3,a on,2,3,a", {}, "'on'"),
    ("v,u,r,id", {}, "no rows"),
    ("v,u,r,id 1,2,3,a 1,2,3,b", {}, "no row has an action"),
    ("v,u,r,id 1,2,3,a 2,2,3,a 1,2,3,b 2,2,3,b 1,2,3,a", {}, "data row 1 are not all together"),
    ("v,u,r,id 1,2,3,a 2,2,3,", {}, "1 rows name no episode"),
    ("v,u,r,id,c 1,2,3,a,1 2,2,3,a,1", {"terminated": "c"}, "data row 1 is terminated"),  # a flag that stays set
    ("v,u,r,id,c 1,2,3,a,1 2,2,3,a,0 2,2,3,a,0", {"terminated": "c"}, "data row 1 is terminated"),
    ("v,u,r,c 1,2,3,1 2,2,3,1 2,2,3,1", {"terminated": "c", "episode": None}, "data row 1 is terminated"),
    ("v,u,r,id,c 1,2,3,a,2 2,2,3,a,0", {"terminated": "c"}, "c has 2"),
    ("v,u,r,id 1,2,3,a 2,,3,a 3,2,3,a", {}, "data row 2: u missing"),
    ("v,u,r,id 1,2,3,a 2,2,,a 3,2,3,a", {}, "data row 2: r missing"),
    ("v,u,r,id 1,2,3,a 2,2,inf,a 3,2,3,a", {}, "data row 2: r missing"),
    ("v,u,r,id 1,2,3,a 2,2,3,a 3,,9,a", {}, "data row 3: u missing"),  # a reward of no action
])
def test_a_table_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, lines: str, wrong: dict,
                                                          message: str) -> None:
    path = text(tmp_path / "a.csv", lines)
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, **{"obs": ["v"], "act": ["u"], "reward": "r", "episode": "id"} | wrong)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_or_missing_table_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(DataError, match="no such file"):
        read_table(path, obs="v", act="u")
    path.write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(path, obs="v", act="u")


def test_a_missing_pyarrow_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pyarrow.*pip install 'gentraj\[tables\]'"):
        read_table(tmp_path / "a.csv", obs="v", act="u")


def test_conditions_take_the_names_of_the_columns(tmp_path: Path) -> None:
    facts = DataFacts.of(read_table(write(tmp_path / "a.csv", logged(motor([40, 30]))), **COLUMNS), ContextConfig())
    spec = TrajectorySpec(facts.obs_dim, facts.act_dim, 32, obs_names=facts.obs_names, act_names=facts.act_names)
    known = Condition.empty(spec).with_obs(20, {"current": 0.25})
    assert known.mask_BHD.nonzero().tolist() == [[0, 20, 1]] and known.values_BHD[0, 20, 1] == 0.25
