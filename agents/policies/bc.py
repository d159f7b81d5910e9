"""Behaviour cloning with any generative model: L(theta) is the model's own loss of the data's actions.

Diffusion of chunks of actions is Diffusion Policy (Chi et al. 2023, arXiv 2303.04137). Where the policy has goals, a
diffusion model may be guided to them: a ~ D(a | s) + w (D(a | s, g) - D(a | s)) with D its denoiser, which for w > 1
improves on the data (CFGRL: Frans et al. 2025, arXiv 2505.23458). Chunks that are made while another one is carried out
continue it: a ~ p(. | s, a_1 .. a_L), with L drawn from 0 to `max_delay` in training (Black et al. 2025, arXiv
2512.05964).
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar

from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from gentraj.config import Fraction, settings
from gentraj.diffusion.guidance import ClassifierFree
from gentraj.families import DIFFUSION, FLOW, GAN, GAUSSIAN, REGRESSION, ModelConfig
from gentraj.networks.perceptron import PerceptronConfig
from gentraj.randomness import Seeds
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions

from .policy import POLICIES, PRESETS, ActionModel, Policy, PolicyConfig
from .scales import StateActionScales


@settings
class BCConfig(PolicyConfig):
    """The settings of `BC`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: DIFFUSION)
    """The generative model of actions."""
    temperature: NonNegativeFloat = 1.0
    """Scale of the noise that an action is sampled from, multiplied by the temperature of the sampling options."""

    max_delay: NonNegativeInt = 0
    """The largest delay, in environment steps, that the policy learns to act with. Up to this many first actions of a
    chunk are known in training, as those are that are carried out while a chunk is made (training-time real-time
    chunking). With 0, a chunk that takes longer than the deadline does not continue these actions."""

    context_dropout: Fraction = 0.0
    """Fraction of the actions that the model learns without the goal; guidance needs about 0.1."""
    guidance: NonNegativeFloat = 1.0
    """Scale of classifier-free guidance towards the goal: 1 imitates what the data do on the way to it, and more
    exaggerates how this differs from what they do on the way to any goal."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "temperature", "guidance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance != 1 and (self.model.DIRECT or not self.context_dropout):
            raise ValueError(f"BCConfig.guidance is {self.guidance:g}, which needs a model that denoises and learns "
                             "actions without the goal too; take a diffusion model with a context_dropout of 0.1")
        if self.max_delay >= self.chunk:
            raise ValueError(f"BCConfig.max_delay is {self.max_delay}; a number below chunk, {self.chunk}, is expected")
        network = getattr(self.model, "network", None)
        if self.max_delay and isinstance(network, PerceptronConfig) and network.fixed_mask:
            raise ValueError(f"BCConfig.max_delay is {self.max_delay}, and the network is not told which actions are "
                             "known; set model.network.fixed_mask to false")


class BC(Policy[BCConfig]):
    """Behaviour cloning: a generative model of actions given the state, from which actions are sampled."""

    def __init__(self, config: BCConfig, scales: StateActionScales):
        super().__init__(config, scales)
        if not config.context_dropout:
            self.model = self.build_model(config.model)
            return
        if not scales.context_dim:
            raise ValueError(f"policy.context_dropout is {config.context_dropout:g}, and there is no goal to drop; "
                             "leave policy.context_dropout out, or draw goals by context.goals=hindsight")
        spec = replace(self.window_spec, obs_dim=scales.obs_dim)
        self.model = ActionModel(spec, config.model, scales.context_dim, config.context_dropout, config.max_delay)

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        return self.model.update(self.transition(step.batch, 1.0).for_actor(), step)

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        return self.sample_after(None, state_BS, seeds, options)

    def sample_after(self, first_BLA: Tensor | None, state_BS: Tensor, seeds: Seeds,
                     options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        guide = ClassifierFree(self.config.guidance) if self.config.guidance != 1 else None
        return self.model.sample(state_BS, seeds, options, guide=guide, first_BLA=first_BLA)[:, 0]


POLICIES["bc"] = BCConfig, BC
PRESETS["bc-gaussian"] = "behaviour cloning by a normal distribution", BCConfig(GAUSSIAN)
PRESETS["bc-mip"] = "behaviour cloning by regression in two steps, without noise", BCConfig(REGRESSION, temperature=0.0)
PRESETS["bc-diffusion"] = "behaviour cloning by a diffusion model", BCConfig(DIFFUSION)
PRESETS["bc-flow"] = "behaviour cloning by a rectified flow", BCConfig(FLOW)
PRESETS["bc-gan"] = "behaviour cloning by a conditional GAN, with one network call per action", BCConfig(GAN)
PRESETS["diffusion-policy"] = ("behaviour cloning of chunks of actions by a diffusion model",
                               BCConfig(DIFFUSION, chunk=8, execute=4))
