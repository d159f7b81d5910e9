"""`benchmarks/mutation.py`: which mutants are drawn, how one is loaded, and that the manual says what was found."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import mutation

SOURCE = '''from __future__ import annotations

def far(x: int | None, limit: float = 2.5) -> int | None:
    """More than 3."""
    return x if x and x + 1 > limit else None
'''


def test_mutants_are_a_function_of_the_seed_change_one_place_each_and_no_annotation() -> None:
    pytest.importorskip("cosmic_ray")
    drawn = [mutant for mutant, _ in mutation.drawn(SOURCE, 8, seed=1)]
    assert drawn == [mutant for mutant, _ in mutation.drawn(SOURCE, 8, seed=1)]
    assert drawn != [mutant for mutant, _ in mutation.drawn(SOURCE, 8, seed=2)]
    assert len({(m.operator, m.occurrence) for m in drawn}) == 8 and {m.line for m in drawn} == {3, 5}
    for mutant in drawn:
        assert SOURCE.count(mutant.was) == 1 and mutant.now != mutant.was
    everything = [mutant for mutant, _ in mutation.drawn(SOURCE, 10**6, seed=1)]
    assert len(everything) > 15 and not any(sign in m.now for m in everything for sign in (">>", "int &", "int +"))


def test_a_mutant_is_loaded_in_place_of_its_module_and_no_file_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    target = mutation.Target("benchmarks/lines.py", ())
    before = (mutation.ROOT / target.path).read_bytes()
    monkeypatch.delitem(sys.modules, "benchmarks.lines", raising=False)
    monkeypatch.setattr(sys, "meta_path", [mutation.InMemory(target, compile("mutated = 7", "mutant", "exec")),
                                           *sys.meta_path])
    assert importlib.import_module("benchmarks.lines").mutated == 7
    monkeypatch.delitem(sys.modules, "benchmarks.lines")
    assert (mutation.ROOT / target.path).read_bytes() == before


def test_the_manual_says_what_was_found() -> None:
    page = (Path(mutation.ROOT) / "docs" / "mutation.md").read_text()
    assert "\n".join(mutation.table(tuple(mutation.TARGETS))) in page
    found = [json.loads((mutation.RESULTS / f"{name}.json").read_text())["mutants"] for name in mutation.TARGETS]
    outcomes = [mutant["outcome"] for mutants in found for mutant in mutants]
    assert len(outcomes) >= 400 and outcomes.count("survived") <= 0.1 * len(outcomes)


def test_every_target_is_a_module_and_its_tests_are_there() -> None:
    for target in mutation.TARGETS.values():
        assert all((mutation.ROOT / path).is_file() for path in (target.path, *target.tests))
