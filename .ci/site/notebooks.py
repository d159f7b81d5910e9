"""Pages of notebooks: their text, their code and what it printed and drew, as they were saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICTURES = ("image/png", "image/gif", "image/jpeg")  # of what a cell drew, the first of these that it has


def markdown(path: Path) -> str:
    """The Markdown of a notebook's page; the notebook lies beside it and can be downloaded."""
    notebook = json.loads(path.read_text())
    parts = [part for cell in notebook["cells"] for part in _cell(cell)]
    title, *rest = "\n\n".join(parts).split("\n", 1)
    return f'{title}\n\n<a href="{path.name}" download>Download this notebook</a>\n{"".join(rest)}\n'


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"]).strip()
    if cell["cell_type"] == "markdown":
        yield source
    elif source:
        yield f"```python\n{source}\n```"
        yield from filter(None, map(_output, cell["outputs"]))


def _output(output: dict[str, Any]) -> str:
    """What a cell printed, as text, or what it drew, as a picture. Raises ValueError for a cell that failed."""
    if output["output_type"] == "error":
        raise ValueError(f"a cell of the notebook ended with {output['ename']}: {output['evalue']}; run it again")
    data = output.get("data", {"text/plain": output.get("text", "")})
    kind = next((kind for kind in PICTURES if kind in data), None)
    if kind:
        return f"![What the code above drew](data:{kind};base64,{''.join(''.join(data[kind]).split())})"
    text = "".join(data.get("text/plain", "")).rstrip()
    return f'```{{.text .output title="Output"}}\n{text}\n```' if text else ""
