"""The documentation site: every public name is described and shown, links work on GitHub and on the site."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import griffe
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.ipynb"))]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / ".ci" / "site")
    names = ("check", "commands", "inherit", "notebooks", "pages", "reference")
    check, commands, inherit, notebooks, pages, reference = map(importlib.import_module, names)
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def public() -> dict[str, griffe.Object]:
    """The public names, with the docstrings that the site shows."""
    found = reference.public()
    for package in {target.package.path: target.package for target in found.values()}.values():
        loader = SimpleNamespace(modules_collection=package.modules_collection)
        inherit.Inherit().on_package(pkg=package, loader=loader)
    return found


def members(public: dict[str, griffe.Object]) -> Iterator[tuple[str, griffe.Class, griffe.Object]]:
    for path, target in public.items():
        for name, member in target.members.items() if target.is_class else ():
            if not member.is_alias and not name.startswith("_"):
                yield f"{path}.{name}", target, member


def text(target: griffe.Object) -> str:
    return target.docstring.value if target.docstring else ""


def test_every_public_name_is_described(public):
    """A method by its own docstring or that of what it implements, a field also in that of its class."""
    missing = [path for path, target in public.items() if not target.has_docstring]
    for path, owner, member in members(public):
        is_called = member.is_function or "property" in member.labels
        is_named = re.search(rf"\b{member.name}\b", text(owner)) is not None
        if not member.has_docstring and (is_called or (is_setting(owner, member) and not is_named)):
            missing.append(path)
    assert missing == []


def is_setting(owner: griffe.Class, member: griffe.Object) -> bool:
    """Whether this is a field of a dataclass or of a named tuple."""
    is_record = "dataclass" in owner.labels or "NamedTuple" in map(str, owner.bases)
    return is_record and member.annotation is not None and "ClassVar" not in str(member.annotation)


def test_the_reference_shows_every_public_name_once(public):
    text = "\n".join(reference.pages().values())
    shown = re.findall(r"^(?:::: |      heading: )(\S+)$", text, re.MULTILINE)
    assert sorted({*shown} - {"gentraj.acceleration.accelerate.accelerate"}) == sorted(public)
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


def test_the_page_of_the_commands_has_each_command_and_each_option_of_its_help():
    for words in (["evaluate"], ["data", "make"]):
        help_text = commands.help_of(*words)
        section = commands.section(" ".join(words), help_text)
        options = re.findall(r"^│ (--?[\w-]+)", help_text, re.MULTILINE)
        assert len(options) > 3 and section.startswith(f"## gentraj {' '.join(words)}\n")
        assert [option for option in options if f"<code>{option}" not in section] == []
    overview = "\n".join(commands._overview())
    assert [name for name in commands.COMMANDS if not re.search(rf"^- `gentraj {name}\b.*`: \S", overview, re.M)] == []


def test_links_out_of_docs_lead_to_pages_of_the_site():
    seen = pages.with_links_of_the_site
    assert seen("[a](../SECURITY.md)", "reliability.md") == "[a](security.md)"
    assert seen("[a](../README.md#try-it)", "quickstart.md") == "[a](index.md#try-it)"
    assert seen("[a](../examples/add_a_policy.py)", "own-model.md") == "[a](source/examples/add_a_policy.py.md)"
    assert seen("[a](docs/data.md#b)", "changelog.md") == "[a](data.md#b)"
    for same in ("[a](https://example.org/a.md)", "[a](#b)", "[a](gan.md)", "![a](figures/paths.png)"):
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


def test_the_navigation_leads_to_every_page():
    def uris(entry) -> Iterator[str]:
        for each in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            yield from uris(each)
        if isinstance(entry, str):
            yield entry

    found = list(uris(pages.navigation(ROOT / "docs" / "index.md")))
    written = {path.relative_to(ROOT / "docs").with_suffix(".md").as_posix() for path in PAGES[1:]} - {"index.md"}
    examples = {f"source/examples/{path.name}.md" for path in (ROOT / "examples").glob("*.ipynb")}
    assert sorted(found) == sorted(written | examples | {"security.md", "contributing.md", "changelog.md"})


def test_code_that_is_a_public_name_or_a_command_links_to_the_reference():
    linked = reference.with_links_to_names
    assert linked("<code>PlannerConfig</code>") == (
        '<autoref identifier="gentraj.agents.PlannerConfig" optional><code>PlannerConfig</code></autoref>')
    assert 'identifier="gentraj.Episodes.save"' in linked("<code>Episodes.save</code>")
    assert 'identifier="gentraj-train"' in linked("<code>gentraj train iql --steps 3</code>")
    for same in ("<code>train</code>", "<pre><code>PlannerConfig</code></pre>", "<h2><code>Episodes</code></h2>",
                 '<a href="x"><code>gentraj.load</code></a>', "<code>gentraj.nothing</code>"):
        assert linked(same) == same


@pytest.mark.parametrize(("body", "problem"), [
    ('<a href="b.html#there">', None), ('<a href="https://example.org">', None), ('<a href="#here">', None),
    ('<a href="c.html">', "links to c.html, which is not there"),
    ('<a href="b.html#gone">', "links to b.html#gone, which has no such anchor"),
    ('<img src="a.png">', "links to a.png, which is not there"),
    ('<script src="https://example.org/a.js"></script>', "loads https://example.org/a.js"),
])
def test_the_check_of_the_site_finds_dead_links_and_what_is_loaded_from_elsewhere(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, problem: str | None):
    (tmp_path / "a.html").write_text(f'<p id="here">{body}')
    (tmp_path / "b.html").write_text('<p id="there">')
    assert check.problems(tmp_path) == ([f"a.html {problem}"] if problem else [])
    assert check.main(str(tmp_path)) == (problem is not None)
    assert f"2 pages, {int(problem is not None)} problems" in capsys.readouterr().out
