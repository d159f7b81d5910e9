"""Reports: one self-contained HTML page of facts, tables and figures, without scripts, with all text escaped."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from ..files import write_file


class Table(NamedTuple):
    """A table of a report. `columns` are headings with unit or protocol, and `note` says how the numbers were made."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


class Picture(NamedTuple):
    """A figure of a report, or `why_missing` where there is no image."""

    title: str
    caption: str
    image: Path | None
    why_missing: str = ""


LONG = 40  # characters; a longer fact takes a row of its own

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #666; --line: #ddd; --paper: #fff; --card: #f6f7f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e4; --soft: #a0a0a0; --line: #3a3a3a; --paper: #16181a; --card: #202326 } }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.2rem 4rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1.2rem }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: .7rem; margin: 0 }
dl div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem }
dt, th, .note, figcaption { color: var(--soft); font-size: .88rem }
dd { margin: 0; font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere }
.whole { grid-column: 1 / -1 }
.whole dd { font: .88rem/1.4 ui-monospace, monospace }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right }
th { vertical-align: bottom }
th:first-child, td:first-child { text-align: left }
.note { margin: .4rem 0 }
.missing { border-left: 3px solid var(--line); padding: .2rem .8rem }
figure { margin: 0 }
img { max-width: 100%; background: #fff; border-radius: .5rem; padding: .4rem; box-sizing: border-box }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""


def write_report(path: Path, title: str, parts: Sequence[Table | Picture], made: Mapping[str, object]) -> Path:
    """Writes the page atomically and returns its path.

    `made` says how what is reported was made. A note replaces a figure whose file is missing.
    """
    body = [_part(part) for part in parts]
    body.append(_facts(made))
    page = PAGE.format(title=escape(title), style=STYLE, body="\n".join(body))
    return write_file(path, page.encode())


def show(value: object) -> str:
    """Formats a value for people: four significant digits, a dash for None, lists in brackets."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 9999.5 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(v) for v in value) + "]"
    return str(value)


def _facts(facts: Mapping[str, object]) -> str:
    wide = {name for name, value in facts.items() if len(show(value)) > LONG}
    cards = (f"<div{' class=whole' if name in wide else ''}><dt>{escape(name)}</dt><dd>{escape(show(value))}</dd></div>"
             for name, value in facts.items())
    return f"<h2>How it was made</h2><dl>{''.join(cards)}</dl>"


def _table(table: Table) -> str:
    def row(tag: str, cells: Sequence[object]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(show(cell))}</{tag}>" for cell in cells) + "</tr>"

    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    lines = "\n".join(row("td", cells) for cells in table.rows)
    return (f"<h2>{escape(table.title)}</h2><div class=\"wide\"><table><thead>{row('th', table.columns)}</thead>"
            f"<tbody>{lines}</tbody></table></div>{note}")


def _part(part: Table | Picture) -> str:
    if isinstance(part, Table):
        return _table(part)
    return f"<h2>{escape(part.title)}</h2>{_figure(part)}"


def _figure(picture: Picture) -> str:
    if picture.image is None or not picture.image.is_file():
        why = picture.why_missing or f"{picture.image} is missing"
        return f'<p class="note missing">Not shown: {escape(why.rstrip("."))}.</p>'
    kind, _ = mimetypes.guess_type(picture.image)
    source = f"data:{kind};base64,{base64.b64encode(picture.image.read_bytes()).decode()}"
    alt, caption = escape(picture.title), escape(picture.caption)
    return f'<figure><img alt="{alt}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def text_table(rows: Iterable[Sequence[object]]) -> str:
    """A table for a terminal: cells by `show`, the first column aligned left and the others right."""
    cells = [[show(cell) for cell in row] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    line = "  ".join([f"{{:{first}}}", *(f"{{:>{width}}}" for width in others)])
    return "\n".join(line.format(*row) for row in cells)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; its cells are formatted by `show`, without characters that Markdown or HTML interpret."""
    cells = ([escape(" ".join(show(cell).split()), quote=False).replace("|", "&#124;") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells])
