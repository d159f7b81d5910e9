"""Distillation: a student learns from a trained run, its teacher, and becomes a run that decides many times faster.

A method is one function and one line of `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import decisions
from .decisions import DecisionConfig
from .folder import Run

AnyDistillConfig = DecisionConfig


@dataclass(frozen=True)
class Method:
    """A way to distil a run."""

    about: str
    """What its students are, for `--help`."""
    config: AnyDistillConfig
    """The default settings. The settings of every method have the `training` of the student."""
    distill: Callable[..., Run]
    """Called as `distill` below is, with the settings of this method."""


METHODS: dict[str, Method] = {
    "decision": Method("a small network that acts as a planner or an iterative policy does: observation and goal in, "
                       "action out", DecisionConfig(), decisions.distill),
}


def distill(teacher: Run, config: AnyDistillConfig, folder: Path | str, *, resume: bool = False,
            device: torch.device | None = None, progress: bool = True, **options: Any) -> Run:
    """Distils the run `teacher` into a new run in `folder`, by the method that the settings belong to.

    `options` are those of the method, such as `env_id` of decisions. A distillation that was killed and is resumed
    gives the same student, bit for bit. Raises ValueError for settings of no method, and what the method raises.
    """
    method = next((each for each in METHODS.values() if type(each.config) is type(config)), None)
    if method is None:
        raise ValueError(f"{type(config).__name__} are the settings of no method; known: {', '.join(METHODS)}")
    return method.distill(teacher, config, Path(folder), resume=resume, device=device, progress=progress, **options)
