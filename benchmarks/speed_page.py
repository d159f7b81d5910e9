"""The tables of `benchmarks/speed.py` in the manual, between two marks, written from its JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gentraj.files import write_file
from gentraj.plots.page import markdown_table

Found = Mapping[str, Any]
BLOCK = re.compile(r"(<!-- speed: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_tables(found: Found, page: Path) -> Path:
    """Replaces what the page has between its marks by the tables of these results; returns its path.

    Raises ValueError for a page without such marks, and for results that lack one of its tables.
    """
    return write_file(page, with_tables(found, page.read_text(), str(page)).encode())


def with_tables(found: Found, text: str, name: str = "the page") -> str:
    """The text of a page with the tables between its marks."""
    if not BLOCK.search(text):
        raise ValueError(f"{name} has no marks <!-- speed: TABLE --> and <!-- end --> around a table; known tables: "
                         f"{', '.join(TABLES)}")

    def filled(match: re.Match[str]) -> str:
        if match[2] not in TABLES or not found.get(NEEDS[match[2]]):
            raise ValueError(f"{name} has a mark for the table '{match[2]}', which is not among these results; "
                             "measure with --growth and --memory, and without --cases")
        return f"{match[1]}{TABLES[match[2]](found)}\n{match[3]}"

    return BLOCK.sub(filled, text)


def machine(found: Found) -> str:
    """Where, when and with what it was measured."""
    at = found["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in at["versions"].items()
                         if number is not None and name in ("torch", "diffusers", "d3rlpy", "openvino"))
    threads = "1 thread" if at["threads"] == 1 else f"{at['threads']} threads"
    return (f"Measured on {at['date']} at commit {at['commit']}, {threads} of {at['cpu']} ({at['capability']}),\n"
            f"{packages}, by\n`{found['command']}`.")


def peers(found: Found) -> str:
    cases = [case for case in found["cases"].values() if case["peers"]]
    variants = list(dict.fromkeys(name for case in cases for name in case["ms"] if name not in case["peers"]))
    rows = [[case["title"], ", ".join(case["peers"]), number(case["ms"]["eager"]["median"]),
             *(", ".join(filter(None, (interval(each.get(name)) for each in case["speedup"].values())))
               for name in variants)] for case in cases]
    return markdown_table(["work", "compared with", "ms, eager", *variants], rows)


def growth(found: Found) -> str:
    rows = [[each["title"], " / ".join(f"{size:,}" for size in each["sizes"]),
             " / ".join(number(ms["median"]) for ms in each["ms"]), *map(two_digits, each["exponents"].values())]
            for each in found["growth"].values()]
    return markdown_table(["work", "sizes", "ms", "exponent", "at the largest"], rows)


def memory(found: Found) -> str:
    each = found["memory"]["backends"]
    return markdown_table(["backend", "imports, MiB", "added by the planner", "added by planning, at most"],
                          [[name, *(f"{value:.0f}" for value in mib.values())] for name, mib in each.items()])


def memory_growth(found: Found) -> str:
    rows = [[kind, " / ".join(f"{size:,}" for size in each["sizes"]), " / ".join(f"{mib:.0f}" for mib in each["mib"]),
             *map(two_digits, each["exponents"].values())] for kind, each in found["memory"]["growth"].items()]
    return markdown_table(["over", "sizes", "added, MiB", "exponent", "at the largest"], rows)


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def two_digits(value: float) -> str:
    return f"{value:.2f}"


def interval(one: Mapping[str, float] | None) -> str:
    """Median and quartiles."""
    return "" if one is None else f"{one['median']:.2f} ({one['low']:.2f}-{one['high']:.2f})"


TABLES: dict[str, Callable[[Found], str]] = {"machine": machine, "peers": peers, "growth": growth, "memory": memory,
                                             "memory_growth": memory_growth}
NEEDS = {"machine": "machine", "peers": "cases", "growth": "growth", "memory": "memory", "memory_growth": "memory"}
