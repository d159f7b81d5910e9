"""Writing of Minari datasets that any installation of Minari can read, under a temporary id until they are complete."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..process import is_alive
from ..progress import busy, one_line
from .episodes import Episodes
from .minari_io import MINARI_ID, NO_MINARI, TEMPORARY, datasets_folder
from .spaces import GOAL_KEYS, act_width, flat_parts, obs_widths
from .validation import DataError

BYTES_PER_EPISODE = 14_000  # that HDF5 needs besides its arrays, at least


def save_minari(episodes: Episodes, dataset_id: str, *, description: str, overwrite: bool = False,
                algorithm: str = "unknown", provenance: Mapping[str, Any] | None = None) -> Path:
    """Writes the episodes as a dataset into Minari's local folder and returns the dataset's folder.

    Goal-conditioned episodes (`obs_keys`, `goal_dims` and extras["goal"]) are written as the dict observations that
    they came from, and other dicts as the vectors that they were flattened to. Without `goal_dims` nobody knows the
    achieved goals, so the observations are written as vectors, and the goals beside them.

    The spaces are those of `episodes.env`, if that environment is registered and can be made here, else unbounded.
    `algorithm` and `provenance` (kept as JSON in the metadata) inform readers only. Raises `DataError` for a malformed
    id, and for an id that exists already unless `overwrite` is true; OSError if the disk is too full.
    """
    final = check_new_id(dataset_id, overwrite=overwrite)
    _check_space(episodes, final)
    temporary, replaced = (final.with_name(f"tmp-{os.getpid()}-{what}-{final.name}") for what in ("new", "old"))
    about = {"description": description, "algorithm_name": algorithm, "author": "unknown", "author_email": "unknown",
             "code_permalink": ""}
    try:
        # An id may not start with a dot, so `minari list` shows the temporary id while it is written.
        with busy(f"writing {dataset_id}"):
            _write(episodes, dataset_id.removesuffix(final.name) + temporary.name, about)
            _finish(temporary / "data", dataset_id, episodes, provenance)
        if final.exists():
            _refuse_taken(final, dataset_id, overwrite)  # another process may have written it meanwhile
            final.replace(replaced)
        temporary.replace(final)
    finally:
        _clear(temporary, final)
        _clear(replaced, final)
    return final


def check_new_id(dataset_id: str, *, overwrite: bool = False) -> Path:
    """The folder that a new dataset will have.

    Raises `DataError` for a malformed id, for an id that exists already unless `overwrite` is true, and if Minari's
    folder cannot be made.
    """
    try:
        from minari.dataset.minari_dataset import parse_dataset_id
    except ImportError as error:
        raise ImportError(NO_MINARI.format(dataset_id)) from error
    try:
        parse_dataset_id(dataset_id if MINARI_ID.fullmatch(dataset_id) else "")
    except ValueError as error:
        raise DataError(f"'{dataset_id}' is not a Minari id; an id such as gentraj/pointmaze/umaze-v0 is expected, "
                        "whose namespace has at least two letters") from error
    final = datasets_folder(dataset_id) / dataset_id
    _sweep(final)
    _refuse_taken(final, dataset_id, overwrite)
    return final


def _refuse_taken(final: Path, dataset_id: str, overwrite: bool) -> None:
    if final.exists() and not overwrite:
        raise DataError(f"{dataset_id} exists already in {final}; choose another id, or delete that folder "
                        "(`gentraj data import` and `gentraj data make` replace it with --overwrite)")


def _check_space(episodes: Episodes, final: Path) -> None:
    """Raises OSError if the disk is too full for the episodes: HDF5 crashes the process when a write fails."""
    arrays = episodes.obs, episodes.act, episodes.reward, *episodes.extras.values()
    needed = sum(array.nbytes for array in arrays) + BYTES_PER_EPISODE * len(episodes)
    parent = next(path for path in final.parents if path.is_dir())
    if (free := shutil.disk_usage(parent).free) < needed:
        raise OSError(f"{final}: cannot be written: about {needed:,} bytes are needed, {free:,} are free")


def _write(episodes: Episodes, dataset_id: str, about: Mapping[str, Any]) -> None:
    import minari

    buffers: Any = _buffers(episodes)  # Minari asks for a list, but a generator holds only one episode at a time
    observation_space, action_space = _spaces(episodes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari advises to add metadata, which `_finish` does
        minari.create_dataset_from_buffers(dataset_id, buffers, observation_space=observation_space,
                                           action_space=action_space, data_format="hdf5", **about)


def _buffers(episodes: Episodes) -> Iterator[Any]:
    """Yields one Minari buffer for each episode; its arrays are views."""
    from minari.data_collector import EpisodeBuffer

    infos = {key: value for key, value in episodes.extras.items() if key != "goal" or not _goal_conditioned(episodes)}
    for e, (a, T) in enumerate(zip(episodes.starts.tolist(), episodes.lengths.tolist(), strict=True)):
        steps, rows = slice(a, a + T), slice(a + e, a + e + T + 1)
        arrays: dict[str, Any] = {
            "observations": _observations(episodes, rows), "actions": episodes.act[steps],
            "rewards": episodes.reward[steps], "terminations": episodes.terminated[steps],
            "truncations": episodes.truncated[steps], "infos": {k: v[rows] for k, v in infos.items()} or None}
        yield EpisodeBuffer(**arrays)


def _observations(episodes: Episodes, rows: slice) -> Any:
    """Observations as the environment gave them: vectors, or dicts of the parts that `obs_keys` names."""
    obs = episodes.obs[rows]
    if not _goal_conditioned(episodes):
        return obs
    achieved = obs[:, list(episodes.goal_dims)]
    observation = obs[:, achieved.shape[1]:] if "achieved_goal" in episodes.obs_keys else obs
    return {"observation": observation, "achieved_goal": achieved, "desired_goal": episodes.extras["goal"][rows]}


def _goal_conditioned(episodes: Episodes) -> bool:
    """Whether the dict observations of an environment with goals can be written again from these episodes."""
    return ("goal" in episodes.extras and bool(episodes.obs_keys and episodes.goal_dims)
            and set(episodes.obs_keys) <= set(GOAL_KEYS))


def _spaces(episodes: Episodes) -> tuple[Any, Any]:
    """The environment's spaces, checked against the arrays, or unbounded spaces if there is no environment."""
    from gymnasium.spaces import Box, Dict

    parts = _observations(episodes, slice(0, 1))
    widths = {k: v.shape[1] for k, v in (parts.items() if isinstance(parts, dict) else [("obs", parts)])}
    with _environment(episodes) as gym_env:
        if gym_env is not None:
            expected, act = (obs_widths(episodes.name, gym_env.observation_space),
                             act_width(episodes.name, gym_env.action_space))
            as_vectors = bool(flat_parts(gym_env.observation_space)) or ("obs" in widths and "obs" not in expected)
            if as_vectors and "obs" not in expected:
                expected = {"obs": sum(expected.get(key, 0) for key in episodes.obs_keys or GOAL_KEYS[:1])}
            if (expected, act) != (widths, episodes.act_dim):
                raise DataError(f"{episodes.name}: observation widths {widths} and action width {episodes.act_dim}; "
                                f"its environment has {expected} and {act}; save them with env=None")
            if not as_vectors:
                return gym_env.observation_space, gym_env.action_space
    boxes: dict[str, Any] = {key: Box(-np.inf, np.inf, (width,), np.float32) for key, width in widths.items()}
    return boxes.get("obs") or Dict(boxes), Box(-np.inf, np.inf, (episodes.act_dim,), np.float32)


@contextmanager
def _environment(episodes: Episodes) -> Iterator[Any]:
    """The environment that `episodes.env` names, or None if it is not registered here or cannot be made here."""
    if episodes.env is None:
        yield None
        return
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    try:
        spec = EnvSpec.from_json(episodes.env)
        registered = gymnasium.registry.get(spec.id)
    except Exception as error:  # Gymnasium trusts its JSON, so it raises key, type and value errors
        raise DataError(f"{episodes.name}: env is not Gymnasium's EnvSpec as JSON ({one_line(error)})") from error
    files = any(isinstance(value, str) and ("/" in value or "\\" in value) for value in spec.kwargs.values())
    # The spec may come from a stranger: unless it is registered here, making its environment would run whatever code,
    # and read whatever file, it names.
    if registered is None or registered.entry_point != spec.entry_point or spec.additional_wrappers or files:
        yield None
        return
    try:
        registered_env = gymnasium.make(spec, disable_env_checker=True)
    except Exception:  # a package is missing here, or this version does not take the arguments
        yield None
        return
    try:
        yield registered_env
    finally:
        registered_env.close()
        if model := getattr(registered_env.unwrapped, "tmp_xml_file_path", None):  # a maze leaves this file in /tmp
            Path(model).unlink(missing_ok=True)


def _finish(folder: Path, dataset_id: str, episodes: Episodes, provenance: Mapping[str, Any] | None) -> None:
    """Adds the final id, the environment and the notes for `read_minari` to the metadata, and syncs all files."""
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    extras = [key for key in episodes.extras if key != "goal" or not _goal_conditioned(episodes)]
    if episodes.env:
        metadata["env_spec"] = episodes.env
    metadata |= {"dataset_id": dataset_id, "gentraj": {
        "extras": extras, "goal_dims": list(map(int, episodes.goal_dims)), "obs_keys": list(episodes.obs_keys),
        "provenance": dict(provenance or {})}}
    path.write_text(json.dumps(metadata))
    for file in folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _sweep(final: Path) -> None:
    """Clears the temporary folders of processes that were killed while they wrote this dataset."""
    for folder in final.parent.glob("tmp-*") if final.parent.is_dir() else ():
        match = TEMPORARY.match(folder.name)
        if match and folder.name[match.end():] == final.name and not is_alive(int(match[1])):
            _clear(folder, final)


def _clear(folder: Path, final: Path) -> None:
    """Removes a temporary folder, but moves a replaced dataset back if nothing has taken its place."""
    match = TEMPORARY.match(folder.name)
    if match and match[2] == "old" and folder.exists() and not final.exists():
        folder.replace(final)
    shutil.rmtree(folder, ignore_errors=True)
