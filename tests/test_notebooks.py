"""The tutorials are whole: stored outputs without errors, public names, small files, links that lead somewhere.

`make notebooks` executes them (benchmarks/notebooks.py).
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks.notebooks import shrink, warnings_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
OURS = ("gentraj",)
LARGEST = 400_000  # bytes of a notebook with its figures


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def names_imported(code: str) -> list[tuple[str, str | None]]:
    """The modules of ours, with the name that is imported from each."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
    return [(module, name) for module, name in found if module.partition(".")[0] in OURS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_executed_in_order_and_none_failed_or_warned(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr" and "Warning" in "".join(output["text"])]
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_code_uses_public_names_only(path: Path) -> None:
    for cell in cells(path, "code"):
        for module, name in names_imported(source(cell)):
            home = importlib.import_module(module)
            assert not any(part.startswith("_") for part in [*module.split("."), name or ""]), (module, name)
            assert name is None or name in getattr(home, "__all__", dir(home)), f"{module} has no public {name}"
        private = [node.attr for node in ast.walk(ast.parse(source(cell)))
                   if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr)]
        assert private == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_sizes_of_the_check_are_parameters_and_smaller(path: Path) -> None:
    [cell] = [cell for cell in cells(path, "code") if "parameters" in cell["metadata"].get("tags", [])]
    sizes = {}
    for node in ast.parse(source(cell)).body:
        assert isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        sizes[node.targets[0].id] = ast.literal_eval(node.value)
    quick = json.loads(path.read_text())["metadata"]["quick"]
    assert quick.keys() <= sizes.keys() and all(quick[name] < sizes[name] for name in quick)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_says_at_the_top_how_long_it_takes_and_its_links_lead_somewhere(path: Path) -> None:
    texts = [source(cell) for cell in cells(path, "markdown")]
    assert texts[0].startswith("# ") and "How long this takes" in texts[0] and "For real" in texts[0]
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(texts)):
        assert target.startswith("https://") or (FOLDER / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_have_ids_that_a_new_execution_keeps(path: Path) -> None:
    ids = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
    assert ids == [f"{path.stem}-{number:02d}" for number in range(len(ids))]


def test_the_index_leads_to_every_tutorial() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"](tutorials/{path.name})" not in index] == []


def test_the_check_shrinks_a_notebook_and_finds_warnings() -> None:
    cell = nbformat.v4.new_code_cell("STEPS = 500", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"quick": {"STEPS": 2}})
    shrink(notebook)
    assert cell.source == "STEPS = 500\nSTEPS = 2" and warnings_of(notebook) == []
    for text in ("reading data", "UserWarning: the end of each trajectory is padding"):
        cell.outputs.append(nbformat.v4.new_output("stream", name="stderr", text=text))
    assert warnings_of(notebook) == ["UserWarning: the end of each trajectory is padding"]
