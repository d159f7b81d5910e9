"""FAULTS 16 for every file of a run folder: only plain files are opened, and none outside the folder."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from small import gentraj
from tiny import run_tiny, tiny_episodes

from gentraj.data import save_npz
from gentraj.files import FileRefused, inside, open_plain, read_file, write_file
from gentraj.runs.folder import load
from gentraj.runs.hub import save_pretrained
from gentraj.runs.records import read_learning_curve, read_starts, record_start
from gentraj.training.checkpoint import CheckpointError, RunLock
from gentraj.training.log import read_metrics

ROOT = Path(__file__).parents[2]


def moved(path: Path, outside: Path) -> Path:
    """The file's new place, in a folder outside."""
    outside.mkdir(exist_ok=True)
    if path.exists():
        shutil.move(path, outside / path.name)
    (outside / path.name).touch()
    return outside / path.name


def link(path: Path, outside: Path) -> None:
    path.symlink_to(moved(path, outside))


def pipe(path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def folder(path: Path, outside: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def hard_link(path: Path, outside: Path) -> None:
    os.link(moved(path, outside), path)


HARMS = link, pipe, device, folder


def contents(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def refused(capsys: pytest.CaptureFixture, *words: object) -> str:
    assert gentraj(*words) in (1, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("gentraj: error: "), lines
    return lines[0]


@pytest.fixture
def run(tmp_path: Path, small_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run, `run` in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(small_run, tmp_path / "run")).relative_to(tmp_path)


@pytest.mark.parametrize("harm", HARMS)
def test_16_only_a_plain_file_is_read(tmp_path: Path, harm: Callable[[Path, Path], None]) -> None:
    path = write_file(tmp_path / "run" / "file", b"content")
    harm(path, tmp_path / "outside")
    with pytest.raises(FileRefused, match=r"file: is (a link; a plain file is expected|not a plain file)"):
        read_file(path)


@pytest.mark.parametrize("harm", [*HARMS, hard_link])
@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_APPEND | os.O_CREAT, os.O_RDWR | os.O_CREAT])
def test_16_only_a_plain_file_is_written_in_place(tmp_path: Path, harm: Callable, flags: int) -> None:
    path = write_file(tmp_path / "run" / "file", b"content")
    harm(path, tmp_path / "outside")
    before = contents(tmp_path / "outside")
    with pytest.raises(FileRefused, match=r"file: (is|has 2 names)"):
        open_plain(path, flags)
    assert contents(tmp_path / "outside") == before


@pytest.mark.parametrize("harm", [link, hard_link])
def test_16_a_new_file_takes_the_place_of_a_link_and_spares_its_target(tmp_path: Path, harm: Callable) -> None:
    path = write_file(tmp_path / "run" / "file", b"before")
    harm(path, tmp_path / "outside")
    write_file(path, b"after")
    assert path.read_bytes() == b"after" and not path.is_symlink()
    assert (tmp_path / "outside" / "file").read_bytes() == b"before"


def test_16_a_file_beyond_its_bound_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no place on the disk
    with pytest.raises(FileRefused, match="file: has 1099511627776 bytes, so it is larger than expected: at most 10"):
        read_file(tmp_path / "file", 10)
    with pytest.raises(FileRefused, match="has 1099511627776 bytes"):
        read_file(tmp_path / "file", min(1 << 39, 1 << 39))
    assert read_file(write_file(tmp_path / "file", b"1234567890"), 10) == b"1234567890"


def test_16_temporary_names_cannot_be_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that waits under a temporary name would lead the write elsewhere; O_EXCL refuses even a lucky guess."""
    names = []
    monkeypatch.setattr("gentraj.files.open_plain", lambda path, flags=0: names.append(path.name) or open_plain(
        path, flags))
    for _ in range(2):
        write_file(tmp_path / "file", b"content")
    assert len(set(names)) == 2
    monkeypatch.setattr("gentraj.files.secrets.token_hex", lambda size: "guessed")
    (tmp_path / "target").write_bytes(b"precious")
    guess = tmp_path / f".tmp-{os.getpid()}-guessed-file"
    guess.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="guessed"):
        write_file(tmp_path / "file", b"content")
    assert (tmp_path / "target").read_bytes() == b"precious"


@pytest.mark.parametrize("harm", [*HARMS, hard_link])
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock"])
def test_16_training_writes_into_no_link_and_hangs_on_no_pipe(tmp_path: Path, harm: Callable, resume: bool,
                                                              name: str) -> None:
    place = tmp_path / "run"
    if resume:
        run_tiny(place, steps=20)
    place.mkdir(exist_ok=True)
    harm(place / name, tmp_path / "outside")
    before = contents(tmp_path / "outside")
    with pytest.raises((FileRefused, CheckpointError), match=f"{name}: (is|has 2 names)"):
        run_tiny(place, steps=40, resume=resume)
    assert contents(tmp_path / "outside") == before


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["config.json", "reference.safetensors", "metrics.jsonl", "evaluation.json",
                                  "provenance.json", "scores.jsonl"])
def test_16_a_report_reads_plain_files_only(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str,
                                            harm: Callable) -> None:
    harm(run / name, tmp_path / "outside")
    before = contents(tmp_path / "outside")
    assert f"{name}: is " in refused(capsys, "report", run) or harm is not link
    assert contents(tmp_path / "outside") == before


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["config.json", "reference.safetensors"])
@pytest.mark.parametrize("words", ["train --resume run", "sample run --out a.npz", "evaluate run --episodes 1"])
def test_16_commands_read_plain_files_only(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str,
                                           harm: Callable, words: str) -> None:
    harm(run / name, tmp_path / "outside")
    before = contents(tmp_path / "outside")
    if words.startswith("train") and name == "reference.safetensors" and harm is not folder:
        assert gentraj(*words.split()) == 0  # it writes them anew, as a file of its own
        assert not (run / name).is_symlink() and (run / name).is_file()
    else:
        refused(capsys, *words.split())
    assert contents(tmp_path / "outside") == before


def test_16_scores_metrics_and_figures_are_not_fetched_from_elsewhere(run: Path, tmp_path: Path) -> None:
    loaded = load(run)
    for name, read in (("metrics.jsonl", read_metrics), ("scores.jsonl", read_learning_curve)):
        link(run / name, tmp_path / "outside")
        with pytest.raises(FileRefused, match=f"{name}: is a link"):
            read(run)
        (run / name).unlink()
    (tmp_path / "outside").mkdir(exist_ok=True)
    (tmp_path / "outside" / "private.png").write_bytes(b"private")
    (run / "figures").symlink_to(tmp_path / "outside", target_is_directory=True)
    for use in (lambda: inside(run, "figures"), lambda: save_pretrained(loaded, tmp_path / "saved")):
        with pytest.raises((FileRefused, CheckpointError), match="figures: is a link, which may lead elsewhere"):
            use()
    assert not (tmp_path / "saved").exists()


def test_16_a_report_draws_into_no_folder_elsewhere(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "outside").mkdir()
    (run / "figures").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert "figures: is a link, which may lead elsewhere" in refused(capsys, "report", run)
    assert not contents(tmp_path / "outside")


def test_40_data_in_a_path_that_is_not_in_utf8_are_refused_before_the_training(
        tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an old disk. All was trained, and the settings of the run could not be read."""
    data = save_npz(tiny_episodes(), tmp_path / os.fsdecode(b"gr\xf6sse") / "a.npz")
    assert gentraj("train", "bc-gaussian", "--dataset", data, "--run-dir", tmp_path / "run", "--steps", 1) == 2
    assert "is a path that is not in UTF-8" in capsys.readouterr().err and not (tmp_path / "run").exists()
    monkeypatch.setattr(sys, "argv", ["gentraj", "train", "--run-dir", str(data)])
    record_start(tmp_path, None, resume=False)
    assert read_starts(tmp_path)[0]["command"].endswith("gr\\udcf6sse/a.npz'")


def test_40_what_the_encoding_of_stdout_lacks_is_printed_with_backslashes(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that had done its work ended in an error of Python's."""
    data = save_npz(tiny_episodes(), tmp_path / "\u6570.npz")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="latin-1"))
    assert gentraj("data", "inspect", data) == 0 and b"\\u6570" in printed.getvalue()


def test_40_a_stdout_that_was_a_file_and_is_a_pipe_by_now_is_written_to(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a forked process whose parent wrote to a file: such a stream cannot say where it is."""
    reader, writer = os.pipe()
    with open(tmp_path / "out", "w") as out, open(reader) as said:
        print("before", file=out, flush=True)
        os.dup2(writer, out.fileno())
        os.close(writer)
        monkeypatch.setattr(sys, "stdout", out)
        assert gentraj("--version") == 0
        os.dup2(2, out.fileno())  # closes the pipe
        assert said.read().strip() == version("gentraj")


def test_16_the_lock_leaves_what_it_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "precious", tmp_path / "run" / ".lock")
    with pytest.raises(CheckpointError, match=r"\.lock: has 2 names \(hard links\)"), RunLock(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_bytes() == b"precious"
