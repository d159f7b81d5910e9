"""Where a run comes from: provenance.json, a record for each time that its training was started or went on.

It is for the reader of a report; nothing is decided by it, and a run without it is as good.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..config import read_json
from ..files import write_file

FILE = "provenance.json"


def record(folder: Path, device: torch.device | None, resume: bool) -> None:
    """Adds a record of this process. The command is the shell's: `gentraj train ...`, or the user's own script."""
    program, *words = sys.argv
    path = Path(program)
    name = "gentraj" if "gentraj" in (path.name, path.parent.name) else path.name  # `python -m gentraj` too
    begun = {"command": shlex.join([name, *words]), "version": version("gentraj"), "torch": torch.__version__,
             "python": platform.python_version(), "device": device_name(device)}
    write_file(folder / FILE, json.dumps({"starts": [*(starts(folder) if resume else []), begun]}, indent=2).encode())


def starts(folder: Path) -> list[dict[str, Any]]:
    """The records, the first being of the training's beginning; none where there is no such file, or another's."""
    path = folder / FILE
    found = read_json(path).get("starts") if path.is_file() else []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def device_name(device: torch.device | None) -> str:
    if device is not None and device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device or "cpu")
