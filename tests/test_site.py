"""The documentation site: every public name is described and shown."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.ipynb"))]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / ".ci" / "site")
    reference = importlib.import_module("reference")
    del sys.modules["reference"]


@pytest.fixture(scope="module")
def public() -> dict[str, griffe.Object]:
    """The public names, with the docstrings that the site shows."""
    return reference.public()


def test_every_public_name_is_described(public):
    assert [path for path, target in public.items() if not target.has_docstring] == []


def test_the_reference_shows_every_public_name_once(public):
    text = "\n".join(reference.pages().values())
    shown = re.findall(r"^(?:::: |      heading: )(\S+)$", text, re.MULTILINE)
    assert sorted({*shown} - {"gentraj.acceleration.accelerate"}) == sorted(public)
    assert len(shown) == len({*shown}) and shown.count("gentraj.accelerate") == 1
    for package in ("gentraj", "gentraj.agents", "gentraj.envs", "gentraj.data", "gentraj.networks", "gentraj.metrics"):
        for name in importlib.import_module(package).__all__:
            homes = {target.path for path, target in public.items() if path.endswith(f".{name}")}
            assert homes, f"{package}.{name} is not in the reference"


def test_what_the_documentation_imports_is_public(public):
    last = {path.rpartition(".")[2] for path in public}
    blocks = "\n".join(block for page in PAGES for block in re.findall(
        r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
    imported = re.findall(r"^from (gentraj\b\S*) import (.+)$", blocks, re.MULTILINE)
    assert [f"{module}.{name}" for module, names in imported for name in names.partition("#")[0].split(",")
            if name.strip() not in last] == []
    assert {name for name in re.findall(r"\bgentraj\.(\w+)\(", blocks) if f"gentraj.{name}" not in public} == set()
