"""The documentation site: every public name is described and shown, links work on GitHub and on the site."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.ipynb"))]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / ".ci" / "site")
    names = ("notebooks", "pages", "reference")
    notebooks, pages, reference = map(importlib.import_module, names)
    for name in names:
        del sys.modules[name]


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


def test_links_out_of_docs_lead_to_pages_of_the_site():
    seen = pages.with_links_of_the_site
    assert seen("[a](../SECURITY.md)", "reliability.md") == "[a](security.md)"
    assert seen("[a](../README.md#try-it)", "quickstart.md") == "[a](index.md#try-it)"
    assert seen("[a](../examples/add_a_policy.py)", "own-model.md") == "[a](source/examples/add_a_policy.py.md)"
    assert seen("[a](docs/data.md#b)", "changelog.md") == "[a](data.md#b)"
    for same in ("[a](https://example.org/a.md)", "[a](#b)", "[a](gan.md)", "![a](figures/plans.gif)"):
        assert seen(same, "models.md") == same
    assert {"security.md", "contributing.md", "source/examples/add_a_policy.py.md"} <= pages.outside().keys()


def test_a_notebook_is_a_page_with_what_its_code_printed_and_drew(tmp_path: Path):
    printed = {"output_type": "stream", "name": "stdout", "text": ["3 plans\n"]}
    drawn = {"output_type": "display_data", "data": {"image/png": "iVBO\nRw==\n", "text/plain": ["<Figure>"]}}
    cells = [{"cell_type": "markdown", "source": ["# Plan\n", "\n", "See [data](../data.md)."]},
             {"cell_type": "code", "source": ["plan()"], "outputs": [printed, drawn]}]
    path = tmp_path / "plan.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    page = notebooks.markdown(path)
    assert page.startswith("# Plan\n") and 'href="plan.ipynb" download' in page and "[data](../data.md)" in page
    assert "```python\nplan()\n```" in page and "3 plans\n```" in page and "<Figure>" not in page
    assert "](data:image/png;base64,iVBORw==)" in page
    failed = {"output_type": "error", "ename": "KeyError", "evalue": "a", "traceback": []}
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["plan()"], "outputs": [failed]}]}))
    with pytest.raises(ValueError, match="ended with KeyError: a; run it again"):
        notebooks.markdown(path)
