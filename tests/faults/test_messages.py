"""FAULTS 40 and all others, as the user reads them: the messages of bad inputs are those of messages.txt."""

from __future__ import annotations

import difflib

import pytest
from golden import ACCEPTED, MESSAGES, messages


@pytest.fixture(scope="module")
def entries() -> list[list[str]]:
    return [entry.splitlines() for entry in MESSAGES.read_text().split("\n\n") if not entry.startswith("== ")]


@pytest.mark.timeout(600)  # 12 seconds of one core, and the machine may be shared
def test_messages_are_those_that_were_read() -> None:
    """After a change: `python -m tests.faults.golden --write`, and read what changed aloud."""
    before, after = MESSAGES.read_text().splitlines(), messages().splitlines()
    assert not list(difflib.unified_diff(before, after, "messages.txt", "now", lineterm="", n=1))


def test_a_command_says_one_line_and_a_call_raises_one(entries: list[list[str]]) -> None:
    assert len(entries) >= 150
    for entry in entries:
        given, *said = [line for line in entry if not line.startswith("# ")]
        assert len(said) == 1 and given.startswith(("$ gentraj ", ">>> ")), entry
        start = "gentraj: error: " if given.startswith("$") else ""
        assert said[0].startswith(start) and said[0] != ACCEPTED and "Traceback" not in said[0], entry


def test_no_message_is_one_of_python_or_of_torch(entries: list[list[str]]) -> None:
    """Such as an AttributeError: what the user gave is checked before it is used."""
    raised = {entry[-1].partition(":")[0] for entry in entries if entry[0].startswith(">>> ")}
    assert raised <= {"ValueError", "TypeError", "DataError", "CheckpointError", "NothingSaved", "EnvironmentFault",
                      "EnvCrashed"}
