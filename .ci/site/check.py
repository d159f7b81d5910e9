"""Checks the built site: links and anchors inside it lead somewhere, and nothing is loaded from elsewhere.

    python .ci/site/check.py FOLDER

The exit code is 1 if something is wrong; a line says what.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "video": "src", "source": "src", "link": "href"}
FOLLOWED = {"a": "href"}
NOT_LOADED = {"canonical", "next", "prev", "alternate"}  # what a <link> may be that a browser does not load


class Parsed(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        self.anchors |= {has[name] for name in ("id", "name") if name in has}
        if tag in FOLLOWED and FOLLOWED[tag] in has:
            self.links.add(has[FOLLOWED[tag]])
        if tag in LOADED and LOADED[tag] in has and has.get("rel") not in NOT_LOADED:
            self.loaded.add(has[LOADED[tag]])


def problems(site: Path) -> list[str]:
    """One line for each link that leads nowhere, and for each thing that is loaded from elsewhere."""
    pages = {path.resolve(): Parsed(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for url in sorted(page.links | page.loaded):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                found += [f"{where} loads {url}"] if url in page.loaded and parts.scheme != "data" else []
                continue
            root = site.resolve() if parts.path.startswith("/") else path.parent
            to = (root / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            if not to.exists():
                found.append(f"{where} links to {url}, which is not there")
            elif to in pages and parts.fragment and unquote(parts.fragment) not in pages[to].anchors:
                found.append(f"{where} links to {url}, which has no such anchor")
    return found


def main(folder: str) -> int:
    site = Path(folder)
    found = problems(site)
    print(*found, f"site: {len(list(site.rglob('*.html')))} pages, {len(found)} problems", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
