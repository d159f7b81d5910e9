"""The argument RUN and the option --device, which many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Device = Annotated[str | None, tyro.conf.arg(help=(
    "A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."))]
