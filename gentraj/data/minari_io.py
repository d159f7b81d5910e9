"""Reading of Minari datasets into memory, directly from their HDF5 file.

A goal-conditioned dict {observation, achieved_goal, desired_goal} is flattened: `desired_goal` becomes extras["goal"],
and `obs` is `observation` if that contains `achieved_goal`, else `achieved_goal` followed by `observation`. Any other
dict of Boxes is flattened in the order of its entries.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..progress import one_line, say_once
from .d4rl import single_task
from .hdf5 import open_array, open_hdf5, read_array
from .spaces import act_width, flat_parts, flattening, obs_widths
from .validation import DataError, Rounding

MINARI_ID = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")
TEMPORARY = re.compile(r"tmp-(\d+)-(new|old)-")  # before a dataset's name: what a process writes, or is replacing
NO_MINARI = "{}: Minari datasets need the package minari; pip install 'minari[hdf5,hf]'"


@dataclass(frozen=True)
class Column:
    """A field of the file: its path in an episode's group, the shape of a row, and the number of rows beyond the
    steps."""

    where: str
    row: tuple[int, ...] = ()
    more: int = 0
    dtype: str = "float32"
    optional: bool = False
    """Whether the field is left out if an episode lacks a row for some observation, as Minari's infos may."""


def read_columns(file: Any, name: str, episodes: int,
                 columns: Mapping[str, Column]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reads the lengths (E,) and the columns of all episodes.

    Raises `DataError`, naming the episode, for an array of another shape, and KeyError for a missing one.
    """
    lengths = np.array([open_array(file, f"episode_{e}/rewards").shape[0] for e in range(episodes)], dtype=np.int64)
    out = {key: np.empty((int((lengths + column.more).sum()), *column.row),
                         column.dtype) for key, column in columns.items()}
    starts = np.cumsum(lengths) - lengths
    rounding = {key: Rounding(name, key) for key in columns}
    # The outer loop is over episodes, because a loop over fields would walk through the whole file for each field.
    for e, (T, start) in enumerate(zip(lengths.tolist(), starts.tolist(), strict=True)):
        for key in list(out):
            column, rows = columns[key], T + columns[key].more
            array = _open_part(file, f"episode_{e}/{column.where}", column)
            shape = None if array is None else array.shape
            if array is not None and shape in ((rows, *column.row), (rows, *(column.row or (1,)))):
                first = start + e * column.more  # a number may be written as a vector of one
                read_array(array, out[key][first : first + rows].reshape(shape), rounding[key])
            elif column.optional:
                del out[key]
            else:
                raise DataError(f"{name}: episode {e}: {column.where} has shape {shape}; its {T} steps need "
                                f"{(rows, *column.row)}")
    for each in rounding.values():
        each.warn()
    return lengths, out


def _open_part(file: Any, path: str, column: Column) -> Any:
    """The array of a column, or None for an optional column that is missing."""
    try:
        return open_array(file, path)
    except KeyError:
        if column.optional:
            return None
        raise


def _info_columns(file: Any, infos: Iterable[str]) -> dict[str, Column]:
    """The columns of the infos that are vectors of numbers in the first episode."""
    columns = {}
    for where in infos:
        array = file.get(f"episode_0/{where}")
        if getattr(array, "ndim", 0) == 2 and array.dtype.kind in "fiub":
            columns[where] = Column(where, array.shape[1:], 1, optional=True)
    return columns


class _Notes(NamedTuple):
    """What `save_minari` records of a dataset in its metadata; for other datasets it is inferred from the data."""

    extras: tuple[str, ...] = ("goal", "qpos", "qvel")
    obs_keys: tuple[str, ...] = ()
    goal_dims: tuple[int, ...] = ()


def read_minari(dataset_id: str) -> dict[str, Any]:
    """Reads the fields of `Episodes`, not yet validated, from Minari's local folder ($MINARI_DATASETS_PATH), after
    downloading the dataset from Farama's server if it is not there.

    The environment of D4RL/antmaze/... is the one that agents are evaluated in, where the dataset names it. The infos
    `goal`, `qpos` and `qvel` become extras if they have a vector for every observation. Raises `DataError` for a
    dataset that cannot be found or read.
    """
    path = _find(dataset_id)
    dataset, notes = _open(dataset_id, path)
    obs_keys, goal_dims = notes.obs_keys, notes.goal_dims
    columns = _columns(dataset_id, dataset, obs_keys)
    parts = flat_parts(dataset.observation_space)
    infos = {name: f"infos/{name}" for name in notes.extras if name != "goal" or "goal" not in columns}
    with open_hdf5(path / "main_data.hdf5") as file:
        columns |= _info_columns(file, infos.values())
        lengths, fields = read_columns(file, dataset_id, int(dataset.total_episodes), columns)
    extras = {"goal": fields.pop("goal")} if "goal" in fields else {}
    extras |= {key: values for key, where in infos.items() if (values := fields.pop(where, None)) is not None}
    if (achieved := fields.pop("achieved", None)) is not None:
        if not obs_keys:
            obs_keys, goal_dims = _goal_layout(fields["obs"], achieved)
        if "achieved_goal" in obs_keys:
            fields["obs"] = np.concatenate([achieved, fields["obs"]], 1)
    if parts:
        say_once(flattening(dataset_id, parts))
        obs_keys, values = tuple(parts), [fields.pop(f"observations/{key}") for key in parts]
        fields["obs"] = np.concatenate([value.reshape(len(value), -1) for value in values], 1)
    env = dataset.env_spec.to_json() if dataset.env_spec else None
    if (task := single_task(dataset_id)) and task.evaluated_elsewhere:
        env = dataset.storage.metadata.get("eval_env_spec") or env
    return fields | {"lengths": lengths, "extras": extras, "goal_dims": goal_dims, "obs_keys": obs_keys,
                     "name": dataset_id, "env": env}


def datasets_folder(wanted: str) -> Path:
    """Minari's local folder ($MINARI_DATASETS_PATH), which is made if it is missing. `wanted` is what needs it.

    Raises ImportError without Minari, and `DataError` if the folder cannot be made.
    """
    try:
        from minari.storage import get_dataset_path
    except ImportError as error:
        raise ImportError(NO_MINARI.format(wanted)) from error
    if given := os.environ.get("MINARI_DATASETS_PATH"):
        os.environ["MINARI_DATASETS_PATH"] = os.path.abspath(given)  # Minari cannot write to a relative path
    try:
        return get_dataset_path()
    except OSError as error:
        raise DataError(f"the folder of Minari's datasets cannot be made ({one_line(error)}); set MINARI_DATASETS_PATH "
                        "to a folder") from error


def is_minari(source: str) -> bool:
    """Whether the text is a Minari id: with a namespace, or one of a dataset on this machine."""
    return bool(MINARI_ID.fullmatch(source)) and ("/" in source or source in local_ids())


def local_ids() -> dict[str, dict[str, Any]]:
    """The datasets in Minari's local folder: id -> metadata."""
    datasets_folder("listing datasets")
    import minari

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari warns of folders that it cannot read
        datasets = minari.list_local_datasets()
    return {key: row for key, row in datasets.items() if not TEMPORARY.match(key.rpartition("/")[2])}


def _find(dataset_id: str) -> Path:
    """The folder of the dataset's files, after a download if there are none."""
    if not MINARI_ID.fullmatch(dataset_id):
        raise DataError(f"'{dataset_id}' is not a Minari id; an id such as D4RL/pointmaze/umaze-v2 is expected")
    root = datasets_folder(dataset_id)
    path = root / dataset_id / "data"
    there = os.path.isdir(path)
    whole = all(os.path.isfile(path / name) for name in ("main_data.hdf5", "metadata.json"))
    if there and not whole and _data_format(path) not in ("", "hdf5"):
        raise DataError(f"{dataset_id}: is stored in the format {_data_format(path)}, and only hdf5 is read; write it "
                        "again with data_format='hdf5'")
    if not there or not (whole or dataset_id.startswith("gentraj/")):  # a download may have been interrupted
        _download(dataset_id, again=there)
    return path


def _data_format(path: Path) -> str:
    """The format that the metadata of a dataset name, "" without any."""
    try:
        return str(json.loads((path / "metadata.json").read_bytes())["data_format"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _download(dataset_id: str, again: bool = False) -> None:
    close = get_close_matches(dataset_id, local_ids(), cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    absent = f"{dataset_id}: no such dataset in Minari's local folder{hint}"
    if again:
        absent = f"{dataset_id}: is incomplete in Minari's local folder; delete it there"
    if dataset_id.startswith("gentraj/"):
        raise DataError(f"{absent}; make it with `gentraj data make`")
    import minari
    from minari.serialization import deserialize_space

    try:
        remote = minari.list_remote_datasets(prefix=dataset_id.rsplit("-v", 1)[0])[dataset_id]
        obs_widths(dataset_id, deserialize_space(str(remote["observation_space"])))
        act_width(dataset_id, deserialize_space(str(remote["action_space"])))
        minari.download_dataset(dataset_id, force_download=again)
    except DataError:
        raise
    except Exception as error:  # every transport raises its own kinds
        raise DataError(f"{absent}; and it could not be downloaded ({one_line(error)})") from error


def _open(dataset_id: str, path: Path) -> tuple[Any, _Notes]:
    """The `MinariDataset` and the notes in its metadata."""
    import minari

    try:
        metadata = json.loads((path / "metadata.json").read_bytes())
        # If the spaces were missing, Minari would make the environment, and so run whatever code the file names.
        absent = {"observation_space", "action_space", "data_format"} - metadata.keys()
        if absent or metadata["data_format"] != "hdf5":
            raise ValueError(f"no {', '.join(sorted(absent))}" if absent else f"{metadata['data_format']}, not hdf5")
        return minari.load_dataset(dataset_id), _notes(metadata["gentraj"]) if "gentraj" in metadata else _Notes()
    except Exception as error:  # Minari trusts its metadata, so it raises assertion, key and type errors
        raise DataError(f"{path / 'metadata.json'}: no Minari dataset that can be read ({one_line(error)})") from error


def _notes(noted: dict[str, Any]) -> _Notes:
    return _Notes(tuple(map(str, noted["extras"])), tuple(map(str, noted["obs_keys"])),
                  tuple(map(int, noted["goal_dims"])))


def _columns(dataset_id: str, dataset: Any, obs_keys: tuple[str, ...]) -> dict[str, Column]:
    """The columns of the file that hold the fields of `Episodes`. Raises `DataError` for spaces that cannot
    be flattened."""
    widths, width = obs_widths(dataset_id, dataset.observation_space), act_width(dataset_id, dataset.action_space)
    columns = {"act": Column("actions", (width,)), "reward": Column("rewards"),
               "terminated": Column("terminations", dtype="bool"), "truncated": Column("truncations", dtype="bool")}
    if parts := flat_parts(dataset.observation_space):
        return columns | {f"observations/{key}": Column(f"observations/{key}", part.shape, 1)
                          for key, part in parts.items()}
    if "obs" in widths:
        return columns | {"obs": Column("observations", (widths["obs"],), 1)}
    dicts = {"obs": "observation", "goal": "desired_goal"}
    if obs_keys != ("observation",):  # if the achieved goal is known to be part of obs, it need not be read
        dicts["achieved"] = "achieved_goal"
    return columns | {field: Column(f"observations/{key}", (widths[key],), 1) for field, key in dicts.items()}


def _goal_layout(obs: np.ndarray, achieved: np.ndarray) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """obs_keys and goal_dims: the columns of `obs` that always equal `achieved`, each for one entry of it, or else
    `achieved` put before `obs`."""
    columns: list[int] = []
    for goal in achieved.T:
        free = (c for c in range(obs.shape[1]) if c not in columns)
        columns.append(next((c for c in free if np.array_equal(obs[:, c], goal)), -1))
    if -1 in columns:
        return ("achieved_goal", "observation"), tuple(range(achieved.shape[1]))
    return ("observation",), tuple(columns)
