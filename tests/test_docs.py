"""README and manual hold: their Python runs, their commands are commands, their links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import tyro
from small import gentraj
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from gentraj.data import save_minari, save_npz
from gentraj.runs.kinds.presets import PRESETS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"  # `gentraj reproduce` writes it
NOTEBOOK = sorted((ROOT / "docs" / "notebook").glob("*.md"))
MANUAL = sorted({*(ROOT / "docs").glob("*.md")} - {RESULTS})
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *MANUAL, *NOTEBOOK]
SMALLER = [(r"\bsteps=\d[\d_]*", "steps=2"), (r"\bepisodes=\d+", "episodes=1"), (r"\bnum_samples=\d+", "num_samples=2"),
           (r"\brange\(200\)", "range(3)"), (r"factory, 200,", "factory, 3,"), (r"\bhorizon=32\b", "horizon=8"),
           (r"compare\(run\)", "compare(run, episodes=1)")]
POLICY = ("--policy.batch-size", "8", "--policy.critic.width", "16")
WORLD = ("--world.width", "16", "--world.members", "2")
STAND_INS = {"RUN": "runs/demo", "DIR": "runs/demo", "runs/large": "runs/demo", "PRESET": "pointmaze-umaze",
             "FILE": "hopper.npz", "NAME": "gan", "COMMAND": "demo", "N": "2", "awr": "swift"}
SAVED = r"[Ss]ave this as `(\w+\.py)`.*?^```python\n(.*?)^```"
EVERYWHERE = {"--help", "--version", "--import", "--env-kwargs"}  # no command's own help shows them
OTHER_COMMANDS = {"python", "python3", "make", "pip", "git", "cd", ".", ".ci/run"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every line of the page's shell blocks, and of what stands between backticks, without comments."""
    blocks = fences(page, "sh")
    here = re.sub(r"`[^`]*`\s+at\s+commit", "", page.read_text())  # what a benchmark did that is in the history
    quoted = re.findall(r"`((?:gentraj|python -m benchmarks\.|python examples/)[^`]*)`", here)
    for line in "\n".join([*blocks, *(" ".join(one.split()) for one in quoted)]).replace("\\\n", " ").splitlines():
        words = shlex.split(line.partition(" > ")[0], comments=True)
        if words and (words[0] in OTHER_COMMANDS or words[0] == "gentraj"):
            for one in " ".join(map(shlex.quote, words)).split(" '&&' "):
                yield shlex.split(one)


@pytest.fixture(scope="module")
def workplace(umaze, hopper, small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the runs and the datasets that the manual names exist, only smaller."""
    folder = tmp_path_factory.mktemp("manual")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        save_minari(umaze, PRESETS["pointmaze-umaze"].dataset, description="small")
        save_minari(hopper, "gentraj/mujoco/hopper-medium-v0", description="small")
        for file in ("hopper.npz", "pendulum.npz", "river.npz"):
            save_npz(hopper, folder / file)
        (folder / "runs").mkdir()
        (folder / "runs" / "demo").symlink_to(small_run)
        for preset, words in (("iql", POLICY), ("idql", POLICY), ("swift", POLICY), ("world-ensemble", WORLD)):
            assert gentraj("train", preset, "--dataset", "hopper.npz", "--run-dir", f"runs/{preset}", "--steps", 2,
                           *words) == 0
        assert gentraj("distill", "runs/demo", "--method", "decision", "--run-dir", "runs/demo-student", "--steps", 2,
                       "--episodes", 1, "--rounds", 0, "--policy.width", 8) == 0
        (folder / "runs" / "world").symlink_to(folder / "runs" / "world-ensemble")
        for module, block in re.findall(SAVED, "".join(page.read_text() for page in MANUAL), re.DOTALL | re.MULTILINE):
            (folder / module).write_text(block)
        for table in fences(ROOT / "docs" / "data.md", "csv"):
            (folder / "logs.csv").write_text(table)
        config = io.StringIO()
        with contextlib.redirect_stdout(config):
            assert gentraj("train", "pointmaze-umaze", "--print-config") == 0
        (folder / "mine.json").write_text(config.getvalue())
        for benchmark in ("benchmarks", "examples"):
            (folder / benchmark).symlink_to(ROOT / benchmark)
        (folder / "pusht").symlink_to(ROOT / "tests" / "data" / "lerobot-tiny")
        yield folder


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page, "python")], ids=name)
def test_the_python_of_a_page_runs(page: Path, workplace: Path, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after the other, in one namespace, with less of everything that takes time."""
    text = page.read_text()
    for large, little in SMALLER:
        text = re.sub(large, little, text)
    (tmp_path / page.name).write_text(text)
    monkeypatch.syspath_prepend(workplace)
    for example in Document.parse(str(tmp_path / page.name), PythonCodeBlockParser(), SkipParser()).examples():
        example.evaluate()


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))], ids=name)
def test_the_commands_of_a_page_are_commands(page: Path, workplace: Path) -> None:
    for words in commands(page):
        if words[0] == "gentraj":
            check_gentraj(words[1:])
        elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
            check_benchmark(words[2], words[3:])
        elif words[0] == "python" and words[1].startswith("examples/"):
            assert (ROOT / words[1]).exists(), words
            if any(word.startswith("--") for word in words):
                check_gentraj(words[2:])  # options of an example are those of the command that it hands them to
        elif words[0] == "make":
            assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
                       for target in words[1:] if "=" not in target), words


def check_gentraj(words: list[str]) -> None:
    """Sub-command, preset and option names and choices are those of the real parser; the help shows each option."""
    words = [STAND_INS.get(word, word) for word in words]
    code, shown, errors = helped(*words)
    assert code == 0, f"gentraj {' '.join(words)}: {errors}"
    for word in words:
        if word.startswith("--"):
            option = re.escape(word.partition("=")[0].removeprefix("--"))
            known = word in EVERYWHERE or re.search(rf"--(training\.)?{option}(?![\w-])", shown)  # --steps is short
            assert known, f"gentraj {' '.join(words)}: {word}"
        elif word.startswith("benchmarks/"):
            assert (ROOT / word).exists() or "*" in word, word


@cache
def helped(*words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command with --help. A quarter of the commands stand on several pages."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = gentraj(*words, "--help")
    return code, shown.getvalue(), errors.getvalue()


class Parsed(Exception):
    """The words of a command line were read."""


def check_benchmark(module: str, words: list[str]) -> None:
    """Its own parser takes all of the words; it is not run."""
    parse = tyro.cli

    def read(what: object, **about: object) -> None:
        parse(what, args=words, **about)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed):
        patch.setattr(tyro, "cli", read)
        patch.delitem(sys.modules, module, raising=False)  # where another test has imported it
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, RESULTS, ROOT / "CHANGELOG.md"], ids=name)
def test_every_link_and_anchor_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(to), f"{name(page)} links to {target}; {sorted(anchors(to))} are there"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in NOTEBOOK], ids=name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """Between backticks: modules, examples, benchmarks, tests, pages."""
    for path in re.findall(r"`((?:gentraj|agents|envs|examples|benchmarks|tests|docs)/[\w./+-]*)`", page.read_text()):
        named_data = re.fullmatch(r"gentraj/\w+/[\w+-]+-v\d+", path)  # a dataset
        assert named_data or (ROOT / path).exists() or path.endswith("-v0"), f"{name(page)} names {path}"


def test_the_index_leads_to_every_page() -> None:
    for pages in ([*MANUAL, RESULTS], NOTEBOOK):
        index = (pages[0].parent / "index.md").read_text()
        paths = [str(page.relative_to(pages[0].parent)) for page in pages if page.name != "index.md"]
        assert [path for path in paths if f"]({path}" not in index] == []
