"""A file of JSON lines for the results of a benchmark, which can be stopped and continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the complete lines of a file, and removes an incomplete one that a killed process has left."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole))
    return [json.loads(line) for line in whole]


def rows_of(folder: Path, todo: Iterable[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Returns the lines of FOLDER/results.jsonl with these keys; missing ones are measured, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    path, keys = folder / "results.jsonl", []
    for key, measure in todo:
        keys.append(key)
        if not any(key.items() <= row.items() for row in whole_lines(path)):
            row = key | measure()
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return [row for row in whole_lines(path) if any(key.items() <= row.items() for key in keys)]
