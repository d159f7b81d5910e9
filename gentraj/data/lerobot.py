"""LeRobot's datasets in format 3: Parquet files of frames, each an observation and the action that was taken on it.

An episode of T + 1 frames has T steps here: nobody recorded what the action of its last frame led to, so that action
serves nothing and is left out with its reward. Images and videos are not read.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ConfigError, read_json
from ..progress import one_line, say_once
from .validation import DataError, as_flags, as_float32

PREFIX = "lerobot:"
INFO, FRAMES = Path("meta", "info.json"), "data/*/*.parquet"
REPOSITORY = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
STATE = "observation.state"
EPISODE, FRAME = "episode_index", "frame_index"
NUMBERS = re.compile(r"float(16|32|64)|u?int(8|16|32|64)|bool")


def is_lerobot_folder(source: str) -> bool:
    """Whether the source is the folder of a LeRobot dataset."""
    return os.path.isfile(os.path.join(os.path.expanduser(source), INFO))  # false for a name that no file can have


def read_lerobot(source: str | Path) -> dict[str, Any]:
    """Reads the fields of `Episodes`, not yet validated, of a LeRobot dataset: its folder, or `lerobot:OWNER/NAME`.

    Such a name is looked for in LeRobot's own folder ($HF_LEROBOT_HOME or ~/.cache/huggingface/lerobot), and is
    downloaded from the Hugging Face hub, without videos, if it is not there. An observation is `observation.state`
    followed by the other vectors of each frame in the order of their names. Rewards are `next.reward`, or 0 without it,
    and an episode is terminated where `next.done` is set on the last of its steps and `next.truncated` is not. An
    episode is cut where its `frame_index` does not go on by one.

    Raises `DataError` for a dataset that cannot be found or read, ImportError where pyarrow is not installed.
    """
    if str(source).startswith(PREFIX):
        name = str(source).removeprefix(PREFIX)
        folder = _find(name)
    else:
        folder = Path(os.path.expanduser(source))
        name = folder.name
    features = _features(folder)
    kept = _obs_features(features)
    others = "action", "next.reward", "next.done", "next.truncated", FRAME
    wanted = {key: features[key] for key in (*kept, *others) if key in features}
    read = _read_frames(folder, wanted)
    _say_what_is_read(name, kept, features)
    last_N = _last_frames(read, name)
    rows_E = np.diff(np.flatnonzero(last_N), prepend=-1)
    obs_N, lengths_E = np.repeat(rows_E > 1, rows_E), rows_E[rows_E > 1] - 1
    if short := np.count_nonzero(rows_E == 1):
        warnings.warn(f"{name}: {short} episodes of a single frame have no step and are left out", stacklevel=3)
    none_S = np.zeros(np.count_nonzero(~last_N), bool)
    flags = {key: as_flags(read[key][~last_N, 0], name, key) if key in read else none_S
             for key in ("next.done", "next.truncated")}
    terminated, truncated = flags["next.done"] & ~flags["next.truncated"], np.zeros_like(flags["next.done"])
    ends_E = np.cumsum(lengths_E) - 1
    truncated[ends_E] = ~terminated[ends_E]
    reward_N = read["next.reward"][:, 0] if "next.reward" in read else np.zeros(len(last_N), np.float32)
    return {"obs": np.concatenate([read[key] for key in kept], 1)[obs_N], "act": read["action"][~last_N],
            "reward": reward_N[~last_N], "terminated": terminated, "truncated": truncated, "lengths": lengths_E,
            "name": name}


def _last_frames(read: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """(N,) true at the last frame of each episode, which ends too, with a warning, where frames are missing or in
    another order."""
    last_N = np.append(np.diff(read[EPISODE]) != 0, True)
    if FRAME in read:
        jumps_N = np.append(np.diff(read[FRAME][:, 0]) != 1, False) & ~last_N
        if number := np.count_nonzero(jumps_N):
            warnings.warn(f"{name}: in {number} places {FRAME} does not go on from one frame of an episode to the "
                          "next, so the episode is cut there; give all frames in their order", stacklevel=4)
            last_N |= jumps_N
    return last_N


def _read_frames(folder: Path, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The columns of all frames, (N, width) float32 each, and the episode of each frame, (N,) int64.

    Raises `DataError`, naming the file, for whatever is wrong with one.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(f"{folder}: reading it needs the package pyarrow; pip install 'gentraj[lerobot]'") from error
    files = sorted(folder.glob(FRAMES))
    if not files:
        raise DataError(f"{folder}: holds no {FRAMES}; copy the whole dataset")
    tables = []
    for file in files:
        try:
            with ParquetFile(file) as frames:
                tables.append(frames.read([*widths, EPISODE]))
        except Exception as error:  # Arrow has kinds of its own for damage
            raise DataError(f"{file}: cannot be read ({one_line(error)}); is it complete and Parquet?") from error
    columns = {key: np.concatenate([_numbers(table, key, width, folder) for table in tables])
               for key, width in widths.items()}
    columns = {key: as_float32(column, folder.name, key) for key, column in columns.items()}
    episode = np.concatenate([_numbers(table, EPISODE, 1, folder)[:, 0] for table in tables])
    return columns | {EPISODE: episode}


def _numbers(table: Any, key: str, width: int, folder: Path) -> np.ndarray:
    """(N, width) one column of the frames, whose cells are numbers or lists of `width` numbers."""
    if key not in table.column_names:
        raise DataError(f"{folder}: its frames have no {key}; copy the whole dataset")
    nulls, cells = 0, table.column(key).combine_chunks()
    while hasattr(cells, "flatten") and hasattr(cells.type, "value_type"):
        nulls, cells = nulls + cells.null_count, cells.flatten()
    values = cells.to_numpy(zero_copy_only=False)
    if nulls + cells.null_count or values.dtype.kind not in "fiub" or len(values) != len(table) * width:
        raise DataError(f"{folder}: {key} of {len(table)} frames has {len(values)} values of {values.dtype} and "
                        f"{nulls + cells.null_count} missing ones; {width} numbers a frame are expected")
    return values.reshape(len(table), width)


def _find(name: str) -> Path:
    """The folder of the dataset OWNER/NAME, after a download if it is not on this machine."""
    if not REPOSITORY.fullmatch(name):
        raise DataError(f"'{PREFIX}{name}' is no LeRobot dataset; lerobot:OWNER/NAME, or a folder that holds {INFO}, "
                        "is expected")
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    local = Path(os.environ.get("HF_LEROBOT_HOME") or cache / "lerobot").expanduser() / name
    if (local / INFO).is_file():
        return local
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(f"{PREFIX}{name} is not in {local}, and the Hugging Face hub needs a package that is "
                          "missing: pip install 'gentraj[lerobot]'") from error
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=[str(INFO), FRAMES]))
    except (OSError, ValueError) as error:  # all exceptions of the hub are one of these
        raise DataError(f"{PREFIX}{name} is not in {local} and cannot be fetched from the Hugging Face hub: "
                        f"{one_line(error)}") from error


def _features(folder: Path) -> dict[str, int]:
    """The features of a frame: name -> number of entries, 0 for an image, a video, a text or an array.

    Raises `DataError` for another format, and for actions that are not vectors of real numbers.
    """
    try:
        info = read_json(folder / INFO)
    except ConfigError as error:
        raise DataError(str(error)) from error
    version, features = str(info.get("codebase_version")), info.get("features") or {}
    if not version.startswith("v3."):
        raise DataError(f"{folder}: has LeRobot's format {version[:20]}; v3.0 is expected, to which LeRobot converts "
                        "older ones (lerobot.datasets.v30.convert_dataset_v21_to_v30)")
    try:
        shapes = {str(key): (str(one["dtype"]), [int(n) for n in one["shape"]]) for key, one in features.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / INFO}: its features cannot be read ({one_line(error)})") from error
    dtype, shape = shapes.get("action", ("none", []))
    if not dtype.startswith("float") or len(shape) != 1:
        raise DataError(f"{folder}: action has dtype {dtype} and shape {shape}; vectors of real numbers are expected, "
                        "as models and policies act by these")
    return {key: math.prod(shape) if len(shape) == 1 and NUMBERS.fullmatch(dtype) else 0
            for key, (dtype, shape) in shapes.items()}


def _obs_features(features: Mapping[str, int]) -> list[str]:
    kept = sorted((key for key, width in features.items() if key.startswith("observation") and width),
                  key=lambda key: (key != STATE, key))
    if not kept:
        raise DataError(f"no vector among the observations ({', '.join(_left_out(features)) or 'there are none'}); a "
                        "state is expected, as images are not read")
    return kept


def _left_out(features: Mapping[str, int]) -> Iterable[str]:
    return [key for key, width in features.items() if key.startswith("observation") and not width]


def _say_what_is_read(name: str, kept: Iterable[str], features: Mapping[str, int]) -> None:
    left = ", ".join(_left_out(features))
    say_once(f"{name}: observations are {', '.join(f'{key} ({features[key]})' for key in kept)}"
             + (f", without {left}, which are not read" if left else "")
             + "; the action and reward of each episode's last frame are left out, as no observation follows")
