"""The page of the command line, from the help texts of the commands themselves."""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from unittest import mock

from gentraj.cli import COMMANDS, USAGE, main

BOX = re.compile(r"^╭─ (.*?) ─*╮\n(.*?)^╰─*╯\n", re.DOTALL | re.MULTILINE)
WIDTH = "100"  # columns that a help text is laid out for
COLUMN = 47  # where the descriptions of the overview begin


def page() -> str:
    """The Markdown of the page."""
    return "\n\n".join(["# The command line", *_overview(), *_sections()])


def _overview() -> Iterator[str]:
    """The help of `gentraj` itself: a list of commands for each heading, and prose."""
    usage, *blocks = USAGE.split("\n\n")
    yield f"```text\n{usage}\n```"
    for block in blocks:
        heading, *lines = block.splitlines()
        if lines and heading.endswith(":"):
            yield f"**{heading.removesuffix(':')}**"
            yield "\n".join(f"- `{line[:COLUMN].strip()}`: {line[COLUMN:]}" for line in lines)
        else:
            yield block


def _sections() -> Iterator[str]:
    for command in COMMANDS:
        text = help_of(command)
        yield section(command, text)
        for _, inside in BOX.findall(text):
            for name in re.findall(r"^│   • (\S+)", inside, re.MULTILINE):
                yield section(f"{command} {name}", help_of(command, name))


def help_of(*words: str) -> str:
    """What `gentraj WORDS --help` prints."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with mock.patch.dict(os.environ, COLUMNS=WIDTH, NO_COLOR="1"), redirect_stdout(out):
        code = main([*words, "--help"])
    if code:
        raise ValueError(f"gentraj {' '.join(words)} --help ended with {code}")
    out.seek(0)
    return out.read()


def section(command: str, text: str) -> str:
    """The section of a command: its description and its examples, and a list of the options of each box."""
    usage, _, about = BOX.sub("", text).strip().partition("\n")
    about, *examples = re.split(r"^Examples?: *", about, maxsplit=1, flags=re.MULTILINE)
    parts = [f"## gentraj {command}", f"```text\n{usage}\n```", *_paragraphs(about)]
    if examples:
        lines, *rest = examples[0].split("\n\n", 1)
        parts += ["```sh\n" + "\n".join(line.strip() for line in lines.splitlines()) + "\n```"]
        parts += _paragraphs("\n".join(rest))
    for title, inside in BOX.findall(text):
        lines = [line[2:-2].rstrip() for line in inside.splitlines()]
        if title != "subcommands":
            parts.append(f"**{title}**\n\n<dl class=\"options\">\n{''.join(_options(command, lines))}</dl>")
    return "\n\n".join(parts) + "\n\n"


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of prose; those of several lines are tables in fixed width."""
    for each in re.split(r"\n\s*\n", text.strip("\n")):
        if "\n" in each:
            yield f"```text\n{each}\n```"
        elif each.strip():
            yield _prose(each)


def _options(command: str, lines: list[str]) -> Iterator[str]:
    """The options of a box: what begins at the margin is an option, what is indented says what it does."""
    terms: list[tuple[str, list[str]]] = []
    for line in filter(None, lines):
        if line.startswith(" ") and terms:
            terms[-1][1].append(line)
        else:
            term, *said = re.split(r" {2,}", line, maxsplit=1)
            terms.append((term, said))
    for term, said in terms:
        key = re.sub(r"\W+", "-", term.split()[0]).strip("-")
        name = f"{command.replace(' ', '-')}--{key}"
        yield (f'<dt id="{name}"><code>{html.escape(term)}</code></dt>\n'
               f"<dd>{_prose(' '.join(' '.join(said).split()))}</dd>\n")


def _prose(text: str) -> str:
    """Text as HTML, in which what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
