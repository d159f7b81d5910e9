"""The table of docs/soak.md, written from benchmarks/results/soak/cpu.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- soak -->", "<!-- /soak -->"


def write_page(results: Mapping[str, Any], path: Path) -> None:
    """Writes the table between the markers of the page."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


def table(results: Mapping[str, Any]) -> str:
    """A row for each part: what was measured, and how."""
    rows = ["| part | figures | seed | bound, minutes | date | machine |", "| --- " * 6 + "|"]
    for name, found in results.items():
        at = found["machine"]
        rows.append(f"| `{name}` | {figures(found['figures'])} | {found['seed']} | {found['minutes']:g} | "
                    f"{at['date']} | {at['cpu']}, {at['cores']} cores, load {at['load']:g} |")
    return "\n".join(rows)


def figures(values: Mapping[str, Any]) -> str:
    """The figures in words: `kills` 50, `kinds` 38."""
    return "; ".join(f"{key.replace('_', ' ')}: {shown(value)}" for key, value in values.items())


def shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {shown(one)}" for key, one in value.items()) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
