"""Distillation: a student learns from a trained run, its teacher, and becomes a run that decides many times faster.

A method is one function and one line of `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..distillation import (
    AdversarialConfig,
    ConsistencyConfig,
    FewStepConfig,
    MeanFlowConfig,
    ProgressiveConfig,
    ReflowConfig,
    ShortcutConfig,
)
from . import dagger, few_step
from .dagger import DecisionConfig
from .few_step import FewStepRunConfig
from .folder import Run

AnyDistillConfig = DecisionConfig | FewStepRunConfig


@dataclass(frozen=True)
class Method:
    """A way to distil a run."""

    about: str
    """What its students are, for `--help`."""
    config: AnyDistillConfig
    """The default settings. The settings of every method have the `training` of the student."""
    distill: Callable[..., Run]
    """Called as `distill` below is, with the settings of this method."""


def _few_step(about: str, student: FewStepConfig, value: float = 0.0) -> Method:
    return Method(about, FewStepRunConfig(student, value), few_step.distill)


METHODS: dict[str, Method] = {
    "decision": Method("a small network that acts like a planner or an iterative policy: observation and goal in, "
                       "action out", DecisionConfig(), dagger.distill),
    "reflow": _few_step("a few-step model that learns its teacher's map from noise to samples",
                        ReflowConfig()),
    "progressive": _few_step("a few-step model, each step of which learns two steps of the previous round",
                             ProgressiveConfig()),
    "consistency": _few_step("a model that maps each point of its teacher's path from noise to data to the end, in "
                             "one call", ConsistencyConfig()),
    "mean-flow": _few_step("a model of the average velocity between two times, with or without a teacher",
                           MeanFlowConfig()),
    "shortcut": _few_step("a model that reaches in one step what it reaches in two of half the size, with or without a "
                          "teacher", ShortcutConfig()),
    "adversarial": _few_step("a few-step model that also learns to fool a discriminator that sees data",
                             AdversarialConfig()),
    "value-aware": _few_step("a consistency model that also learns to increase the value of its plans under the "
                             "planner's critic", ConsistencyConfig(), value=1.0),
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
