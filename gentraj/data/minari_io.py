"""Minari datasets: read into memory, directly from their HDF5 file, and written for any installation of Minari.

A goal-conditioned dict {observation, achieved_goal, desired_goal} is flattened: `desired_goal` becomes extras["goal"],
and `obs` is `observation` if that contains `achieved_goal`, else `achieved_goal` followed by `observation`. Any other
dict, or tuple, of Boxes is flattened in the order of its entries.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import sync
from ..progress import busy, one_line, say_once
from .d4rl import is_antmaze, open_hdf5
from .episodes import WORDS, DataError, Episodes, Fields

if TYPE_CHECKING:
    from gymnasium import Space
    from minari.data_collector import EpisodeBuffer
import math
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.spaces import Box

def spec_as_json(spec: EnvSpec) -> str | None:
    """Gymnasium's EnvSpec as JSON, without wrappers and without classes and functions as entry points, as an
    environment is made anew by its id. None where an argument of the environment cannot be written as JSON."""
    code = {name: None for name in ("entry_point", "vector_entry_point") if callable(getattr(spec, name))}
    try:
        return replace(spec, additional_wrappers=(), **code).to_json()
    except (TypeError, ValueError):
        return None


def numbered(parts: Sequence[Any]) -> dict[str, Any]:
    """The parts of a Tuple as those of a Dict, by their places: "0", "1" and so on."""
    return {str(place): part for place, part in enumerate(parts)}


def observed(space: Any) -> Any:
    """The entries of a Dict that are read, or those of a Tuple by their places, or None for another space.

    Goals that are Dicts themselves, as the tasks of FrankaKitchen, are left out: they are the same in each episode.
    """
    parts = getattr(space, "spaces", None)
    if isinstance(parts, tuple):
        return numbered(parts)
    if isinstance(parts, dict) and hasattr(parts.get("desired_goal"), "spaces"):
        return {key: part for key, part in parts.items() if key == "observation"}
    return parts


def is_part(space: Any) -> TypeGuard[Box]:
    """Whether the space is a Box that can be a part of a flat observation: no image, and of up to two dimensions."""
    dims = len(space.shape) if type(space).__name__ == "Box" else 3
    return dims < 2 or (dims == 2 and space.dtype != "uint8")


def flattening(name: str, parts: Mapping[str, Any]) -> str:
    """A line that says how an observation of these Boxes was flattened."""
    widths = ", ".join(f"{key} ({math.prod(part.shape)})" for key, part in parts.items())
    return f"{name}: the observation is flattened, as by gymnasium.spaces.utils.flatten: {widths}"


def flat_names(parts: Mapping[str, Box]) -> tuple[str, ...]:
    """What the entries of an observation of these Boxes are called, such as "position_0", or "height" of a Box of one
    number; nothing where there is one Box alone, where Boxes are told apart by their places, and for names that would
    not be unique."""
    sizes = {key: math.prod(box.shape) for key, box in parts.items()}
    names = tuple(key if size == 1 else f"{key}_{i}" for key, size in sizes.items() for i in range(size))
    is_named = len(parts) > 1 and "0" not in parts and len({*names}) == len(names)
    return names if is_named else ()


def is_vector(space: Any) -> TypeGuard[Box]:
    """Whether the space is a 1-D Box with at least one entry."""
    return type(space).__name__ == "Box" and len(space.shape) == 1 and space.shape[0] > 0


MINARI_ID = re.compile(r"(?:[-\w][-\w/]*[-\w]/)?[-\w]+-v\d+")
GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")
STEP_ARRAYS = {"act": "actions", "reward": "rewards", "terminated": "terminations", "truncated": "truncations"}
"""The fields of `Episodes` with a row for each step, and their names in an episode of the file."""
UNFINISHED = "unfinished-"  # before the name of a dataset that is being written
BYTES_PER_EPISODE = 14_000  # that HDF5 needs besides its arrays, at least


def datasets_folder() -> Path:
    """Minari's local folder ($MINARI_DATASETS_PATH), which is made if it is missing.

    Raises ImportError without Minari, and `DataError` if the folder cannot be made.
    """
    try:
        from minari.storage import get_dataset_path
    except ImportError as error:
        raise ImportError("Minari datasets need the package minari; pip install 'minari[hdf5,hf]'") from error
    if given := os.environ.get("MINARI_DATASETS_PATH"):
        os.environ["MINARI_DATASETS_PATH"] = os.path.abspath(given)  # Minari cannot write to a relative path
    try:
        return get_dataset_path()
    except OSError as error:
        raise DataError(f"the folder of Minari's datasets cannot be made ({one_line(error)}); set MINARI_DATASETS_PATH "
                        "to a folder") from error


def local_ids() -> dict[str, dict[str, Any]]:
    """The datasets in Minari's local folder: id -> metadata."""
    datasets_folder()
    import minari

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari warns of folders that it cannot read
        datasets = minari.list_local_datasets()
    return {key: row for key, row in datasets.items() if not key.rpartition("/")[2].startswith(UNFINISHED)}


def is_minari(source: str) -> bool:
    """Whether the text is a Minari id: with a namespace, or one of a dataset on this machine."""
    return bool(MINARI_ID.fullmatch(source)) and ("/" in source or source in local_ids())


def read_minari(dataset_id: str) -> Fields:
    """Reads the fields of `Episodes`, not yet validated, from Minari's local folder ($MINARI_DATASETS_PATH), after
    downloading the dataset from Farama's server if it is not there.

    The environment of D4RL/antmaze/... is the one that agents are evaluated in, where the dataset names it. The infos
    `goal`, `qpos` and `qvel` become extras if they have a vector for every observation. Raises `DataError` for a
    dataset that cannot be found or read.
    """
    path = _find(dataset_id)
    from minari.serialization import deserialize_space

    try:
        metadata = json.loads((path / "metadata.json").read_bytes())
        space, act_space = (deserialize_space(metadata[f"{which}_space"]) for which in ("observation", "action"))
        episodes, notes = int(metadata["total_episodes"]), dict(metadata.get("gentraj", {}))
        if metadata["data_format"] != "hdf5":
            raise ValueError(f"{metadata['data_format']} is its format, and only hdf5 is read; write it again with "
                             "data_format='hdf5'")
    except Exception as error:  # it may hold anything
        raise DataError(f"{path / 'metadata.json'}: no Minari dataset that can be read ({one_line(error)})") from error
    obs_shapes = _obs_shapes(dataset_id, space)
    if not is_vector(act_space):
        raise DataError(f"{dataset_id}: action space {_brief(act_space)} is not supported, only vectors (1-D Box) are; "
                        "flatten the actions with gymnasium.spaces.utils.flatten and record the data again")
    rows = dict.fromkeys(STEP_ARRAYS.values(), ()) | {"actions": act_space.shape} | obs_shapes
    with open_hdf5(path / "main_data.hdf5") as file:
        for key in notes.get("extras", ("goal", "qpos", "qvel")):
            array = file.get(f"episode_0/infos/{key}")
            if getattr(array, "ndim", 0) == 2 and array.dtype.kind in "fiub":
                rows[f"infos/{key}"] = array.shape[1:]
        lengths, read = _read_columns(file, dataset_id, episodes, rows)
    extras = {key.removeprefix("infos/"): array for key, array in read.items() if key.startswith("infos/")}
    obs_keys, goal_dims = notes.get("obs_keys", ()), notes.get("goal_dims", ())
    names = {key: notes.get(key, ()) for key in ("obs_names", "act_names")}
    parts = [read[key].reshape(len(read[key]), -1) for key in obs_shapes]
    obs = parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
    if "observations/desired_goal" in read:
        obs, achieved = read["observations/observation"], read["observations/achieved_goal"]
        extras["goal"] = read["observations/desired_goal"]
        if not obs_keys:
            obs_keys, goal_dims = _goal_layout(obs, achieved)
        if "achieved_goal" in obs_keys:
            obs = np.concatenate([achieved, obs], 1)
    elif "observations" not in read:
        obs_keys = tuple(observed(space))
        names["obs_names"] = flat_names(observed(space))
        say_once(flattening(dataset_id, observed(space)))
    env = metadata.get("env_spec")
    if is_antmaze(dataset_id):
        env = metadata.get("eval_env_spec") or env
    return {field: read[key] for field, key in STEP_ARRAYS.items()} | {
        "obs": obs, "lengths": lengths, "extras": extras, "goal_dims": goal_dims, "obs_keys": obs_keys,
        "name": dataset_id, "env": env, **names}


def _find(dataset_id: str) -> Path:
    """The folder of the dataset's files, after a download if there are none, or if one was stopped before."""
    if not MINARI_ID.fullmatch(dataset_id):
        raise DataError(f"'{dataset_id}' is not a Minari id; an id such as D4RL/pointmaze/umaze-v2 is expected")
    path = datasets_folder() / dataset_id / "data"
    if (path / "metadata.json").is_file():
        return path
    close = get_close_matches(dataset_id, local_ids(), cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    absent = f"{dataset_id}: no such dataset in Minari's local folder{hint}"
    if dataset_id.startswith("gentraj/"):
        raise DataError(f"{absent}; make it with `gentraj data make`")
    import minari

    try:
        minari.download_dataset(dataset_id, force_download=path.is_dir())
    except Exception as error:  # every transport raises its own kinds
        raise DataError(f"{absent}; and it could not be downloaded ({one_line(error)})") from error
    return path


def _obs_shapes(dataset_id: str, space: Space[Any]) -> dict[str, tuple[int, ...]]:
    """The arrays of an episode in the file that hold its observations, with the shapes of their rows.

    Raises `DataError` for anything but vectors, dicts and tuples of Boxes, and goal-conditioned dicts of vectors.
    """
    if is_vector(space):
        return {"observations": space.shape}
    parts = observed(space)
    if isinstance(parts, dict):
        goals = set(parts) == set(GOAL_KEYS) and all(map(is_vector, parts.values()))
        if goals or ("desired_goal" not in parts and all(map(is_part, parts.values()))):
            stored = "observations/_index_" if type(space).__name__ == "Tuple" else "observations/"
            return {f"{stored}{key}": part.shape for key, part in parts.items()}
    raise DataError(f"{dataset_id}: observation space {_brief(space)} is not supported, only vectors (1-D Box), dicts "
                    f"and tuples of Boxes and dicts of the vectors {', '.join(GOAL_KEYS)} are; flatten it with "
                    "gymnasium.wrappers.FlattenObservation (encode images first) and record the data again")


def _brief(space: Space[Any]) -> str:
    return " ".join(str(space).split())[:100]


def _read_columns(file: Any, dataset_id: str, episodes: int,
                  rows: Mapping[str, tuple[int, ...]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reads the lengths (E,) and the arrays of all episodes, whose rows have these shapes. Infos that lack a row for
    some observation, as Minari's may, are left out.

    h5py's low-level calls save much time in a file of 100,000 small arrays, and so does a loop over episodes, as one
    over arrays would walk through the whole file for each. Raises `DataError`, naming the episode, for an array of
    another shape, and KeyError for a missing one.
    """
    import h5py

    def opened(e: int, key: str) -> Any:
        return h5py.h5d.open(file.id, f"episode_{e}/{key}".encode())

    lengths = np.array([opened(e, "rewards").shape[0] for e in range(episodes)], np.int64)
    more = {key: 0 if key in STEP_ARRAYS.values() else 1 for key in rows}
    read, first = dict[str, np.ndarray](), dict.fromkeys(rows, 0)
    for key, row in rows.items():
        if (dtype := opened(0, key).dtype).kind not in "fiub":
            raise DataError(f"{dataset_id}: {key} has dtype {dtype}; numbers are expected")
        read[key] = np.empty((int(lengths.sum()) + more[key] * episodes, *row), dtype)
    for e, T in enumerate(lengths.tolist()):
        for key in list(read):
            whole = T + more[key], *rows[key]
            try:
                array = opened(e, key)
                shape = array.shape
            except KeyError:
                if not key.startswith("infos/"):
                    raise
                shape = None
            if shape in (whole, (*whole, 1)):  # a number may be written as a vector of one
                out = read[key][first[key] : first[key] + whole[0]].reshape(shape)
                first[key] += whole[0]
                if out.size:
                    array.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
            elif key.startswith("infos/"):
                del read[key]
            else:
                raise DataError(f"{dataset_id}: episode {e}: {key} has shape {shape}; its {T} steps need {whole}")
    return lengths, read


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


def save_minari(episodes: Episodes, dataset_id: str, *, description: str, overwrite: bool = False,
                algorithm: str = "unknown", provenance: Mapping[str, Any] | None = None) -> Path:
    """Writes the episodes as a dataset into Minari's local folder, completely or not at all, and returns its folder.

    Goal-conditioned episodes (`obs_keys`, `goal_dims` and extras["goal"]) are written as the dict observations that
    they came from, and other dicts as the vectors that they were flattened to. Without `goal_dims` nobody knows the
    achieved goals, so the observations are written as vectors, and the goals beside them. The spaces have no bounds;
    those of the environment are in `MinariDataset.recover_environment()`.

    `algorithm` and `provenance` (kept as JSON in the metadata) inform readers only. Raises `DataError` for a malformed
    id, and for an id that exists already unless `overwrite` is true; OSError if the disk is too full.
    """
    import minari
    from gymnasium.spaces import Box, Dict

    final = check_new_id(dataset_id, overwrite=overwrite)
    arrays = episodes.obs, episodes.act, episodes.reward, *episodes.extras.values()
    needed = sum(array.nbytes for array in arrays) + BYTES_PER_EPISODE * len(episodes)
    if (free := shutil.disk_usage(datasets_folder()).free) < needed:  # HDF5 crashes the process when a write fails
        raise OSError(f"{final}: cannot be written: about {needed:,} bytes are needed, {free:,} are free")
    unfinished = final.with_name(UNFINISHED + final.name)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    as_goals = "goal" in episodes.extras and bool(episodes.goal_dims) and bool(episodes.obs_keys)
    as_goals = as_goals and set(episodes.obs_keys) <= set(GOAL_KEYS)
    infos = [key for key in episodes.extras if key != "goal" or not as_goals]
    parts = _observations(episodes[0], as_goals)
    boxes: dict[str, Space[Any]] = {key: Box(-np.inf, np.inf, x.shape[1:], np.float32) for key, x in parts.items()}
    buffers: Any = _buffers(episodes, infos, as_goals)  # Minari asks for a list; this holds one episode at a time
    try:
        with busy(f"writing {dataset_id}"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Minari advises to add metadata, which happens below
            minari.create_dataset_from_buffers(
                dataset_id.removesuffix(final.name) + unfinished.name, buffers, data_format="hdf5",
                observation_space=Dict(boxes) if as_goals else boxes["observation"],
                action_space=Box(-np.inf, np.inf, (episodes.act_dim,), np.float32), description=description,
                algorithm_name=algorithm, author="unknown", author_email="unknown", code_permalink="")
        path = unfinished / "data" / "metadata.json"
        metadata = json.loads(path.read_text()) | {"dataset_id": dataset_id, "gentraj": {
            "extras": infos, "goal_dims": episodes.goal_dims,
            **{key: getattr(episodes, key) for key in WORDS},
            "provenance": dict(provenance or {})}}
        if episodes.env:
            metadata["env_spec"] = episodes.env
        path.write_text(json.dumps(metadata))
        for file in path.parent.iterdir():
            sync(file)
        if final.exists():
            check_new_id(dataset_id, overwrite=overwrite)  # another process may have written it meanwhile
            final.replace(unfinished / "replaced")
        unfinished.replace(final)
        shutil.rmtree(final / "replaced", ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final


def check_new_id(dataset_id: str, *, overwrite: bool = False) -> Path:
    """The folder that a new dataset will have.

    Raises `DataError` for a malformed id, for an id that exists already unless `overwrite` is true, and if Minari's
    folder cannot be made.
    """
    if not MINARI_ID.fullmatch(dataset_id):
        raise DataError(f"'{dataset_id}' is not a Minari id; an id such as gentraj/pointmaze/umaze-v0 is expected, "
                        "whose namespace has at least two letters")
    final = datasets_folder() / dataset_id
    if final.exists() and not overwrite:
        raise DataError(f"{dataset_id} exists already in {final}; choose another id, or give overwrite=True to "
                        "replace it")
    return final


def _observations(e: Episodes, as_goals: bool) -> dict[str, np.ndarray]:
    """Observations as the environment gave them: vectors, or the parts of a goal-conditioned dict."""
    if not as_goals:
        return {"observation": e.obs}
    achieved = e.obs[:, list(e.goal_dims)]
    observation = e.obs[:, achieved.shape[1]:] if "achieved_goal" in e.obs_keys else e.obs
    return {"observation": observation, "achieved_goal": achieved, "desired_goal": e.extras["goal"]}


def _buffers(episodes: Episodes, infos: list[str], as_goals: bool) -> Iterator[EpisodeBuffer]:
    """Yields one Minari buffer for each episode; its arrays are views."""
    from minari.data_collector import EpisodeBuffer

    for e in episodes:
        parts = _observations(e, as_goals)
        arrays: dict[str, Any] = {key: getattr(e, field) for field, key in STEP_ARRAYS.items()}
        arrays["observations"] = parts if as_goals else parts["observation"]
        yield EpisodeBuffer(**arrays, infos={key: e.extras[key] for key in infos} or None)
