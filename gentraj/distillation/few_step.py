"""`FewStep`: a diffusion model of few sampling steps that learns from a diffusion model of many, its teacher."""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar, Self

import torch
from pydantic import PositiveInt
from torch import Tensor

from ..config import Fraction, settings
from ..diffusion.denoiser import NoiseLevel, denoising_loss
from ..diffusion.diffusion_model import Diffusion, DiffusionConfig
from ..models.conditional import GeneratorConfig, Microbatch
from ..models.conditioning import ConditionMix
from ..networks import NetworkConfig
from ..normalize import Normalizer
from ..randomness import Seeds
from ..training.step import TrainingStep
from ..trajectory import Condition, Guide, SamplingOptions, TrajectorySpec, refuse_options


@settings
class FewStepConfig(GeneratorConfig):
    """What the settings of all students have. A student has its teacher's network, noise path and prediction.

    Raises ValueError for a setting outside its range.
    """

    REMOVED: ClassVar[dict[str, object]] = {"updates": ...}

    teacher: DiffusionConfig = field(default_factory=DiffusionConfig)
    """The settings of the teacher."""
    steps: PositiveInt = 1
    """Number of sampling steps of the student, each of which is one call of its network."""
    learning_rate: Fraction = 3e-4
    """Learning rate of AdamW. The weight decay, the norm of the gradients and the decay of the average of the weights
    are the teacher's."""

    ANY_STEPS: ClassVar[bool] = False
    """Whether the student can be sampled in any number of steps, not only in those that it was trained for."""

    def __post_init__(self) -> None:
        self.model()  # raises ValueError for settings that the student cannot have

    def model(self) -> DiffusionConfig:
        """The settings of the student as a diffusion model, which is sampled by DDIM at even times."""
        return replace(self.teacher, sampler="ddim", steps=self.steps, grid="uniform", eta=None,
                       weight="truncated-snr", learning_rate=self.learning_rate)

    @property
    def network(self) -> NetworkConfig:
        """The settings of the network, which are the teacher's."""
        return self.teacher.network

    @property
    def max_steps(self) -> int | None:
        return self.teacher.max_steps

    def with_network(self, network: object) -> Self:
        """The settings with another network."""
        return replace(self, teacher=self.teacher.with_network(network))


class FewStep(Diffusion):
    """A `Diffusion` model of few sampling steps, trained on targets that its teacher gives.

    A subclass implements `objective`, the loss of its paper. The teacher is a part of the student and is not trained:
    densities and ood scores are the teacher's, so that a planner trusts the plans of either by the same measure.
    """

    def __init__(self, spec: TrajectorySpec, config: FewStepConfig, normalizer: Normalizer,
                 context: Normalizer | None = None, *, conditioning: ConditionMix | None = None,
                 context_dropout: float = FewStepConfig.CONTEXT_DROPOUT, batch_size: int = FewStepConfig.BATCH_SIZE):
        super().__init__(spec, config.model(), normalizer, context, conditioning=conditioning,
                         context_dropout=context_dropout, batch_size=batch_size)
        self.distillation = config
        self.teacher = Diffusion(spec, config.teacher, copied(normalizer), context and copied(context))
        self.teacher.requires_grad_(False)

    @property
    def only_steps(self) -> int | None:
        """The number of sampling steps that the student was trained for; None if it can be sampled in any number."""
        return None if self.distillation.ANY_STEPS else self.config.steps

    def settings(self, options: SamplingOptions) -> DiffusionConfig:
        """As `Diffusion.settings`. Raises ValueError for another number of steps, or a grid, if `only_steps` is set."""
        if (only := self.only_steps) is not None:
            refuse_options(options, f"this student was trained at the times of its {only} sampling steps", "grid")
            if options.steps not in (None, only):
                raise ValueError(f"{options.steps} sampling steps are asked of a student that was trained for {only}; "
                                 f"take {only}, or distil another one of {options.steps} steps")
        return super().settings(options)

    def learn_from(self, teacher: Diffusion) -> None:
        """Takes over the weights and the statistics of a teacher; the student starts from its averaged weights."""
        self.teacher.load_state_dict(teacher.state_dict())
        for own, its in ((self.normalizer, teacher.normalizer), (self.context, teacher.context)):
            if own is not None and its is not None:
                own.load_state_dict(its.state_dict())
        for network in (self.network, self.ema.module):
            network.load_state_dict(teacher.ema.module.state_dict())

    def objective(self, rows: Microbatch) -> Tensor:
        """The scalar loss of the student's network on these windows."""
        raise NotImplementedError

    def update(self, step: TrainingStep, *, guide: Guide | None = None) -> dict[str, Tensor]:
        """One optimiser step on the objective, and on the mean score by a `guide` of samples that are made in one call.
        Returns metrics, scalars."""
        rows = self.microbatch(step)
        loss = self.objective(rows)
        if guide is not None:
            loss = loss - self.own_score(guide, self.one_call(rows), rows, step.batch)
        return self.learn(step, loss, self.config.max_grad_norm)

    def taught(self, x: Tensor, t_R: Tensor, rows: Microbatch) -> Tensor:
        """x0 (R, H, D) as the teacher denoises x (R, H, D), as it is bounded in sampling."""
        return self.teacher.preconditioned(self.teacher.ema.module)(x, t_R, rows)

    def one_call(self, rows: Microbatch) -> Tensor:
        """(R, H, D) a differentiable sample for each condition, from one call of the network, in normalised units."""
        t_R = torch.ones(len(rows.x0), dtype=rows.x0.dtype)
        D = self.preconditioned(self.network, clipped=False)
        return D(self.level(t_R).sigma * rows.normal(), t_R, rows)

    def regression(self, x0: Tensor, x_t: Tensor, t_R: Tensor, rows: Microbatch) -> Tensor:
        """`denoising_loss`, a scalar, for x_t (R, H, D) with this x0 (R, H, D) as target."""
        at = self.level(t_R)
        eps = (x_t - at.alpha * x0) / at.sigma
        return denoising_loss(self.preconditioned(self.network), replace(rows, x0=x0), eps, at, self.config.weight)

    def log_prob(self, x_RHD: Tensor, condition: Condition | None = None, *, seeds: Seeds = 0,
                 exact: bool | None = None, probes: int = 8, steps: int | None = None) -> Tensor:
        """The teacher's log density (R,), see `Diffusion.log_prob`."""
        return self.teacher.log_prob(x_RHD, condition, seeds=seeds, exact=exact, probes=probes, steps=steps)

    def score(self, x_RHD: Tensor, condition: Condition, t: float) -> Tensor:
        """The teacher's score (R, H, D), see `Diffusion.score`: a student predicts no denoised x0."""
        return self.teacher.score(x_RHD, condition, t)

    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Seeds, noise: float = 1.0,
                  noises: int = 2) -> Tensor:
        """The teacher's ood score (R, H), see `Diffusion.ood_score`."""
        before = self.teacher.network_calls
        score_RH = self.teacher.ood_score(x_RHD, condition, seeds, noise, noises)
        self.network_calls += self.teacher.network_calls - before
        return score_RH


def ddim_step(x: Tensor, x0: Tensor, t: NoiseLevel, s: NoiseLevel) -> Tensor:
    """x at the cleaner level s: a step of DDIM from x at level t with this x0."""
    return s.alpha * x0 + s.sigma * (x - t.alpha * x0) / t.sigma


def copied(normalizer: Normalizer) -> Normalizer:
    """A normaliser with tensors of its own, as a checkpoint holds each tensor once."""
    return Normalizer(normalizer.shift_D.clone(), normalizer.scale_D.clone())
