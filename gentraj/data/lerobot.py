"""LeRobot's datasets in format 3: Parquet files of frames, each an observation and the action that was taken on it.

An episode of T + 1 frames has T steps here: nobody recorded what the action of its last frame led to, so that action
serves nothing and is left out with its reward. Images and videos are not read.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..config import ConfigError, read_json
from ..progress import one_line, say_once
from .episodes import DataError, Fields, as_flags, last_steps

PREFIX = "lerobot:"
INFO, FRAMES = Path("meta", "info.json"), "data/*/*.parquet"
REPOSITORY = re.compile(r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
STATE = "observation.state"
EPISODE, FRAME = "episode_index", "frame_index"
NUMBERS = re.compile(r"float(16|32|64)|u?int(8|16|32|64)|bool")


def is_lerobot_folder(source: str) -> bool:
    """Whether the source is the folder of a LeRobot dataset."""
    return os.path.isfile(os.path.join(os.path.expanduser(source), INFO))  # false for a name that no file can have


def read_lerobot(source: str | Path) -> Fields:
    """Reads the fields of `Episodes`, not yet validated, of a LeRobot dataset: its folder, or `lerobot:OWNER/NAME`.

    Such a name is looked for in LeRobot's own folder ($HF_LEROBOT_HOME or ~/.cache/huggingface/lerobot), and is
    downloaded from the Hugging Face hub, without videos, if it is not there. An observation is `observation.state`
    followed by the other vectors of each frame in the order of their names. Rewards are `next.reward`, or 0 without it,
    and an episode is terminated where `next.done` is set on the last of its steps and `next.truncated` is not. An
    episode is cut where its `frame_index` does not go on by one.

    Raises `DataError` for a dataset that cannot be found or read, ImportError where pyarrow is not installed.
    """
    folder, name = Path(os.path.expanduser(source)), Path(source).name
    if str(source).startswith(PREFIX):
        name = str(source).removeprefix(PREFIX)
        folder = _find(name)
    widths = _widths(folder)
    kept = sorted((key for key, width in widths.items() if key.startswith("observation") and width),
                  key=lambda key: (key != STATE, key))
    left_out = ", ".join(key for key, width in widths.items() if key.startswith("observation") and not width) or "none"
    if not kept:
        raise DataError(f"{folder}: no vector among the observations ({left_out}); a state is expected, as images are "
                        "not read")
    say_once(f"{name}: observations are {', '.join(f'{key} ({widths[key]})' for key in kept)}; not read: {left_out}; "
             "the action and reward of each episode's last frame are left out, as no observation follows")
    others = "action", "next.reward", "next.done", "next.truncated", FRAME
    read = _read_frames(folder, {key: widths[key] for key in (*kept, *others) if key in widths} | {EPISODE: 1})
    last_N = _last_frames(read, name)
    rows_E = np.diff(np.flatnonzero(last_N), prepend=-1)
    if short := np.count_nonzero(rows_E == 1):
        warnings.warn(f"{name}: {short} episodes of a single frame have no step and are left out", stacklevel=3)
    lengths_E = rows_E[rows_E > 1] - 1
    none_N1 = np.zeros((len(last_N), 1))
    done_S, cut_S = (as_flags(read.get(key, none_N1)[~last_N, 0], name, key) for key in ("next.done", "next.truncated"))
    terminated = done_S & ~cut_S
    return {"obs": np.concatenate([read[key] for key in kept], 1)[np.repeat(rows_E > 1, rows_E)],
            "act": read["action"][~last_N], "reward": read.get("next.reward", none_N1)[~last_N, 0],
            "terminated": terminated, "truncated": last_steps(lengths_E) & ~terminated, "lengths": lengths_E,
            "name": name}


def _last_frames(read: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """(N,) true at the last frame of each episode, which ends too, with a warning, where frames are missing or in
    another order."""
    last_N = np.append(np.diff(read[EPISODE][:, 0]) != 0, True)
    if FRAME in read:
        jumps_N = np.append(np.diff(read[FRAME][:, 0]) != 1, False) & ~last_N
        if number := np.count_nonzero(jumps_N):
            warnings.warn(f"{name}: in {number} places {FRAME} does not go on from one frame of an episode to the "
                          "next, so the episode is cut there; give all frames in their order", stacklevel=3)
            last_N |= jumps_N
    return last_N


def _read_frames(folder: Path, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The columns of all frames, (N, width) each. Raises `DataError`, naming the file, for whatever is wrong with
    one."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(f"{folder}: reading it needs the package pyarrow; pip install 'gentraj[lerobot]'") from error
    parts: dict[str, list[np.ndarray]] = {key: [] for key in widths}
    for file in sorted(folder.glob(FRAMES)):
        try:
            with ParquetFile(file) as frames:
                table = frames.read(list(widths))
            for key, width in widths.items():
                cells = table.column(key).combine_chunks()
                while hasattr(cells, "flatten") and hasattr(cells.type, "value_type"):
                    cells = cells.flatten()
                if cells.null_count:
                    raise DataError(f"{key} lacks {cells.null_count} values")
                parts[key].append(cells.to_numpy(zero_copy_only=False).reshape(len(table), width))
        except Exception as error:  # Arrow has kinds of its own for damage
            raise DataError(f"{file}: cannot be read ({one_line(error)}); is it complete, and Parquet with "
                            f"{', '.join(widths)} for each frame?") from error
    if not parts[EPISODE]:
        raise DataError(f"{folder}: holds no {FRAMES}; copy the whole dataset")
    return {key: np.concatenate(columns) for key, columns in parts.items()}


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

        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=[str(INFO), FRAMES]))
    except ImportError as error:
        raise ImportError(f"{PREFIX}{name} is not in {local}, and the Hugging Face hub needs a package that is "
                          "missing: pip install 'gentraj[lerobot]'") from error
    except (OSError, ValueError) as error:  # all exceptions of the hub are one of these
        raise DataError(f"{PREFIX}{name} is not in {local} and cannot be fetched from the Hugging Face hub: "
                        f"{one_line(error)}") from error


def _widths(folder: Path) -> dict[str, int]:
    """The features of a frame: name -> number of entries, 0 for an image, a video, a text or an array.

    Raises `DataError` for another format, and for actions that are not vectors of real numbers.
    """
    try:
        info = read_json(folder / INFO)
        version, widths = str(info["codebase_version"]), dict[str, int]()
        for key, feature in info["features"].items():
            is_vector = NUMBERS.fullmatch(feature["dtype"]) and len(feature["shape"]) == 1
            widths[key] = feature["shape"][0] if is_vector else 0
        action = info["features"].get("action", {"dtype": "none"})
    except (ConfigError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{folder / INFO}: describes no LeRobot dataset ({one_line(error)})") from error
    if not version.startswith("v3."):
        raise DataError(f"{folder}: has LeRobot's format {version[:20]}; v3.0 is expected, to which LeRobot converts "
                        "older ones (lerobot.datasets.v30.convert_dataset_v21_to_v30)")
    if not action["dtype"].startswith("float") or not widths["action"]:
        raise DataError(f"{folder}: action has dtype {action['dtype']} and shape {action.get('shape')}; vectors of "
                        "real numbers are expected, as models and policies act by these")
    return widths
