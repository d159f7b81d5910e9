"""What README shows works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from small import gentraj

from gentraj.data import save_minari
from gentraj.runs.presets import PRESETS

README = (Path(__file__).parents[1] / "README.md").read_text()
SMALLER = {"steps=3_000": "steps=4", "episodes=50": "episodes=2"}


def blocks(*languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The words of every line `gentraj ...` in a block for the shell, without its comment."""
    lines = [line for block in blocks("", "sh", "bash", "shell", "console") for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ "), comments=True)[1:] for line in lines
            if line.removeprefix("$ ").startswith("gentraj ")]


def test_the_snippets_run(umaze, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one namespace; the presets find their datasets recorded, only smaller."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    save_minari(umaze, PRESETS["pointmaze-umaze"].dataset, description="small")
    snippets, namespace = blocks("python"), {}
    assert len(snippets) == 4
    for number, snippet in enumerate(snippets):
        for large, little in SMALLER.items():
            snippet = snippet.replace(large, little)
        exec(compile(snippet, f"README.md, snippet {number}", "exec"), namespace)  # noqa: S102


def test_the_commands_exist(capsys: pytest.CaptureFixture) -> None:
    """Sub-commands, presets and options; not the files that they name."""
    assert commands()
    for words in commands():
        command = words[: 2 if words[0] == "data" else 1]
        assert gentraj(*command, "--help") == 0, words
        shown = capsys.readouterr().out
        for word in words[len(command):]:
            if word.startswith("--"):
                assert re.search(rf"{re.escape(word.partition('=')[0])}\b", shown), f"gentraj {' '.join(words)}: {word}"
            elif word.startswith("pointmaze"):
                assert word in PRESETS, f"gentraj {' '.join(words)}: {word}"
