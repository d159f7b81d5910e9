"""The navigation that docs/index.md gives, and pages for the files outside docs/ that pages link to.

On GitHub a page links to `../SECURITY.md` or to a source file. On the site these are pages too, and links lead there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import notebooks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md", "SECURITY.md": "security.md", "CONTRIBUTING.md": "contributing.md",
         "CHANGELOG.md": "changelog.md"}  # other files are shown under source/
LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def outside() -> dict[str, str]:
    """The pages that are not files of docs/ as they stand, and the notebooks that can be downloaded from them: the path
    on the site, and the text."""
    own = {path for path in DOCS.rglob("*") if path.suffix == ".ipynb"}
    linked = {path for page in [*own, *DOCS.rglob("*.md"), *map(ROOT.joinpath, PAGES)] for path in _linked(page)}
    shown = own | {path for path in linked if uri_of(path).startswith("source/")}
    downloads = {uri_of(path).removesuffix(".md"): path.read_text() for path in shown - own if path.suffix == ".ipynb"}
    return ({uri: (ROOT / name).read_text() for name, uri in PAGES.items() if uri != "index.md"}
            | {uri_of(path): _source(path) for path in sorted(shown)} | downloads)


def with_links_of_the_site(markdown: str, uri: str) -> str:
    """Lets links that leave docs/, or come from outside, lead to the pages of the site."""
    home = next((ROOT for own in PAGES.values() if own == uri != "index.md"), (DOCS / uri).parent)
    return LINK.sub(lambda link: f"]({relative(link[1], home, uri)}{link[2] or ''})", markdown)


def relative(target: str, home: Path, uri: str) -> str:
    """The link from the page `uri` of the site to what `target` is, seen from the folder `home`."""
    path = (home / target).resolve()
    return posixpath.relpath(uri_of(path), posixpath.dirname(uri) or ".") if path.is_file() else target


def uri_of(path: Path) -> str:
    """The page or file of the site that shows a file of the repository."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).with_suffix(".md" if path.suffix == ".ipynb" else path.suffix).as_posix()
    name = path.relative_to(ROOT).as_posix()
    return PAGES.get(name) or f"source/{name}.md"


def navigation(index: Path) -> list[dict[str, list]]:
    """A section for each heading of an index that a list of links follows."""
    parts = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", index.read_text(), re.DOTALL | re.MULTILINE)
    return [{heading: links} for heading, text in parts if (links := list(_links(index, text)))]


def _links(index: Path, text: str) -> Iterator[dict[str, str | list]]:
    """The links of items that begin with one, by their labels; a link to an index is a section of what it links to."""
    for item in re.findall(r"^- (\[.*?)(?=^- |^$|\Z)", text, re.DOTALL | re.MULTILINE):
        for label, target in re.findall(r"\[([^\]]+)\]\(([^)#\s:]+)\)", item):
            to = (index.parent / target).resolve()
            yield {_title(label): [uri_of(to), *_links(to, to.read_text())] if to.name == "index.md" else uri_of(to)}


def _title(label: str) -> str:
    label = " ".join(label.replace("`", "").split())
    return label[0].upper() + label[1:]


def _linked(page: Path) -> set[Path]:
    """The files that a page links to."""
    targets = (link[1] for link in LINK.finditer(page.read_text()))
    return {path for target in targets if (path := (page.parent / target).resolve()).is_file()}


def _source(path: Path) -> str:
    """A page that shows a file."""
    if path.suffix == ".ipynb":
        return notebooks.markdown(path)
    return (f"# {path.relative_to(ROOT).as_posix()}\n\n````{path.suffix.removeprefix('.') or 'text'} "
            f'linenums="1"\n{path.read_text()}\n````\n')
