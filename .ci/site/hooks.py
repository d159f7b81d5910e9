"""What mkdocs calls while it builds the site: it adds pages, takes the navigation from docs/index.md, and links."""

from __future__ import annotations

import commands
import pages
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

COMMANDS = "reference/commands.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")  # anchors as GitHub makes them
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    names = {f"reference/{name}.md": text for name, text in reference.pages().items()}
    for uri, text in (pages.outside() | names | {COMMANDS: commands.page()}).items():
        shown = InclusionLevel.NOT_IN_NAV if uri.startswith("source/") else InclusionLevel.INCLUDED
        files.append(File.generated(config, uri, content=text, inclusion=shown))
    config.nav = [{"Home": "index.md"}, *pages.navigation(pages.DOCS / "index.md"),
                  {"Reference": [next(iter(names)), COMMANDS, *list(names)[1:]]}]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return pages.with_links_of_the_site(markdown, page.file.src_uri)
