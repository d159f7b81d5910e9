"""`gentraj hub`: push runs to the Hugging Face hub and pull them from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..progress import busy, print_saved
from ..runs.folder import load
from ..runs.hub import from_pretrained, push_to_hub, save_pretrained
from .options import RunPath, registry

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
Repository = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]


def push(run: RunPath, name: Repository, step: int | None = None, private: bool = False) -> None:
    """Push a run to a repository: weights, settings, scores and figures, with a model card, without the optimisers.

    The repository is made if it does not exist. Whatever an earlier push left there is replaced.

    Example: gentraj hub push runs/demo me/umaze-planner

    Args:
        run: The folder of a run.
        name: The repository.
        step: The checkpoint to push, by default the newest.
        private: Make a new repository private.
    """
    loaded = load(run, step=step)
    with busy(f"pushing to {name}"):
        print_saved(push_to_hub(loaded, name, private=private or None))


def pull(name: Repository, out: Folder, revision: str | None = None) -> None:
    """Pull a run from a repository into a folder, which every command takes as a RUN.

    Example: gentraj hub pull me/umaze-planner runs/pulled

    Args:
        name: The repository.
        out: The folder to write; it must not exist yet.
        revision: A branch, a tag or a commit of the repository.
    """
    with busy(f"pulling {name}"):
        pulled = from_pretrained(name, revision=revision)
    print_saved(save_pretrained(pulled, out))


def main(argv: list[str]) -> None:
    tyro.extras.subcommand_cli_from_dict({"push": push, "pull": pull}, args=argv, prog="gentraj hub",
                                         registry=registry(),
                                         description="Push runs to the Hugging Face hub and pull them from it.")
