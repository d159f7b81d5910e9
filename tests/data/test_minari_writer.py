"""Whatever stops or races a write of a Minari dataset, one that was there stays, and nothing half-made is seen."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from some_episodes import some
from test_minari_io import ID

from gentraj.data import DataError, load_episodes, save_minari
from gentraj.data.commands import list_datasets
from gentraj.envs.making import environment_factory

pytestmark = pytest.mark.usefixtures("root")


def test_what_was_being_replaced_when_the_writer_was_killed_comes_back(root):
    save_minari(some([3]), ID, description="x")
    (root / ID).rename(root / "gentraj/test" / f"tmp-{2**22 + 1}-old-some-v0")
    with pytest.raises(DataError, match="exists already"):
        save_minari(some([4]), ID, description="y")
    assert load_episodes(ID) == some([3])


@pytest.mark.parametrize("keys", [("observation",), ()])
def test_goals_that_are_no_entries_of_an_observation_are_kept_beside_it(root, keys):
    """The environment's own achieved goals are unknown, so its dicts cannot be written."""
    maze = environment_factory("pointmaze-umaze").spec_json
    e = replace(some([3, 4], obs_dim=4, goals="within"), goal_dims=(), obs_keys=keys, env=maze)
    save_minari(e, ID, description="x")
    assert load_episodes(ID) == e
    with pytest.raises(DataError, match=r"observation widths \{'obs': 3\} .* its environment has \{'obs': 4\} and 2"):
        save_minari(replace(e, obs=e.obs[:, :3]), ID, description="x", overwrite=True)


def test_an_environment_that_cannot_be_made_here_is_recorded_by_its_name(root):
    """Because a package is missing, or because this version of it does not take the arguments."""
    env = json.dumps(json.loads(gymnasium.spec("Pendulum-v1").to_json()) | {"kwargs": {"friction": 1}})
    e = replace(some([3], obs_dim=3, act_dim=1), env=env)
    save_minari(e, ID, description="x")
    assert load_episodes(ID) == e
    space = minari.load_dataset(ID).action_space
    assert space.shape == (1,) and np.isinf(space.high).all()


def test_a_file_in_the_place_of_minaris_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    for call in (lambda: save_minari(some([3]), ID, description=""), lambda: load_episodes(ID), list_datasets):
        with pytest.raises(DataError, match=r"cannot be made \(.*file.*\); set MINARI_DATASETS_PATH"):
            call()


def test_minaris_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minari looked for the size of the file in a folder `there/.../there/...`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "there")
    assert save_minari(some([3]), ID, description="") == tmp_path / "there" / ID and load_episodes(ID) == some([3])


def test_a_full_disk_is_refused_before_hdf5_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of HDF5 that fails is a segmentation fault."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 999, 999))
    with pytest.raises(OSError, match=r"cannot be written: about [\d,]+ bytes are needed, 999 are free"):
        save_minari(some([3]), ID, description="")
    assert not list(root.rglob("*.hdf5"))


def test_a_taken_id_is_refused_and_overwriting_replaces_it(root):
    save_minari(some([3]), ID, description="first")
    with pytest.raises(DataError, match=r"gentraj/test/some-v0 exists already.*--overwrite"):
        save_minari(some([4]), ID, description="second")
    save_minari(some([5]), ID, description="third", overwrite=True)
    assert load_episodes(ID) == some([5])
    assert sorted(p.name for p in (root / "gentraj/test").iterdir() if p.is_dir()) == ["some-v0"]


def test_an_interrupted_write_leaves_nothing_half_made(root, monkeypatch):
    import gentraj.data.minari_writer as writer

    def broken(episodes, rows):
        if rows.start:
            raise KeyboardInterrupt
        return episodes.obs[rows]

    save_minari(some([3]), ID, description="before")
    monkeypatch.setattr(writer, "_observations", broken)
    with pytest.raises(KeyboardInterrupt):
        save_minari(some([3, 4]), ID, description="after", overwrite=True)
    assert load_episodes(ID) == some([3])
    assert sorted(p.name for p in (root / "gentraj/test").iterdir() if p.is_dir()) == ["some-v0"]


def test_the_leftovers_of_a_killed_write_are_swept_but_not_a_living_writers(root):
    pids = 2**22 + 1, os.getppid()  # the first above any
    dead, alive = (root / "gentraj/test" / f"tmp-{pid}-new-some-v0" for pid in pids)
    for folder in (dead, alive):
        (folder / "data").mkdir(parents=True)
    save_minari(some([3]), ID, description="x")
    assert (dead.exists(), alive.exists()) == (False, True)
    shutil.copytree(root / ID, alive, dirs_exist_ok=True)
    assert [row["id"] for row in list_datasets()] == [ID]
