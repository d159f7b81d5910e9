"""The names of entries stay with the data, the run and the layout, and stand for the entries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from some_episodes import some

from gentraj.data import (
    ContextConfig,
    DataError,
    Episodes,
    concatenate,
    episodes_hash,
    load_episodes,
    save_d4rl,
    save_minari,
    save_npz,
    stitch,
)
from gentraj.data.splitting import halves, hold_out
from gentraj.entries import entry_word
from gentraj.runs import DataFacts
from gentraj.runs.kinds.presets import PRESETS
from gentraj.trajectory import Condition, TrajectorySpec

OBS, ACT = ("voltage", "current", "speed"), ("duty", "brake")
LAYOUT = TrajectorySpec(3, 2, 8, obs_names=OBS, act_names=ACT)


def motor(lengths: list[int]) -> Episodes:
    return replace(some(lengths), obs_names=OBS, act_names=ACT)


def names(e: object) -> tuple[object, object]:
    return e.obs_names, e.act_names


def test_the_word_for_an_entry_is_its_name_or_its_number() -> None:
    assert entry_word("observation", 1, OBS) == "current" and entry_word("observation", 1) == "observation[1]"


def test_names_stay_with_episodes_that_are_chosen_split_and_joined() -> None:
    e = motor([4, 3, 5])
    parts = [e[1], e[::2], *e, *halves(e), *hold_out(e, 0.3, 0), stitch(e), concatenate([e[:1], e[1:]])]
    assert {names(part) for part in parts} == {(OBS, ACT)}
    assert names(concatenate([some([2]), e])) == names(concatenate([e, some([2])])) == (OBS, ACT)
    with pytest.raises(DataError, match="obs_names"):  # the same columns in another order
        concatenate([e, replace(e, obs_names=OBS[::-1])])


@pytest.mark.parametrize("save", ["npz", "d4rl", "minari"])
def test_names_are_kept_by_a_file(save: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    e = motor([4, 3])
    if save == "npz":
        found = load_episodes(save_npz(e, tmp_path / "e.npz"))
        assert found == e and found != some([4, 3])
    elif save == "d4rl":
        found = load_episodes(save_d4rl(e, tmp_path / "e.hdf5"))
    else:
        save_minari(e, "test/motor-v0", description="")
        found = load_episodes("test/motor-v0")
    assert names(found) == (OBS, ACT)


def test_a_file_of_before_there_were_names_has_none(tmp_path: Path) -> None:
    with np.load(save_npz(some([4]), tmp_path / "e.npz")) as members:
        np.savez(tmp_path / "old.npz", **{key: x for key, x in members.items() if "names" not in key})
    assert load_episodes(tmp_path / "old.npz") == some([4])


@pytest.mark.parametrize("wrong", [("a",), ("a", "b", "a"), ("a", "", "b")])
def test_names_are_one_for_each_entry(wrong: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="obs_names"):
        replace(some([3]), obs_names=wrong)
    with pytest.raises(ValueError, match="obs_names"):
        TrajectorySpec(3, 2, 8, obs_names=wrong)


def test_a_problem_of_an_entry_says_its_name() -> None:
    e = motor([4])
    e.obs[2, 1] = np.nan
    with pytest.raises(DataError, match="current is nan"):
        replace(e)


def test_names_change_no_layout_and_no_training() -> None:
    """Runs that were trained before stay comparable with those of data with names."""
    bare = TrajectorySpec(3, 2, 8)
    assert bare == LAYOUT and hash(bare) == hash(LAYOUT)
    assert episodes_hash(motor([4])) == episodes_hash(some([4]))
    assert names(replace(LAYOUT, act_dim=0)) == (OBS, ())


def test_a_run_and_its_layout_remember_the_names() -> None:
    facts = DataFacts.of(motor([4, 3]), ContextConfig())
    assert names(facts) == names(PRESETS["iql"].memory(facts)) == (OBS, ACT)


def test_a_condition_takes_values_by_the_names_of_their_entries() -> None:
    c = Condition.empty(LAYOUT, 2)
    named = c.with_obs(-1, {"speed": 2, "current": 0.25})
    numbered = c.with_obs(-1, torch.tensor([2.0, 0.25]), dims=(2, 1))
    assert torch.equal(named.values_BHD, numbered.values_BHD) and torch.equal(named.mask_BHD, numbered.mask_BHD)
    each = c.with_obs(0, {"voltage": torch.tensor([1.0, 2.0]), "speed": 3.0})
    assert each.values_BHD[:, 0].tolist() == [[1, 0, 3, 0, 0], [2, 0, 3, 0, 0]]
    with pytest.raises(ValueError, match="did you mean 'current'"):
        c.with_obs(0, {"curent": 0.3})
    with pytest.raises(ValueError, match="no names"):
        Condition.empty(TrajectorySpec(3, 2, 8)).with_obs(0, {"current": 0.3})
    with pytest.raises(ValueError, match="dims"):
        c.with_obs(0, {"current": 0.3}, dims=(1,))
