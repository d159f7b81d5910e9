"""Distillation: a student learns from a trained run, its teacher, and becomes a run that decides many times faster.

A student of few sampling steps takes the place of the teacher's generative model, and everything else is the teacher's;
`gentraj.runs.learn.dagger` distils whole decisions. A method is one line of `METHODS`.
"""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from gentraj.agents.policies.policy import Policy

from ...config import JsonObject, settings
from ...data.sources import resolve_paths
from ...diffusion import Diffusion, DiffusionConfig
from ...diffusion.denoiser import NEEDS_SIGNAL
from ...distillation import ConsistencyConfig, FewStep, FewStepConfig, ReflowConfig
from ...training.loop import TrainingConfig
from ..kinds.datasets import data_of
from ..kinds.folder import RunFolder, check_trained, run_class
from ..kinds.planner_run import PlannerRunConfig
from ..kinds.policy_run import PolicyRunConfig
from ..kinds.presets import model_config, with_model
from ..kinds.run import Run, RunConfig
from .dagger import DecisionConfig, distill_decisions
from .training import RunTrainer, training_data


@settings
class FewStepRunConfig:
    """How a student of few sampling steps learns from a run's diffusion model."""

    student: FewStepConfig = field(default_factory=ReflowConfig)
    """The student. Its teacher is that of the run."""
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=5_000))
    """The training of the student. It is not evaluated meanwhile, and its windows start where the teacher's did."""


AnyDistillConfig = DecisionConfig | FewStepRunConfig


class Method(NamedTuple):
    """A way to distil a run."""

    about: str
    """What its students are, for `--help`."""
    config: AnyDistillConfig
    """The default settings. The settings of every method have the `training` of the student."""


METHODS: dict[str, Method] = {
    "decision": Method("a small network that acts like a planner or an iterative policy: observation and goal in, "
                       "action out", DecisionConfig()),
    "reflow": Method("a few-step model that learns its teacher's map from noise to samples", FewStepRunConfig()),
    "consistency": Method("a model that maps each point of its teacher's path from noise to data to the end, in one "
                          "call", FewStepRunConfig(ConsistencyConfig())),
}


def distill(teacher: Run, config: AnyDistillConfig, folder: Path | str, *, env_id: str | None = None,
            resume: bool = False, device: torch.device | None = None, progress: bool = True) -> Run:
    """Distils the run `teacher` into a new run in `folder`, by the method that the settings belong to.

    Whole decisions are recorded in the environment `env_id`, by default the teacher's own; other methods need none. A
    distillation that was killed and is resumed gives the same student, bit for bit. Raises ValueError for a teacher at
    step 0, and what `distill_decisions` and `distill_model` raise.
    """
    check_trained(teacher)
    if isinstance(config, DecisionConfig):
        return distill_decisions(teacher, config, Path(folder), env_id=env_id, resume=resume, device=device,
                                 progress=progress)
    if env_id is not None:
        raise ValueError(f"env_id is {env_id}, and this method learns from data, without an environment; leave it out")
    return distill_model(teacher, config, Path(folder), resume=resume, device=device, progress=progress)


def distill_model(teacher: Run, config: FewStepRunConfig, folder: Path, *, resume: bool = False,
                  device: torch.device | None = None, progress: bool = True) -> Run:
    """Trains a student of the diffusion model of `teacher` on its data, as a new run in `folder`.

    A planner's student plans with the teacher's critic, arrival and inverse dynamics, and trusts the same plans; a
    policy's student acts on the teacher's scales. Raises ValueError for a run without a diffusion model, for one that
    predicts noise, for a policy with a critic, and for data that were changed since the teacher was trained; and what
    `gentraj.training.Trainer` raises.
    """
    parts, own = data_of(teacher), student_settings(teacher, config)
    run = run_class(own).build(own, teacher.data)
    run.reference, run.kept = teacher.reference, teacher.kept
    frozen = [name for name, part in run.components.items() if not learns(part, teacher.components[name])]
    about = {"teacher": {"step": teacher.step, "dataset_hash": teacher.dataset_hash}}
    trainer = RunTrainer(run, training_data(run, parts), RunFolder(folder.absolute()), about=about, frozen=frozen,
                         device=device, progress=progress)
    return trainer.trained(resume)


def learns(part: nn.Module, teacher: nn.Module) -> bool:
    """Gives a part its teacher's weights, and says whether it, or its model, is a student that learns."""
    if isinstance(part, FewStep) and isinstance(teacher, Diffusion):
        part.learn_from(teacher)
        return True
    if isinstance(part, Policy) and isinstance(teacher, Policy) and part.action_model and teacher.action_model:
        weights = {key: tensor for key, tensor in teacher.state_dict().items() if not key.startswith("model.model.")}
        part.load_state_dict(weights, strict=False)
        return learns(part.action_model.model, teacher.action_model.model)
    part.load_state_dict(teacher.state_dict())
    return False


def student_settings(teacher: Run, config: FewStepRunConfig) -> RunConfig:
    """The settings of the student's run: the teacher's with another model and another training."""
    own: RunConfig = teacher.config
    generator = model_config(own)
    if not isinstance(generator, DiffusionConfig) or not isinstance(own, PlannerRunConfig | PolicyRunConfig):
        raise ValueError(f"{teacher.description}; a student of few steps learns from a diffusion model or a flow of a "
                         "planner or a policy")
    if isinstance(own, PolicyRunConfig) and own.policy.critic is not None:
        raise ValueError(f"{teacher.description}, which acts by its critic too, and a student of few steps replaces "
                         "its model only; take method=decision")
    if generator.prediction in NEEDS_SIGNAL:
        raise ValueError(f"{teacher.description} that predicts {generator.prediction}, which hardly determines x0 "
                         "where a student starts; train a run with the prediction x0 or v")
    student = replace(config.student, teacher=generator)
    training = replace(config.training, eval_every=0,  # on the windows that the teacher learnt from
                       min_episode_start_fraction=own.training.min_episode_start_fraction)
    shared: JsonObject = {"dataset": resolve_paths(own.dataset, teacher.folder), "training": training}
    if isinstance(own, PlannerRunConfig):
        return replace(own, model=student, planner=replace(own.planner, steps=student.steps), **shared)
    return replace(with_model(own, student), **shared)
