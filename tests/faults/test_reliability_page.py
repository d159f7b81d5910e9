"""docs/reliability.md names a test for each promise and each of the 40 faults, and each of these tests is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", PAGE)))
ROWS = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_a_test_that_the_page_names_is_there_and_runs(file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    found, = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    marks = [ast.unparse(mark) for mark in found.decorator_list]
    assert not [mark for mark in marks if re.search(r"mark\.(slow|gpu|skip\b|xfail)", mark)]


def test_all_40_faults_are_there_with_what_happens_and_a_test() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 41))
    for number, fault, happens, tests in ROWS:
        assert fault and happens and re.fullmatch(r"(`[\w/]+\.py::\w+` ?)+", tests), number


def test_every_promise_names_its_test() -> None:
    guarantees, *_ = PAGE.partition("## Guarantees")[2].partition("gentraj does not guarantee")
    promises = re.split(r"^\d\. ", guarantees, flags=re.MULTILINE)
    assert len(promises) == 7 and all("::test_" in promise for promise in promises[1:])
