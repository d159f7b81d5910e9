"""`make audit` says what it found, and never calls packages sound that it could not ask about."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / ".ci" / "audit.py"
SPEC = importlib.util.spec_from_file_location("audit", PATH)
assert SPEC is not None and SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

SOUND = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "Dependency not found on PyPI"}
KNOWN = {"name": "c", "version": "2",
         "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}, {"id": "X", "fix_versions": []}]}


@pytest.mark.parametrize(("packages", "code", "lines"), [
    ([SKIPPED, SKIPPED], 0, ["audit: none of 2 packages could be asked about; is there a network?"]),
    ([SOUND, SKIPPED], 0, ["audit: 0 known vulnerabilities in 1 of 2 packages"]),
    ([SOUND, KNOWN], 1, ["audit: 2 known vulnerabilities in 2 of 2 packages", "c 2: CVE-1, mended in 3",
                         "c 2: X, mended in none"])])
def test_the_verdict_is_of_those_that_could_be_asked_about(packages: list[dict], code: int, lines: list[str]) -> None:
    assert audit.verdict({"dependencies": packages}) == (code, "\n".join(lines))


def test_without_pip_audit_or_its_answer_nothing_is_called_sound(capsys: pytest.CaptureFixture,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit.sys, "executable", "/bin/true")
    assert audit.main("nowhere") == 0
    assert "nothing could be asked" in capsys.readouterr().out
