"""The tutorials are whole: executed in order without errors, with smaller sizes for the check, and links that lead
somewhere. `make notebooks` executes them (benchmarks/notebooks.py)."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from benchmarks.notebooks import shrink, warnings_of

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_tutorial_was_executed_and_can_be_checked_with_smaller_sizes(path: Path) -> None:
    notebook: Any = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    [cell] = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    sizes = {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in ast.parse("".join(
        cell["source"])).body if isinstance(node, ast.Assign)}
    assert all(value < sizes[name] for name, value in notebook["metadata"]["quick"].items())
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(texts)):
        assert target.startswith("https://") or (FOLDER / target.partition("#")[0]).exists(), target


def test_the_check_shrinks_a_notebook_and_finds_warnings() -> None:
    cell = nbformat.v4.new_code_cell("STEPS = 500", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"quick": {"STEPS": 2}})
    shrink(notebook)
    assert cell.source == "STEPS = 500\nSTEPS = 2" and warnings_of(notebook) == []
    cell.outputs.append(nbformat.v4.new_output("stream", name="stderr", text="UserWarning: padding"))
    assert warnings_of(notebook) == ["UserWarning: padding"]
