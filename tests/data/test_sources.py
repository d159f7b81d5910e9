from pathlib import Path

import pytest
from some_episodes import some

from gentraj.data import DataError, concatenate, inspect, load_episodes, save_minari, save_npz, sources
from gentraj.data.episodes import npz_fields, open_npz
from gentraj.data.sources import Format, ends_in, resolve_paths, split_names


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_several_sources_are_one_dataset(tmp_path):
    path = save_npz(some([3]), tmp_path / "a.npz")
    save_minari(some([2, 4], seed=1), "mine/b-v0", description="b")
    joined = load_episodes([path, "mine/b-v0", some([1], seed=2)])
    assert joined == concatenate([some([3]), some([2, 4], seed=1), some([1], seed=2)])
    assert joined.name == "a+mine/b-v0+dataset"


@pytest.mark.parametrize("folder", ["plain", "c++ x", "a+b"])
def test_a_plus_in_the_path_of_a_file_separates_nothing(folder, tmp_path, monkeypatch):
    """In an absolute path, and in a relative path of a single existing file."""
    one, other = (save_npz(some([3]), tmp_path / folder / name) for name in ("a.npz", "medium+expert.npz"))
    names = [str(one), "mine/b-v0", str(other), "~/c++/d.h5"]
    assert split_names("+".join(names)) == names and split_names(str(other)) == [str(other)]
    assert split_names("a.npz+mine/b-v0+c.npz") == ["a.npz", "mine/b-v0", "c.npz"]
    monkeypatch.chdir(tmp_path)
    relative = f"{folder}/medium+expert.npz"
    assert split_names(relative) == [relative] and inspect(relative).startswith(inspect(str(one))[:9])


@pytest.mark.parametrize("source", ["../../etc/no-such-file", "gentraj/pointmaze", "a\nb", ""])
def test_what_names_no_dataset_is_refused_in_one_line_that_says_what_does(source):
    with pytest.raises(DataError, match=r"names no dataset; give .*D4RL id.*Minari id") as caught:
        load_episodes(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", [3, {"obs": [[1.0]]}, [None]])
def test_what_is_no_dataset_is_named_by_its_type(source):
    with pytest.raises(ValueError, match="a path, a name or Episodes are expected"):
        load_episodes(source)


def test_a_format_of_one_line_is_read_joined_and_located(tmp_path, monkeypatch):
    own = Format("a .own file", ends_in(".own"), lambda source: npz_fields(open_npz(Path(source)), Path(source)), True)
    monkeypatch.setattr(sources, "FORMATS", (own, *sources.FORMATS))
    monkeypatch.chdir(tmp_path)
    path = save_npz(some([3]), tmp_path / "a+b.npz").rename(tmp_path / "a+b.own")
    assert load_episodes("a+b.own") == some([3]) and inspect(f"{path}+{path}").startswith("dataset      a+b+a+b")
    assert resolve_paths("a+b.own", tmp_path / "run") == str(path)
