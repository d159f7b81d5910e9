"""The datasets that can be recorded here, and the overview of the tasks."""


import numpy as np
import pytest

from gentraj.data import DataError, Episodes, load_episodes, save_minari
from gentraj.data.minari_io import MINARI_ID
from gentraj.envs.making import environment_factory
from gentraj.envs.recording import recipes as module
from gentraj.envs.recording.recipes import Recipe, make_dataset, make_missing, recipes
from gentraj.envs.tasks.overview import table
from gentraj.envs.tasks.registry import LOCOMOTION
from gentraj.runs.presets import PLANNERS


def test_every_recipe_has_an_id_of_its_own_which_the_table_lists():
    ids = [recipe.dataset_id for recipe in recipes().values()]
    assert len(set(ids)) == len(ids) and all(map(MINARI_ID.fullmatch, ids))
    listed = {name for row in table() for name in row.datasets.get("gentraj", ())}
    assert set(ids) == {name for name in listed if "-singletask" not in name}  # those are relabelled, not recorded


def test_every_task_of_the_table_is_an_environment_with_scores_and_a_plan():
    for row in table():
        assert row.datasets and min(row.horizon) >= 1 and row.name in str(row)
        if row.name.startswith("D4RL/"):  # whose environments are named by their data
            envs = [environment_factory(f"D4RL/{name}") for name in row.datasets["D4RL"]]
            assert {env.max_episode_steps for env in envs} == {row.max_episode_steps} and row.references
            assert all(env.env_id.startswith(row.env_id.removesuffix("...")) for env in envs)
            continue
        single = row.env_id.endswith("-singletask-v0")
        made = environment_factory(row.env_id if single else row.name)
        assert (made.env_id, made.max_episode_steps) == (row.env_id, row.max_episode_steps)
        assert row.references or single
        if row.name in LOCOMOTION:  # whose plans are for returns
            config = PLANNERS["veteran+"][1]
            assert row.horizon == (config.horizon, config.stride)


def test_a_dataset_that_another_process_records_meanwhile_is_taken(tmp_path, monkeypatch):
    """As by two trainings that are started at once: the later one was refused after minutes, as the dataset exists."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    end = np.array([False, False, True])
    played = Episodes(np.zeros((4, 1)), np.zeros((3, 1)), np.zeros(3), ~end & end, end, np.array([3]))

    def record(*_, **__):
        save_minari(played, "mine/task-v0", description="by the other process")
        return played

    monkeypatch.setattr(module, "recipes", lambda: {"task": Recipe("mine/task-v0", 3, record, "nobody")})
    assert make_missing("mine/task-v0") == "mine/task-v0" and load_episodes("mine/task-v0") == played
    assert make_missing("mine/task-v0") == "mine/task-v0"
    with pytest.raises(DataError, match="mine/task-v0 exists already"):
        make_dataset("task")
