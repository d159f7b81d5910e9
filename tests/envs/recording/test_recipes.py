"""The datasets that can be recorded here, and the table of the tasks."""


import numpy as np
import pytest

from gentraj.data import DataError, Episodes, load_episodes, save_minari
from gentraj.data.minari_io import MINARI_ID
from gentraj.envs.making import environment_factory
from gentraj.envs.recording import recipes as module
from gentraj.envs.recording.recipes import Recipe, make_dataset, make_missing, recipes
from gentraj.envs.tasks.registry import LOCOMOTION, TASKS
from gentraj.runs.kinds.presets import PLANNERS


def test_every_recipe_has_an_id_of_its_own():
    ids = [recipe.dataset_id for recipe in recipes().values()]
    assert len(set(ids)) == len(ids) and all(map(MINARI_ID.fullmatch, ids))


def test_every_task_of_the_table_is_an_environment_with_scores_and_a_plan():
    for name, task in TASKS.items():
        assert task.datasets and min(task.horizon) >= 1 and task.env_id in str(task)
        made = environment_factory(name)
        assert (made.env_id, made.max_episode_steps) == (task.env_id, task.max_episode_steps)
        assert task.references or name.startswith("ogbench/")
        if name in LOCOMOTION:  # whose plans are for returns
            config = PLANNERS["veteran+"][1]
            assert task.horizon == (config.horizon, config.stride)


def test_a_dataset_that_another_process_records_meanwhile_is_taken(tmp_path, monkeypatch, capsys):
    """As by two trainings that are started at once: the later one was refused after minutes, as the dataset exists."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    end = np.array([False, False, True])
    played = Episodes(np.zeros((4, 1)), np.zeros((3, 1)), np.zeros(3), ~end & end, end, np.array([3]))

    def record(*_, **__):
        save_minari(played, "mine/task-v0", description="by the other process")
        return played

    monkeypatch.setattr(module, "recipes", lambda: {"task": Recipe("mine/task-v0", 3, record, "nobody")})
    assert make_missing("mine/task-v0") == "mine/task-v0" and load_episodes("mine/task-v0") == played
    assert "gentraj data make task" in capsys.readouterr().err
    assert make_missing("mine/task-v0") == "mine/task-v0" and not capsys.readouterr().err
    with pytest.raises(DataError, match="mine/task-v0 exists already"):
        make_dataset("task")
