"""The page of the command line: the help texts of the commands."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from unittest import mock

from gentraj.cli import COMMANDS, USAGE, main

WIDTH = "100"  # columns that a help text is laid out for


def page() -> str:
    """The Markdown of the page."""
    return "\n\n".join(["# The command line", f"```text\n{USAGE}\n```", *sections()])


def sections() -> Iterator[str]:
    """A section for each command."""
    for command in COMMANDS:
        yield f"## gentraj {command}\n\n```text\n{help_of(*command.split())}\n```"


def help_of(*words: str) -> str:
    """What `gentraj WORDS --help` prints."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with mock.patch.dict(os.environ, COLUMNS=WIDTH, NO_COLOR="1"), redirect_stdout(out):
        code = main([*words, "--help"])
    if code:
        raise ValueError(f"gentraj {' '.join(words)} --help ended with {code}")
    out.seek(0)
    return out.read().strip()
