"""`gentraj data import` makes a dataset of a plant's logs, and says what it made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import gentraj

from gentraj.data import DataError, Episodes, load_episodes

LOG = """run,volt,amp,duty,r,trip
a,24,0.1,0.5,-1,0
a,24,0.2,0.6,-2,0
a,24,{0},0.7,-3,0
a,24,0.4,0.8,-4,0
a,24,0.5,,,0
b,24,0.6,0.9,-10,1
"""
COLUMNS = ("--obs", "volt", "amp", "--act", "duty", "--reward", "r", "--episode", "run", "--terminated", "trip")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    (tmp_path / "whole.csv").write_text(LOG.format(0.3))
    (tmp_path / "gap.csv").write_text(LOG.format(""))
    return tmp_path


def names(e: Episodes) -> tuple:
    return e.obs_names, e.act_names


def test_logs_become_a_file_or_a_dataset_of_minaris(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("data", "import", "whole.csv", *COLUMNS, "--env-id", "Pendulum-v1", "--out", "a.npz") == 0
    out, err = capsys.readouterr()
    assert out == "a.npz\n" and "the same in all rows: volt\n" in err
    e = load_episodes("a.npz")
    assert e.lengths.tolist() == [4, 1] and e.terminated.tolist() == [False] * 4 + [True] and "Pendulum-v1" in e.env
    assert gentraj("data", "import", "whole.csv", *COLUMNS, "--env-id", "Pendulum-v1", "--id", "my/logs-v0") == 0
    found = load_episodes("my/logs-v0")
    assert found.reward.tolist() == e.reward.tolist()
    assert names(found) == names(e) == (("volt", "amp"), ("duty",))


def test_gaps_are_an_error_or_cut_and_several_files_are_joined(place: Path, capsys: pytest.CaptureFixture) -> None:
    files = "whole.csv", "gap.csv"
    assert gentraj("data", "import", *files, *COLUMNS, "--out", "a.npz") == 2 and not Path("a.npz").exists()
    assert "gap.csv: data row 3: amp missing" in capsys.readouterr().err
    assert gentraj("data", "import", *files, *COLUMNS, "--cut-gaps", "--out", "a.npz") == 0
    assert "2 episodes cut into 3 pieces" in capsys.readouterr().err
    assert load_episodes("a.npz").lengths.tolist() == [4, 1, 1, 1, 1]


@pytest.mark.parametrize(("words", "message"), [
    ("whole.csv --out a.npz", "run, volt, amp, duty, r, trip"),  # the columns to choose from
    ("whole.csv --obs volt --act duty", "--out"),
    ("whole.csv --obs volt --act duty --out a.npz --id my/logs-v0", "one of --out"),
    ("whole.csv --obs volt --act duty --out a.txt", ".npz"),
    ("whole.csv --obs volt --act dutty --out a.npz", "did you mean 'duty'?"),
    ("none.csv --obs volt --act duty --out a.npz", "none.csv: no such file"),
    ("none.npz --obs volt --out a.npz", "--obs: only of tables"),
])
def test_a_wrong_import_is_one_line_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture, words: str,
                                                       message: str) -> None:
    before = sorted(place.rglob("*"))
    assert gentraj("data", "import", *words.split()) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and sorted(place.rglob("*")) == before


@pytest.mark.parametrize(("name", "answer"), [
    ("whole.csv", "gentraj data import whole.csv"), ("none.parquet", "read_table"), ("plant.pkl", "save_npz"),
    ("folder", "is a folder"), ("notes.txt", "is a file"), ("nothing", "names no dataset"),
])
def test_what_is_given_in_the_place_of_a_dataset_is_answered(place: Path, name: str, answer: str) -> None:
    Path("folder").mkdir()
    for file in ("plant.pkl", "notes.txt"):
        Path(file).touch()
    with pytest.raises(DataError, match=answer) as caught:
        load_episodes(name)
    assert "\n" not in str(caught.value)
