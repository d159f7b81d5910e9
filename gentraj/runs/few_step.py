"""Distils the generative model of a run: the student has few sampling steps, and everything else is the teacher's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from gentraj.agents.planning.plan_critic import PlanCritic
from gentraj.agents.policies.policy import Policy

from ..diffusion import Diffusion, DiffusionConfig
from ..diffusion.denoiser import NEEDS_SIGNAL
from ..distillation import FewStep, FewStepConfig, ReflowConfig
from ..training.loop import Callbacks, RunStore, Trainer, TrainingConfig, TrainingData
from ..training.parallel import SINGLE
from . import folder as runs
from . import records
from .folder import AnyRunConfig, Run
from .reference import REFERENCE
from .settings import Component, optional

SET_HERE = {"student.teacher": "the teacher's run decides it", "student.updates": "training.steps decides it",
            "training.min_episode_start_fraction": "the teacher's run decides it",
            **dict.fromkeys(("training.eval_every", "training.eval_episodes"),
                            "a student is not evaluated while it is trained")}


@dataclass(frozen=True)
class FewStepRunConfig:
    """How a student of few sampling steps learns from a run's diffusion model."""

    student: FewStepConfig = field(default_factory=ReflowConfig)
    value: float = 0.0
    """Weight of the critic's value of the student's plans, in standard deviations of the returns in the data; the
    planner must have been trained with a critic (--valued)."""
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=5_000))
    """The training of the student."""


def distill(teacher: Run, config: FewStepRunConfig, folder: Path, *, env_id: str | None = None, resume: bool = False,
            device: torch.device | None = None, progress: bool = True) -> Run:
    """Trains a student of the diffusion model of `teacher` on its data, as a new run in `folder`.

    A planner's student plans with the teacher's critic, arrival and inverse dynamics, and trusts the same plans; a
    policy's student acts on the teacher's scales. Raises ValueError for a run without a diffusion model, for one that
    predicts noise unless the student is a flow map, for a policy with a critic, for data that were changed since the
    teacher was trained, and for a value without a critic; and what `gentraj.training.Trainer` raises.
    """
    if env_id is not None:
        raise ValueError(f"env_id is {env_id}, and this method learns from data, without an environment; leave it out")
    folder, settings, episodes = folder.absolute(), student_settings(teacher, config), runs.training_data(teacher)
    components = runs.build(settings, teacher.data)
    trained = {name: component for name, component in components.items() if learns(component, teacher.components[name])}
    carried = {name: component.to(device) for name, component in components.items() if name not in trained}
    if config.value:
        cast(FewStep, components["model"]).guide = partial(_value, _critic(teacher, carried), config.value)

    def prepare() -> None:
        runs.write_settings(folder, settings, teacher.data, (teacher.folder / REFERENCE).read_bytes())
        records.record_start(folder, device, resume)

    about = {"teacher": {"step": teacher.step, "dataset_hash": teacher.dataset_hash, "value": config.value}}
    store = RunStore(folder, runs.decisive(settings, teacher.data) | about, frozen=carried)
    Trainer(trained, TrainingData(episodes, settings.context), settings.training, store, Callbacks(on_start=prepare),
            processes=SINGLE.on(device), progress=progress).fit(resume)
    return runs.load(folder, device=device)


def learns(component: Component, teacher: Component) -> bool:
    """Gives a component its teacher's weights, and says whether it, or its model, is a student that learns."""
    if isinstance(component, FewStep):
        component.learn_from(cast(Diffusion, teacher))
        return True
    if isinstance(component, Policy):
        own = {key: tensor for key, tensor in teacher.state_dict().items() if not key.startswith("model.model.")}
        component.load_state_dict(own, strict=False)
        return learns(component.model.model, cast(Policy, teacher).model.model)
    component.load_state_dict(teacher.state_dict())
    return False


def student_settings(teacher: Run, config: FewStepRunConfig) -> AnyRunConfig:
    """The settings of the student's run: the teacher's with another model and another training."""
    generator = teacher.config.generator
    if not isinstance(generator, DiffusionConfig):
        raise ValueError(f"{teacher.description}; a student of few steps learns from a diffusion model or a flow")
    student = replace(config.student, teacher=generator, updates=config.training.steps)
    if (predicted := student.model().prediction) in NEEDS_SIGNAL:
        raise ValueError(f"{teacher.description} that predicts {predicted}, which hardly determines x0 where a student "
                         "starts; take --method mean-flow or shortcut, or train a run with the prediction x0 or v")
    dataset = runs.resolve_paths(teacher.config.dataset, teacher.folder)
    # the windows that the teacher learnt from
    training = replace(config.training,
                       min_episode_start_fraction=teacher.config.training.min_episode_start_fraction)
    return replace(teacher.config.distilled(student), dataset=dataset, training=training)


def _critic(teacher: Run, components: dict[str, Component]) -> PlanCritic:
    if (critic := optional(components, "critic", PlanCritic)) is None:
        raise ValueError(f"value is given, and {teacher.description} without a critic of plans; train one with "
                         "--valued, or set value to 0")
    return critic.requires_grad_(False)


def _value(critic: PlanCritic, weight: float, x_RHD: Tensor) -> Tensor:
    return weight * critic.relative(x_RHD)
