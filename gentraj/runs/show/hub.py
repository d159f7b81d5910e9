"""Runs by the conventions of the Hugging Face hub: `save_pretrained`, `push_to_hub`, `from_pretrained`, a model card.

A pretrained folder is a run folder with one checkpoint, without the state of the optimisers, and a README.md. Whatever
takes a run folder takes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ...config import read_json, write_json
from ...data.lerobot import REPOSITORY
from ...data.sources import dataset_names
from ...files import write_file
from ...progress import one_line
from ...training import checkpoint
from ...training.checkpoint import CheckpointError
from ...training.log import write_rows
from ..judge.saved_scores import read_scores
from ..kinds.folder import RunFolder
from ..kinds.loading import load
from ..kinds.run import Run
from .card import model_card

DOWNLOADED = ["*.json", "*.jsonl", "*.safetensors", RunFolder.CARD]  # data only: nothing that could be code


def save_pretrained(run: Run, folder: Path | str) -> Path:
    """Saves the run's checkpoint without optimisers, its settings, figures and model card; returns the folder.

    The folder appears whole or not at all. `from_pretrained`, `gentraj.load` and the commands take it, wherever it is
    moved. Scores and figures in the run's folder belong to its newest checkpoint, so an earlier one is saved without
    them. Raises `CheckpointError` if the folder is not empty or cannot be written, and if the weights were changed
    since they were loaded, as scores and figures would be those of other weights.
    """
    target = Path(folder).absolute()
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists already and is no empty folder; give a new one")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".tmp-", dir=target.parent) as unfinished:
            made = Path(unfinished) / target.name
            _fill(made, run, target.name)
            os.replace(made, target)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def _fill(made: Path, run: Run, name: str) -> None:
    """Saves the run into a new folder, with a card that loads it by `name`."""
    newest = checkpoint.load(run.folder)
    saved = newest if newest.step == run.step else checkpoint.load(run.folder, run.step)
    for component, part in run.components.items():
        tensors = saved.components[component]
        if not all(torch.equal(value.cpu(), tensors[key]) for key, value in part.state_dict().items()):
            raise CheckpointError(f"{run.folder}: the weights of '{component}' are not those of its step {run.step} "
                                  "any more; load the run again, or train the changed one into a folder of its own")
    scores, note = read_scores(run.folder, run.step, newest.step)
    checkpoint.save(made, run.step, {component: saved.components[component] for component in run.components},
                    saved.meta)
    figures = []
    if newest is saved:
        drawn = run.folder / RunFolder.FIGURES
        for path in sorted([*drawn.glob("*.png"), *drawn.glob("*.gif")]):
            figures.append(f"{RunFolder.FIGURES}/{path.name}")
            write_file(made / figures[-1], path.read_bytes())
    config = read_json(run.folder / RunFolder.CONFIG)
    config["run"]["dataset"] = "+".join(dataset_names(run.config.dataset))  # folders on this machine are private
    write_json(made / RunFolder.CONFIG, config)
    metrics = RunFolder(run.folder).metrics()
    write_rows(made / RunFolder.METRICS, [row for row in metrics if row["step"] <= run.step])
    write_file(made / RunFolder.CARD, model_card(run, name, scores, note, figures).encode())
    if scores:
        write_json(made / RunFolder.EVALUATION, scores)
    write_file(made / RunFolder.REFERENCE, (run.folder / RunFolder.REFERENCE).read_bytes())
    load(made)  # which raises an exception for a file that does not hold


def push_to_hub(run: Run, name: str, *, private: bool | None = None) -> str:
    """Saves the run as `save_pretrained` does into a repository of the Hugging Face hub; returns its address.

    A repository that does not exist is made; `private` is the hub's own setting of it. Whatever an earlier push left
    there is replaced in one commit. Needs `pip install 'gentraj[hub]'` and a token (`hf auth login` or $HF_TOKEN).
    Raises `CheckpointError` where the hub refuses or is out of reach and for the reasons of `save_pretrained`,
    ImportError if the hub's package is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ImportError("the Hugging Face hub needs a package that is missing: pip install 'gentraj[hub]'") from error
    with TemporaryDirectory(prefix="gentraj-push-") as place:
        saved = Path(place) / "run"
        _fill(saved, run, name)
        try:
            api = HfApi()
            repository = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository.repo_id, folder_path=saved,
                              delete_patterns=[*DOWNLOADED, f"{RunFolder.FIGURES}/*"],
                              commit_message=f"A {run.NAME} of gentraj at step {run.step}")
        except Exception as error:  # the hub's transport has exceptions of its own
            raise CheckpointError(f"'{name}' cannot be pushed to the Hugging Face hub: "
                                  f"{one_line(error)}; log in by `hf auth login`, and check the network") from error
    return str(repository)


def from_pretrained(name: Path | str, *, revision: str | None = None, device: torch.device | None = None) -> Run:
    """Loads the run in a folder, or else in the repository OWNER/NAME of the Hugging Face hub.

    `revision` is a branch, a tag or a commit of the repository. Fetching needs `pip install 'gentraj[hub]'`. Nothing in
    a repository is executed; its run folder is kept in the hub's cache. Raises ValueError for a name that is neither a
    folder's nor a repository's, `CheckpointError` if the repository cannot be fetched, ImportError if the hub's package
    is not installed.
    """
    if revision is None and Path(name).is_dir():
        return load(name, device=device)
    if not REPOSITORY.fullmatch(str(name)):
        raise ValueError(f"'{name}' is no folder here and no repository of the Hugging Face hub; give a run folder or "
                         "OWNER/NAME")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(f"'{name}' is no folder here, and the Hugging Face hub needs a package that is missing: "
                          "pip install 'gentraj[hub]'") from error
    try:
        folder = snapshot_download(str(name), revision=revision, allow_patterns=DOWNLOADED)
    except (OSError, ValueError) as error:  # all exceptions of the hub are one of these
        raise CheckpointError(f"'{name}' is no folder here and cannot be fetched from the Hugging Face hub: "
                              f"{one_line(error)}") from error
    return load(folder, device=device)
