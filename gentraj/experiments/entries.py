"""What is compared: runs to train or runs there are, in groups of the same data, and where their results lie."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import read_json, to_json
from ..families import FAMILIES
from ..families import family as family_of
from ..files import write_file
from ..runs.folder import AnyRunConfig, RunConfig, read_config
from ..runs.presets import PRESETS


@dataclass(frozen=True)
class Entry:
    """A run that takes part."""

    group: str
    """Runs of one group have the same data, rows and environment: a preset, or the dataset of runs there were."""
    family: str
    """Entries of one family in one group differ in their seeds only."""
    seed: int
    folder: Path
    """Of the run."""
    results: Path
    """Folder of what was measured; its parent holds what the group has in common."""
    config: RunConfig | None = None
    """What it is trained with; None for a run that is there."""

    @property
    def name(self) -> str:
        return f"{self.group}/{self.results.name}"


def planned(presets: Sequence[str], families: Sequence[str], seeds: int, out: Path,
            dataset: str | None = None) -> list[Entry]:
    """Every preset with every family and seed. Raises ValueError for names there are not."""
    known(presets, PRESETS, "preset")
    known(families, FAMILIES, "family")
    entries = []
    for preset in presets:
        base = of_planner(PRESETS[preset], preset)
        base = base if dataset is None else replace(base, dataset=dataset)
        if not base.dataset:
            raise ValueError(f"preset '{preset}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
        for seed in range(seeds):  # outermost: a comparison that is stopped early has every family
            training = replace(base.training, seed=seed, threads=1)
            for name in families:
                model = base.model if family_of(base.model) == name else FAMILIES[name]
                place = out / preset / f"{name}-seed-{seed}"
                entries.append(Entry(preset, name, seed, place / "run", place,
                                     replace(base, model=model, training=training)))
    return entries


def existing(folders: Sequence[Path], out: Path) -> list[Entry]:
    """Runs there are. Those that differ in no setting but the seed are one family; else the folder's name is added."""
    configs = {folder: of_planner(read_config(folder)[0], str(folder)) for folder in dict.fromkeys(map(Path, folders))}
    groups = _numbered({folder: (c.dataset, c.horizon, c.stride, c.joint) for folder, c in configs.items()})
    families: dict[tuple[str, str], list[str]] = {}  # the settings that a family has, in a group
    for folder, config in configs.items():
        families.setdefault((groups[folder], family_of(config.model)), []).append(_settings(config))
    entries, labels = [], {}
    for folder, config in configs.items():
        group, name = groups[folder], family_of(config.model)
        several = len(set(families[group, name])) > 1
        new = f"{name} ({folder.name})" if several else name
        while new in (label for key, label in labels.items() if key != (group, _settings(config)) and key[0] == group):
            new += "'"  # folders of one name with other settings are no seeds of one family
        label = labels.setdefault((group, _settings(config)), new)
        place = f"{folder.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]}"
        entries.append(Entry(group, label, config.training.seed, folder, out / group / place))
    return entries


def of_planner(config: AnyRunConfig, name: str) -> RunConfig:
    """Raises ValueError for settings of another kind."""
    if not isinstance(config, RunConfig):
        raise ValueError(f"{name} is a {config.NAME} ({config.kind}); gentraj compare compares planners by their "
                         "models, and gentraj evaluate scores any run")
    return config


def known(names: Sequence[str], there: Iterable[str], what: str) -> None:
    """Raises ValueError for a name that is not there, and for one that is given twice or for none."""
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"unknown {what} '{name}'; known: {', '.join(there)}{hint}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"each {what} is expected once, and at least one; {', '.join(names) or 'none'} was given")


def kept(path: Path, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """The result in a file that was made for the same key; else it is made, and written whole."""
    if is_kept(path, key):
        return read_result(path)
    result = make()
    write_json(path, {"key": key, "result": result})
    return result


def is_kept(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether `kept` would find the result there."""
    return path.is_file() and read_json(path).get("key") == key


def read_result(path: Path) -> Any:
    """What `kept` left in the file; None without one."""
    return read_json(path)["result"] if path.is_file() else None


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Raises ValueError for numbers that are not finite."""
    return write_file(path, json.dumps(value, indent=1, allow_nan=False).encode())


def _settings(config: RunConfig) -> str:
    """All that may differ between two families."""
    return json.dumps({key: value for key, value in to_json(config).items() if key not in ("dataset", "training")}
                      | {"steps": config.training.steps})


def _numbered(keys: Mapping[Path, tuple]) -> dict[Path, str]:
    """A name for each key: its dataset's, with a number where one name would stand for several."""
    names: dict[tuple, str] = {}
    for key in keys.values():
        stem = re.sub(r"[^\w.-]+", "-", str(key[0]).rsplit("/", 1)[-1] if "." in str(key[0]) else str(key[0]))
        taken = [name for other, name in names.items() if other != key]
        names.setdefault(key, stem if stem not in taken else f"{stem}-{len(names) + 1}")
    return {folder: names[key] for folder, key in keys.items()}
