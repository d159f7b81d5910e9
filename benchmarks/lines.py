"""Results of a benchmark that goes on where it stopped: a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a call that was killed may have left half of one, which is cut off."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole))
    return [json.loads(line) for line in whole]


def rows_of(folder: Path, todo: Iterable[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]) -> list[dict[str, Any]]:
    """The lines of FOLDER/results.jsonl with these keys; what is not there is measured, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    path, keys = folder / "results.jsonl", []
    for key, measure in todo:
        keys.append(key)
        if not any(key.items() <= row.items() for row in whole_lines(path)):
            row = key | measure()
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return [row for row in whole_lines(path) if any(key.items() <= row.items() for key in keys)]
