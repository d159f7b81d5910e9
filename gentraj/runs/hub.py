"""Runs by the conventions of the Hugging Face hub: `save_pretrained`, `push_to_hub`, `from_pretrained`, a model card.

A pretrained folder is a run folder with one checkpoint, without the state of the optimisers, and a README.md. Whatever
takes a run folder takes it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..config import read_json, write_json
from ..data.lerobot import REPOSITORY
from ..files import write_file
from ..progress import one_line
from ..training import checkpoint
from ..training.checkpoint import CheckpointError
from ..training.log import write_rows
from .folder import RunFolder, load
from .model_card import Card, dataset_names, model_card, read_scores
from .run import Run

DOWNLOADED = ("*.json", "*.jsonl", "*.safetensors", RunFolder.CARD)  # data only: nothing that could be code
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./-]{0,255}", re.ASCII)


def save_pretrained(run: Run, folder: Path | str) -> Path:
    """Saves the run's checkpoint without optimisers, its settings, figures and model card; returns the folder.

    The folder appears whole or not at all. `from_pretrained`, `gentraj.load` and the commands take it, wherever it is
    moved. Scores and figures in the run's folder belong to its newest checkpoint, so an earlier one is saved without
    them. Raises `CheckpointError` if the folder is not empty or cannot be written, and if the weights were changed
    since they were loaded, as scores and figures would be those of other weights.
    """
    target = Path(folder).absolute()
    return _save(run, target, target.name)


def push_to_hub(run: Run, name: str, *, private: bool | None = None) -> str:
    """Saves the run as `save_pretrained` does into the repository OWNER/NAME of the Hugging Face hub; returns its
    address.

    A repository that does not exist is made; `private` is the hub's own setting of it. Whatever an earlier push left
    there is replaced in one commit. Needs `pip install 'gentraj[hub]'` and a token (`hf auth login` or $HF_TOKEN).
    Raises ValueError for a name that is no repository's, `CheckpointError` where the hub refuses or is out of reach and
    for the reasons of `save_pretrained`, ImportError if the hub's package is not installed.
    """
    if not REPOSITORY.fullmatch(name):
        raise ValueError(f"'{name}' is no repository of the Hugging Face hub; OWNER/NAME is expected")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ImportError("the Hugging Face hub needs a package that is missing: pip install 'gentraj[hub]'") from error
    with TemporaryDirectory(prefix="gentraj-push-") as place:
        saved = _save(run, Path(place) / "run", name)
        try:
            api = HfApi()
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=saved, delete_patterns=[*DOWNLOADED, f"{RunFolder.FIGURES}/*"],
                              commit_message=f"A {run.NAME} of gentraj at step {run.step}")
        except Exception as error:  # the hub's transport has exceptions of its own
            raise CheckpointError(f"'{name}' cannot be pushed to the Hugging Face hub: "
                                  f"{one_line(error)}; log in by `hf auth login`, and check the network") from error
    return f"{api.endpoint}/{name}"


def _save(run: Run, target: Path, name: str) -> Path:
    """Saves the run into a new folder, with a card that loads it by `name`."""
    newest = checkpoint.load(run.folder)
    saved = newest if newest.step == run.step else checkpoint.load(run.folder, run.step)
    scores, note = read_scores(run.folder, run.step, newest.step)
    drawn = run.folder / RunFolder.FIGURES
    with _new_folder(target) as made:
        checkpoint.save(made, run.step, {component: saved.components[component] for component in run.components},
                        saved.meta)
        figures = _copy_figures(drawn, made / RunFolder.FIGURES) if newest is saved else []
        metrics = [row for row in RunFolder(run.folder).metrics() if row["step"] <= run.step]
        config = read_json(run.folder / RunFolder.CONFIG)
        config["run"]["dataset"] = "+".join(dataset_names(run.config.dataset))  # folders on this machine are private
        card = model_card(run, Card(name, scores, note, metrics[-1] if metrics else {}, figures))
        write_json(made / RunFolder.CONFIG, config)
        write_rows(made / RunFolder.METRICS, metrics)
        write_file(made / RunFolder.CARD, card.encode())
        if scores:
            write_json(made / RunFolder.EVALUATION, scores)
        write_file(made / RunFolder.REFERENCE, (run.folder / RunFolder.REFERENCE).read_bytes())
        _check_weights(run, load(made))
    return target


def from_pretrained(name: Path | str, *, revision: str | None = None, device: torch.device | None = None) -> Run:
    """Loads the run in a folder, or else in the repository OWNER/NAME of the Hugging Face hub.

    `revision` is a branch, a tag or a commit of the repository. Fetching needs `pip install 'gentraj[hub]'`. Nothing in
    a repository is executed; its run folder is kept in the hub's cache. Raises ValueError for a name that is neither a
    folder's nor a repository's, `CheckpointError` if the repository cannot be fetched, ImportError if the hub's package
    is not installed.
    """
    folder = Path(name) if revision is None and Path(name).is_dir() else _download(str(name), revision)
    return load(folder, device=device)


def _check_weights(run: Run, loaded: Run) -> None:
    for name, component in run.components.items():
        saved = loaded.components[name].state_dict()
        if not all(torch.equal(value.cpu(), saved[key]) for key, value in component.state_dict().items()):
            raise CheckpointError(f"{run.folder}: the weights of '{name}' are not those of its step {run.step} any "
                                  "more; load the run again, or train the changed one into a folder of its own")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `target` if the block ends without an exception."""
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
    """Copies the figures that `gentraj report` drew; returns their paths relative to the run folder."""
    paths = sorted(path for kind in ("*.png", "*.gif") for path in source.glob(kind)
                   if path.is_file() and not path.is_symlink() and checkpoint.COMPONENT_NAME.fullmatch(path.name))
    return [f"{RunFolder.FIGURES}/{write_file(target / path.name, path.read_bytes()).name}" for path in paths]


def _download(name: str, revision: str | None) -> Path:
    """The run folder of a repository, as a copy: the hub's cache holds links, and a checkpoint must not be one."""
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
    except (OSError, ValueError) as error:  # all exceptions of the hub are one of these
        raise CheckpointError(f"'{name}' is no folder here and cannot be fetched from the Hugging Face hub: "
                              f"{str(error).strip().splitlines()[0]}") from error
    return folder
