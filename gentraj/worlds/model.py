"""A world model: what comes of actions, drawn by a generator of trajectories around what an ensemble expects.

The ensemble (Chua et al. 2018; Janner et al. 2019) says the mean and the spread of what K actions change and earn, and,
by how far its members are apart, how little it knows. A generator draws (what happens - mean) / spread, which has size
1 whatever is modelled: its windows have K rows whose "observation" (the state and the action of that row) is known and
whose "action" (the change and the reward) is drawn, as a policy's are. Without one, draws are normal.

Shapes beside the legend: K actions of a chunk, T of a sequence, S observation and goal, Y = O + 1 change and reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import require
from ..diffusion import FlowConfig
from ..families import MODELS, Model, ModelConfig
from ..models.conditioning import ConditionMix
from ..models.one_step import SEARCH
from ..networks import ResidualMLPConfig
from ..networks.mlp import EnsembleMLP, mlp
from ..networks.rows import padded, padding
from ..normalize import Normalizer
from ..randomness import RowNoise, fold
from ..training.optimization import BATCH, LEARNING, adamw, apply_gradients
from ..trajectory import DEFAULT_OPTIONS, Batch, Condition, SamplingOptions, TrajectorySpec
from .calibration import Calibration
from .facts import WorldFacts

FAR = 10.0  # deviations: an entry further out says no more than that
LOG_SPREAD = -2.5, 3.5  # middle and half width of the log spread, in deviations of what the data's changes have
MIXING_RATE = 0.01  # of the averages of how errors go together
FLOOR = 1e-4  # of their eigenvalues
GENERATOR = FlowConfig(ResidualMLPConfig(128, 2, frequencies=0), prediction="velocity", clip=5.0, weight_decay=0.0,
                       ema=0.995, steps=3)


@dataclass(frozen=True)
class WorldModelConfig:
    model: ModelConfig | None = field(default_factory=lambda: GENERATOR)
    """Draws what happens around the ensemble's mean; None draws from a normal distribution: the ensemble alone."""
    model_batch: int = 64
    """Windows of a batch that the generator learns from."""
    learns: float = 0.5
    """Share of the updates in which the generator learns too: for the time that it takes the ensemble learns more."""
    chunk: int = 1
    """Steps that are predicted by one call, at most."""
    members: int = 3
    """Perceptrons of the ensemble."""
    width: int = 200
    depth: int = 3
    """Hidden layers."""
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    max_grad_norm: float = 10.0

    def unused(self) -> dict[str, str]:
        if self.model is None:
            return dict.fromkeys(("learns", "model_batch"), "there is no generator beside the ensemble")
        return {f"model.{key}": "nothing guides what happens" for key in SEARCH if hasattr(self.model, key)}

    def __post_init__(self) -> None:
        require(self, learns=(1e-3, 1), chunk=(1, 1e4), members=(1, 1000), width=(1, 1e5), depth=(1, 100),
                model_batch=(1, 1e9), **LEARNING, **BATCH)


class Imagined(NamedTuple):
    """What comes of T actions."""

    obs_BTO: Tensor
    """After each action, environment units."""
    reward_BT: Tensor
    end_BT: Tensor
    """The probability that this step ends the episode for good."""
    uncertainty_BT: Tensor
    """The error to be expected of a step, in deviations of the data's changes (`Calibration`)."""


class WorldModel(nn.Module):
    """`Trainable`. `imagine` says what comes of actions."""

    mixing_XX: Tensor

    def __init__(self, obs_dim: int, act_dim: int, config: WorldModelConfig, facts: WorldFacts):
        super().__init__()
        self.config, self.facts, self.batch_size, self.chunk = config, facts, config.batch_size, config.chunk
        self.spec = TrajectorySpec(obs_dim, act_dim, config.chunk + 1)
        self.state_dim, self.out_dim = obs_dim + facts.goal_dim, obs_dim + 1
        inputs, outputs = self.state_dim + self.chunk * (act_dim + 1), self.chunk * self.out_dim
        self.ensemble = EnsembleMLP([inputs, *[config.width] * config.depth, 2 * outputs], config.members, F.silu)
        self.ends = mlp([self.state_dim + act_dim, config.width, config.width, 1])
        self.register_buffer("mixing_XX", torch.eye(outputs))
        self.window_spec = TrajectorySpec(self.state_dim + act_dim + 1, self.out_dim, self.chunk)
        self.model: Model | None = None
        if config.model is not None:
            self.model = MODELS.made_of(config.model)(
                self.window_spec, config.model, Normalizer.identity(self.window_spec.dim), None,
                mix=ConditionMix(start=0, goal=0, observations=1), batch_size=config.model_batch)
        self.scale = 1.0  # of the generator's draws
        self.calibration, self.options = Calibration.none(), DEFAULT_OPTIONS

    @property
    def device(self) -> torch.device:
        return self.facts.obs.shift_D.device

    @property
    def network_calls(self) -> int:
        return 0 if self.model is None else self.model.network_calls

    def optimizers(self) -> dict[str, Optimizer]:
        own = {name: adamw(cast(nn.Module, getattr(self, name)), self.config)["network"]
               for name in ("ensemble", "ends")}
        return own if self.model is None else own | self.model.optimizers()

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        obs_BHO, act_BHA = self.spec.split(batch.x_BHD)
        real_BK = batch.mask_BHD[:, 1:, 0]
        first_B = torch.rand(len(real_BK), 1, generator=generator).to(real_BK.device) * self.chunk
        real_BK = real_BK & (torch.arange(self.chunk, device=real_BK.device) <= first_B)  # it may be asked for fewer
        known_BKX = self._known(obs_BHO[:, 0], act_BHA[:, :-1], batch.context_BC, real_BK)
        happened_BKY = self.facts.scaled(obs_BHO, cast(Tensor, batch.reward_BH)[:, :-1])
        mean_BKY, spread_BKY, metrics = self._update_mean(known_BKX, happened_BKY, real_BK, optimizers, generator)
        metrics |= self._update_ends(obs_BHO[:, 1:], known_BKX, batch, real_BK, optimizers["ends"])
        if self.model is not None:
            self._update_mixing(error_BKY := (happened_BKY - mean_BKY) / spread_BKY, real_BK)
            if torch.rand((), generator=generator) < self.config.learns:
                x_BKD = torch.cat([known_BKX, self._apart(error_BKY * real_BK[..., None])], -1)
                some = Batch(*(of[: self.model.batch_size] for of in (x_BKD, real_BK[..., None] | self._given)))
                drawn = self.model.update(some, optimizers, generator)
                metrics |= {f"generator_{key}": value for key, value in drawn.items()}
        return metrics

    def _update_mean(self, known_BKX: Tensor, happened_BKY: Tensor, real_BK: Tensor, optimizers: dict[str, Optimizer],
                     generator: torch.Generator) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Likelihood times the spread (Seitzer et al. 2022, with beta 0.5): what is noisy is learnt as fast, and what
        hardly varies no faster. Each member sees its own resampling of the batch."""
        mean_EBKY, spread_EBKY = self._expect(known_BKX)
        often_EB = torch.poisson(torch.ones(len(mean_EBKY), len(real_BK)), generator=generator).to(real_BK.device)
        weight_EBKY = often_EB[..., None, None] * real_BK[..., None]
        error_EBKY = (mean_EBKY - happened_BKY) / spread_EBKY
        nll_EBKY = (error_EBKY**2 / 2 + spread_EBKY.log()) * spread_EBKY.detach()
        loss = (nll_EBKY * weight_EBKY).sum(0).sum() / real_BK.sum().clamp(min=1) / self.out_dim
        apply_gradients(loss, optimizers["ensemble"], self.config.max_grad_norm)
        mean_BKY, spread_BKY = _mixture(mean_EBKY.detach(), spread_EBKY.detach())
        error = (((mean_BKY - happened_BKY) ** 2).mean(-1) * real_BK).sum() / real_BK.sum().clamp(min=1)
        return mean_BKY, spread_BKY, {"loss": loss.detach(), "error": error.sqrt()}

    def _update_ends(self, next_BKO: Tensor, known_BKX: Tensor, batch: Batch, real_BK: Tensor,
                     optimizer: Optimizer) -> dict[str, Tensor]:
        ended_BK = cast(Tensor, batch.terminal_BH)[:, 1:].to(next_BKO)
        loss_BK = F.binary_cross_entropy_with_logits(self._end_logit(next_BKO, known_BKX), ended_BK, reduction="none")
        loss = (loss_BK * real_BK).sum() / real_BK.sum().clamp(min=1)
        apply_gradients(loss, optimizer, self.config.max_grad_norm)
        return {"end_loss": loss.detach()}

    def _update_mixing(self, error_BKY: Tensor, real_BK: Tensor) -> None:
        """An average of how the errors of whole chunks go together."""
        error_WX = error_BKY[real_BK.all(1)].flatten(1).float()
        if len(error_WX):
            with torch.autocast(error_WX.device.type, enabled=False):
                self.mixing_XX.lerp_(error_WX.T @ error_WX / len(error_WX), MIXING_RATE)

    def _apart(self, error_BKY: Tensor) -> Tensor:
        """Errors that go together (time first) -> numbers that do not; a row depends on no later one."""
        return torch.linalg.solve_triangular(self._root, error_BKY.flatten(1).T, upper=False).T.view_as(error_BKY)

    @property
    def _root(self) -> Tensor:
        """(X, X) lower triangle whose square is how errors go together."""
        return torch.linalg.cholesky(self.mixing_XX + FLOOR * torch.eye(len(self.mixing_XX), device=self.device))

    def _known(self, obs_BO: Tensor, act_BKA: Tensor, goal_BG: Tensor | None, real_BK: Tensor) -> Tensor:
        """(B, K, X) the state, each action, 0 where there is none, and whether there is one: all normalised."""
        state_BS = self.facts.state(obs_BO, goal_BG).clamp(-FAR, FAR)
        real_BK1 = real_BK[..., None].to(act_BKA)
        act_BKA = self.facts.act.normalize(act_BKA) * real_BK1
        return torch.cat([state_BS[:, None].expand(-1, self.chunk, -1), act_BKA, real_BK1], -1)

    @property
    def _given(self) -> Tensor:
        """(D,) true for the entries of a generator's row that are known."""
        return torch.arange(self.window_spec.dim, device=self.device) < self.window_spec.obs_dim

    def _expect(self, known_BKX: Tensor) -> tuple[Tensor, Tensor]:
        """(E, B, K, Y) means and spreads, normalised."""
        flat_BI = torch.cat([known_BKX[:, 0, : self.state_dim], known_BKX[..., self.state_dim :].flatten(1)], -1)
        mean, raw = self.ensemble(flat_BI).unflatten(-1, (2, self.chunk, self.out_dim)).unbind(-3)
        middle, half = LOG_SPREAD
        return mean, (middle + half * torch.tanh(raw)).exp()

    def _end_logit(self, next_BKO: Tensor, known_BKX: Tensor) -> Tensor:
        goal_act_BKX = known_BKX[..., self.spec.obs_dim : -1]
        return self.ends(torch.cat([self.facts.obs.normalize(next_BKO).clamp(-FAR, FAR), goal_act_BKX], -1))[..., 0]

    @torch.no_grad()
    def imagine(self, obs_BO: Tensor, act_BTA: Tensor, goal_BG: Tensor | None = None, *, seeds: Sequence[int],
                temperature: float = 1.0, real_BT: Tensor | None = None) -> Imagined:
        """What comes of the actions (environment units), K of them a call; a row depends on its own seed only.

        `temperature` scales the noise; 0 gives the mean. `real_BT` is false where an action is padding, after which
        nothing is to be read. Nothing ends it: see `end_BT`. Raises ValueError for what is of another shape, and where
        there is nothing to imagine.
        """
        self._check(obs_BO, act_BTA, goal_BG)
        if len(seeds) != len(obs_BO):
            raise ValueError(f"{len(seeds)} seeds were given for {len(obs_BO)} observations; give one each")
        ready = lambda x: padded(x.to(self.device, torch.float32))  # noqa: E731
        number, obs_RO, act_RTA = len(obs_BO), ready(obs_BO), ready(act_BTA)
        real_RT = ready(torch.ones(act_BTA.shape[:2]) if real_BT is None else real_BT) > 0
        goal_RG, parts = None if goal_BG is None else ready(goal_BG), []
        seeds = [*seeds, *[0] * padding(number)]
        for t in range(0, act_BTA.shape[1], self.chunk):
            again = [fold(seed, t) for seed in seeds] if t and temperature else seeds
            now = slice(t, t + self.chunk)
            parts.append(self._chunk(obs_RO, act_RTA[:, now], real_RT[:, now], goal_RG, again, temperature))
            obs_RO = parts[-1].obs_BTO[:, -1]
        return Imagined(*(torch.cat(of, 1)[:number] for of in zip(*parts, strict=True)))

    def _chunk(self, obs_RO: Tensor, act_RJA: Tensor, real_RJ: Tensor, goal_RG: Tensor | None, seeds: Sequence[int],
               temperature: float) -> Imagined:
        """J <= K steps."""
        J, missing = act_RJA.shape[1], self.chunk - act_RJA.shape[1]
        known_RKX = self._known(obs_RO, F.pad(act_RJA, (0, 0, 0, missing)), goal_RG, F.pad(real_RJ, (0, missing)))
        mean_ERKY, spread_ERKY = self._expect(known_RKX)
        mean_RKY, spread_RKY = _mixture(mean_ERKY, spread_ERKY)
        happened_RKY = mean_RKY + spread_RKY * self._draw(known_RKX, seeds, temperature)
        next_RKO, reward_RK = self.facts.unscaled(obs_RO, happened_RKY)
        apart_ERK = ((mean_ERKY - mean_RKY)[..., :-1] ** 2).mean(-1)
        uncertainty_RK = self.calibration(apart_ERK.mean(0).sqrt())
        end_RK = 1 / (1 + (-self._end_logit(next_RKO, known_RKX)).exp())
        return Imagined(*(x[:, :J] for x in (next_RKO, reward_RK, end_RK, uncertainty_RK)))

    def _draw(self, known_RKX: Tensor, seeds: Sequence[int], temperature: float) -> Tensor:
        """(R, K, Y) of size 1 and mean 0, which is all of it without noise."""
        shape = self.chunk, self.out_dim
        if temperature == 0:
            return known_RKX.new_zeros(len(known_RKX), *shape)
        if self.model is None:
            return temperature * RowNoise(seeds, self.device).normal(*shape)
        drawn_RKY = self.scale * self._generate(self.model, known_RKX, seeds, temperature)
        return (drawn_RKY.flatten(1) @ self._root.T).view_as(drawn_RKY)

    def _generate(self, model: Model, known_RKX: Tensor, seeds: Sequence[int], temperature: float) -> Tensor:
        """(R, K, Y) as the generator draws them: what goes together is still apart."""
        x_RKD = torch.cat([known_RKX, known_RKX.new_zeros(len(known_RKX), self.chunk, self.out_dim)], -1)
        condition = Condition(self.window_spec, x_RKD, self._given.expand_as(x_RKD))
        options = replace(self.options, temperature=temperature)
        return model.sample(condition, seed=seeds, options=options)[:, 0, :, self.window_spec.obs_dim :]

    @torch.no_grad()
    def calibrate(self, reference: Batch, options: SamplingOptions = DEFAULT_OPTIONS) -> None:
        """From now on `uncertainty_BT` is what an error is expected to be, by windows that it was not trained on.

        And the generator samples by these `options`, its draws as wide as what was learnt: a sampler of few steps
        falls short of it, so that a width belongs to a sampler. Raises ValueError for options that it cannot follow.
        """
        if self.model is None and options.changed():
            raise ValueError("an ensemble has no sampler, grid or eta; leave them out")
        self.options = options
        obs_BHO, act_BHA = self.spec.split(reference.x_BHD)
        real_BK, self.calibration = reference.mask_BHD[:, 1:, 0], Calibration.none()
        if self.model is not None:
            known_BKX = self._known(obs_BHO[:, 0], act_BHA[:, :-1], reference.context_BC, real_BK)
            drawn_BKY = self._generate(self.model, known_BKX, range(len(known_BKX)), 1.0)[real_BK]
            self.scale = float(1 / (drawn_BKY**2).mean().sqrt().clamp(min=1e-3))
        made = self.imagine(obs_BHO[:, 0], act_BHA[:, :-1], reference.context_BC, seeds=[0] * len(obs_BHO),
                            temperature=0.0, real_BT=real_BK)
        wrong_BKO = (made.obs_BTO - obs_BHO[:, 1:]) / self.facts.step_scale
        self.calibration = Calibration.fit(made.uncertainty_BT[real_BK], (wrong_BKO**2).mean(-1).sqrt()[real_BK])

    def _check(self, obs_BO: Tensor, act_BTA: Tensor, goal_BG: Tensor | None) -> None:
        B, T = max(len(obs_BO), 1), max(act_BTA.shape[1], 1) if act_BTA.ndim > 1 else 1
        goal_BG = obs_BO.new_zeros(B, 0) if goal_BG is None else goal_BG
        expected = {"observations": (obs_BO, (B, self.spec.obs_dim)), "actions": (act_BTA, (B, T, self.spec.act_dim)),
                    "goals": (goal_BG, (B, self.facts.goal_dim))}
        for name, (given, shape) in expected.items():
            if given.shape != shape:
                raise ValueError(f"{name} of shape {tuple(given.shape)} were given; {shape} is expected")


def _mixture(mean_EBKY: Tensor, spread_EBKY: Tensor) -> tuple[Tensor, Tensor]:
    """The members' mean, and the spread that they expect of what happens; how far they are apart is no noise."""
    return mean_EBKY.mean(0), (spread_EBKY**2).mean(0).sqrt()
