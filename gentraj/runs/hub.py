"""A run by the Hugging Face hub's conventions: `save_pretrained`, `from_pretrained`, a model card of its own figures.

A pretrained folder is a run folder: one checkpoint without optimisers, and README.md. Whatever takes a run takes it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..config import read_json
from ..files import write_file
from ..training import checkpoint
from ..training.checkpoint import CheckpointError
from ..training.log import FILE as METRICS
from ..training.log import read_metrics
from . import folder as runs
from .folder import CONFIG, REFERENCE, Run
from .model_card import EVALUATION, Card, dataset_names, model_card, read_scores

CARD, FIGURES = "README.md", "figures"
DOWNLOADED = ("*.json", "*.jsonl", "*.safetensors", CARD)  # data only: nothing that could be code
REPOSITORY = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./-]{0,255}", re.ASCII)


def save_pretrained(run: Run, folder: Path | str) -> Path:
    """Writes the run's checkpoint without optimisers, its settings, figures and model card; returns the folder.

    The folder appears whole or not at all. `from_pretrained`, `gentraj.load` and the commands take it, wherever it is.
    Scores and figures in the run's folder are those of its newest checkpoint, so an earlier one is saved without them.
    Raises `CheckpointError` for a folder that is not empty or cannot be written, and for weights that were changed
    since they were loaded: the figures would not be theirs.
    """
    target, newest = Path(folder).absolute(), checkpoint.load(run.folder)
    saved = newest if newest.step == run.step else checkpoint.load(run.folder, run.step)
    scores, note = read_scores(run.folder, run.step, newest.step)
    with _new_folder(target) as made:
        checkpoint.save(made, run.step, {component: saved.components[component] for component in run.components},
                        saved.meta)
        figures = _copy_figures(run.folder / FIGURES, made / FIGURES) if newest is saved else []
        metrics = [row for row in read_metrics(run.folder) if row["step"] <= run.step]
        config = read_json(run.folder / CONFIG)
        config["run"]["dataset"] = "+".join(dataset_names(run.config.dataset))  # whose folders are nobody's business
        texts = {CONFIG: json.dumps(config, indent=2), METRICS: "".join(json.dumps(row) + "\n" for row in metrics),
                 CARD: model_card(run, Card(target.name, scores, note, metrics[-1] if metrics else {}, figures))}
        if scores:
            texts[EVALUATION] = json.dumps(scores, indent=2, allow_nan=False)
        for file, text in texts.items():
            write_file(made / file, text.encode())
        write_file(made / REFERENCE, (run.folder / REFERENCE).read_bytes())
        _check_weights(run, runs.load(made))
    return target


def from_pretrained(name: Path | str, *, revision: str | None = None, device: torch.device | None = None) -> Run:
    """The run in a folder, else in the repository OWNER/NAME of the Hugging Face hub; `revision` speaks of the latter.

    A repository needs `pip install 'gentraj[hub]'`. Nothing that it holds is executed; its run folder is kept in the
    hub's cache. Raises ValueError for a name that is neither, `CheckpointError` for what cannot be fetched.
    """
    folder = Path(name) if revision is None and Path(name).is_dir() else _download(str(name), revision)
    return runs.load(folder, device=device)


def _check_weights(run: Run, loaded: Run) -> None:
    for name, component in run.components.items():
        there = loaded.components[name].state_dict()
        if not all(torch.equal(value.cpu(), there[key]) for key, value in component.state_dict().items()):
            raise CheckpointError(f"{run.folder}: the weights of '{name}' are not those of its step {run.step} any "
                                  "more; load the run again, or train the changed one into a folder of its own")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `target`, new or empty, where the block ends well."""
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists already and is no empty folder; give a new one")
    unfinished = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.replace(unfinished, target)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy_figures(source: Path, target: Path) -> list[str]:
    """Copies the figures that `gentraj report` drew; their paths in the new folder."""
    paths = sorted(path for kind in ("*.png", "*.gif") for path in source.glob(kind)
                   if path.is_file() and not path.is_symlink() and checkpoint.NAME.fullmatch(path.name))
    return [f"{FIGURES}/{write_file(target / path.name, path.read_bytes()).name}" for path in paths]


def _download(name: str, revision: str | None) -> Path:
    """The run folder of a repository: a copy, since the hub's own cache holds links, which a checkpoint may not be."""
    if not REPOSITORY.fullmatch(name):
        raise ValueError(f"'{name}' is no folder here and no repository of the Hugging Face hub; give a run folder or "
                         "OWNER/NAME")
    if revision is not None and not REVISION.fullmatch(revision):
        raise ValueError(f"'{revision}' is no revision; give a branch, a tag or a commit")
    try:
        from huggingface_hub import cached_assets_path, snapshot_download
    except ImportError as error:
        raise ImportError(f"'{name}' is no folder here, and the Hugging Face hub needs a package that is missing: "
                          "pip install 'gentraj[hub]'") from error
    try:
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=list(DOWNLOADED)))
        folder = cached_assets_path("gentraj", namespace=name, subfolder=snapshot.name)
        if not any(folder.iterdir()):
            with _new_folder(folder) as made:
                shutil.copytree(snapshot, made, dirs_exist_ok=True)
    except (OSError, ValueError) as error:  # all that the hub raises is one of these
        raise CheckpointError(f"'{name}' is no folder here and cannot be fetched from the Hugging Face hub: "
                              f"{str(error).strip().splitlines()[0]}") from error
    return folder
