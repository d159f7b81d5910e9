"""LeRobot's datasets: the numbers that the real library wrote, and one line for whatever is no such dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot_tiny import LENGTHS, frames
from small import gentraj

from gentraj.data import DataError, load_episodes
from gentraj.progress import say_once

TINY = Path(__file__).with_name("lerobot-tiny")
parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'gentraj[lerobot]'")
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(TINY, tmp_path / "tiny")


def rewrite(folder: Path, change) -> None:
    file = next(folder.glob("data/*/*.parquet"))
    parquet.write_table(change(parquet.read_table(file)), file)


def info(folder: Path, **changes: object) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_numbers_of_the_real_library_are_read_to_the_bit(capsys: pytest.CaptureFixture) -> None:
    """Every frame is an observation; the last frame of an episode is no step."""
    say_once.cache_clear()
    e, expected, last = load_episodes(TINY), frames(), frames()["next.done"][:, 0]
    assert np.array_equal(e.obs, np.hstack([expected["observation.state"], expected["observation.environment_state"]]))
    assert np.array_equal(e.act, expected["action"][~last])
    assert np.array_equal(e.reward, expected["next.reward"][~last, 0])
    assert e.lengths.tolist() == [T - 1 for T in LENGTHS] and not e.terminated.any() and e.truncated.sum() == 3
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "observation.state (3), observation.environment_state (2); not read: " in line


def test_the_commands_take_a_folder_and_a_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    shutil.copytree(folder, tmp_path / "home" / "mine" / "tiny")
    assert load_episodes("lerobot:mine/tiny") == load_episodes(folder) == load_episodes(str(folder))
    assert gentraj("data", "inspect", "lerobot:mine/tiny") == 0
    assert "3 of 9 steps in all" in capsys.readouterr().out
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert gentraj("data", "import", folder, "--id", "mine/tiny-v0") == 0
    assert np.array_equal(load_episodes("mine/tiny-v0").act, load_episodes(folder).act)


def test_done_on_a_step_terminates_an_episode_unless_it_was_truncated(folder: Path) -> None:
    steps = np.zeros(12, bool)
    steps[[3, 6]] = True  # the last step of the first two episodes; their last frames are 4 and 7
    set_done = lambda table: table.set_column(  # noqa: E731
        table.column_names.index("next.done"), "next.done", pyarrow.array(steps))
    rewrite(folder, set_done)
    assert load_episodes(folder).terminated.tolist() == [False] * 3 + [True, False, True] + [False] * 3
    rewrite(folder, lambda table: table.append_column("next.truncated", pyarrow.array(np.arange(12) == 6)))
    features = json.loads((folder / "meta" / "info.json").read_text())["features"]
    info(folder, features=features | {"next.truncated": {"dtype": "bool", "shape": [1], "names": None}})
    e = load_episodes(folder)
    assert np.flatnonzero(e.terminated).tolist() == [3] and np.flatnonzero(e.truncated).tolist() == [5, 8]


def test_an_episode_is_cut_where_its_frames_do_not_go_on(folder: Path) -> None:
    """As where frames were left out, or a file begins with the episode of the same number in another dataset."""
    rewrite(folder, lambda table: pyarrow.concat_tables([table.slice(0, 2), table.slice(3)]))
    with pytest.warns(UserWarning, match="tiny: in 1 places frame_index does not go on"):
        e = load_episodes(folder)
    assert e.lengths.tolist() == [1, 1, 2, 3]
    assert np.array_equal(e.act, frames()["action"][[0, 3, 5, 6, 8, 9, 10]])


@pytest.mark.parametrize(("changes", "message"), [
    ({"codebase_version": "v2.1"}, "v2.1; v3.0 is expected"), ({"features": 3}, "describes no LeRobot dataset"),
    ({"features": {"action": {"dtype": "int64", "shape": [1]}}}, "action has dtype int64"),
    ({"features": {"action": {"dtype": "float32", "shape": [2]},
                   "observation.image": {"dtype": "video", "shape": [8, 8, 3]}}}, "no vector.*observation.image")])
def test_another_format_is_one_line(folder: Path, changes: dict, message: str) -> None:
    info(folder, **changes)
    with pytest.raises(DataError, match=message) as error:
        load_episodes(folder)
    assert "\n" not in str(error.value)


def test_damaged_files_and_missing_numbers_are_one_line(folder: Path) -> None:
    file = folder / "data" / "chunk-000" / "file-000.parquet"
    whole = file.read_bytes()
    rewrite(folder, lambda table: table.set_column(
        table.column_names.index("next.reward"), "next.reward", pyarrow.array([None, *map(float, range(11))])))
    with pytest.raises(DataError, match=r"next\.reward lacks 1 values"):
        load_episodes(folder)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"file-000\.parquet: cannot be read .*is it complete, and Parquet"):
        load_episodes(folder)
    file.unlink()
    with pytest.raises(DataError, match=r"holds no data/\*/\*\.parquet"):
        load_episodes(folder)
