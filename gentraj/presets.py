"""Presets: a literal dict of run settings. Adding a task is one line here."""

from __future__ import annotations

from dataclasses import replace

from agents.planner import PlannerConfig

from .runs import RunConfig
from .training import TrainingConfig

# The observation is (x, y, vx, vy); everything else about a maze comes from its data.
# Its dynamics are calm, so a plan is followed for long: a new one for every change of mind costs more than it gains.
POINTMAZE = RunConfig(planner=PlannerConfig(replan=32, rest_dims=(2, 3), hold_radius=0.45),
                      training=TrainingConfig(steps=8_000))
LONG = replace(POINTMAZE, training=TrainingConfig(steps=10_000))

PRESETS: dict[str, RunConfig] = {
    "pointmaze": POINTMAZE,
    "pointmaze-open": replace(POINTMAZE, dataset="gentraj/pointmaze/open-v0"),
    "pointmaze-umaze": replace(POINTMAZE, dataset="gentraj/pointmaze/umaze-v0"),
    "pointmaze-medium": replace(LONG, dataset="gentraj/pointmaze/medium-v0"),
    "pointmaze-large": replace(LONG, dataset="gentraj/pointmaze/large-v0"),
}

DEMO = replace(PRESETS["pointmaze-umaze"], training=TrainingConfig(steps=3_000))
