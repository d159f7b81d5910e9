"""A world model: an ensemble predicts the outcome of actions, and a generative model samples around it.

The outcome of a step is the change of the observation and the reward. An ensemble of perceptrons (Chua et al. 2018;
Janner et al. 2019) predicts mean and spread of the outcomes of K actions; the disagreement of its members is the
uncertainty. A generative model samples the standardised error, (outcome - mean) / spread, whose scale is 1 for any
system. It does so like a policy: each of the K timesteps of its windows has an "observation", the state and the
action, that it is conditioned on, and an "action", the standardised error, that it samples. Without one, errors are
normal.

Shapes beside the legend: K actions of a chunk, T of a sequence, S observation and goal, Y = O + 1 outcome,
X inputs of a timestep (state, action, and whether the action is real), M held-out steps, N bins.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Interval
from einops import rearrange
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import Fraction, settings
from ..device import to_device
from ..diffusion import FlowConfig
from ..families import MODELS, Model, ModelConfig
from ..models.conditioning import ConditionMix
from ..models.sampling import finite
from ..networks import ResidualMLPConfig
from ..networks.embedding import MIN_ROWS, padded
from ..networks.mlp import EnsembleMLP, mlp
from ..normalize import Normalizer
from ..randomness import Noise, RowNoise, Seeds, as_noise
from ..ranges import DataRanges
from ..training.optimization import LearningConfig, adamw, waits_to_read
from ..training.step import TrainingStep
from ..trajectory import (
    DEFAULT_OPTIONS,
    Batch,
    Condition,
    SamplingOptions,
    TrajectorySpec,
    as_tensor,
    calls_of,
    refuse_options,
)
from .facts import INPUT_CLIP, WorldFacts, rewards_and_ends

CALIBRATION_BINS = 16
LOG_SPREAD = -2.5, 3.5  # middle and half width of the range of the log spread, in deviations of the data's outcomes
MIXING_RATE = 0.01  # of the moving average of the covariance of errors
MIN_EIGENVALUE = 1e-4  # of that covariance
GENERATOR = FlowConfig(ResidualMLPConfig(128, 2, frequencies=0), prediction="velocity", clip=5.0, weight_decay=0.0,
                       ema=0.995, steps=3)


@settings
class WorldModelConfig(LearningConfig):
    """Settings of a `WorldModel`.

    Learning rate, weight decay and gradient norm are those of the ensemble and of the network that predicts ends; the
    generator has its own.
    """

    model: ModelConfig | None = field(default_factory=lambda: GENERATOR)
    """Generative model that samples outcomes around the mean of the ensemble; None is a normal distribution."""
    model_batch: PositiveInt = 64
    """Number of windows of a batch that the generative model is trained on; all of them if the batch has fewer."""
    generator_update_prob: Annotated[float, Interval(ge=1e-3, le=1)] = 0.5
    """Fraction of the updates that train the generative model too; a smaller one leaves the ensemble more time."""
    chunk: PositiveInt = 1
    """Largest number of steps that one call predicts."""
    members: PositiveInt = 3
    """Number of perceptrons in the ensemble."""
    width: PositiveInt = 200
    """Width of the hidden layers."""
    depth: PositiveInt = 3
    """Number of hidden layers."""
    batch_size: PositiveInt = 256
    """Number of windows of a batch that the ensemble is trained on."""
    weight_decay: Fraction = 1e-5
    max_grad_norm: PositiveFloat = 10.0


class Calibration(NamedTuple):
    """A monotone map from a raw uncertainty to the root mean square error of held-out data with that uncertainty.

    It is linear between bins.
    """

    uncertainty_N: Tensor
    """The raw uncertainty of each bin, in increasing order."""
    error_N: Tensor
    """The root mean square error of each bin."""

    @classmethod
    def none(cls) -> Calibration:
        """The identity."""
        return cls(torch.zeros(0), torch.zeros(0))

    @classmethod
    def fit(cls, uncertainty_M: Tensor, error_M: Tensor) -> Calibration:
        """Fits the map to uncertainties and errors of held-out data.

        Bins have equal counts, or more where uncertainties are equal. A larger uncertainty never maps to a smaller
        error.
        """
        edges_N = torch.unique(uncertainty_M.sort().values[:: -(-len(uncertainty_M) // CALIBRATION_BINS)])
        bin_M = torch.searchsorted(edges_N, uncertainty_M.contiguous(), right=True) - 1
        uncertainty_N = torch.stack([uncertainty_M[bin_M == n].mean() for n in range(len(edges_N))])
        error_N = torch.stack([(error_M[bin_M == n] ** 2).mean().sqrt() for n in range(len(edges_N))])
        return cls(uncertainty_N, torch.cummax(error_N, 0).values)

    @property
    def largest(self) -> float:
        """The largest error that is expected on data like the held-out ones; infinite for the identity."""
        if not len(self.error_N):
            return float("inf")
        return float(self.error_N[-1])

    def __call__(self, uncertainty: Tensor) -> Tensor:
        """The expected error of each uncertainty. Beyond the last bin it grows in proportion to the uncertainty."""
        if not len(self.uncertainty_N):
            return uncertainty
        uncertainty_N, error_N = self.uncertainty_N.to(uncertainty), self.error_N.to(uncertainty)
        right = torch.searchsorted(uncertainty_N, uncertainty.contiguous()).clamp(1, max(len(uncertainty_N) - 1, 1))
        left = right - 1
        right = right.clamp(max=len(uncertainty_N) - 1)
        fraction = ((uncertainty - uncertainty_N[left])
                    / (uncertainty_N[right] - uncertainty_N[left]).clamp(min=1e-12)).clamp(0, 1)
        inside = torch.lerp(error_N[left], error_N[right], fraction)
        times = (uncertainty / uncertainty_N[-1].clamp(min=1e-12)).clamp(min=1)
        return torch.where(uncertainty > uncertainty_N[-1], error_N[-1] * times, inside)


class Imagined(NamedTuple):
    """The rollout of a world model along T actions. Shapes are (B, T, ...)."""

    obs_BTO: Tensor
    """The observation after each action, in environment units."""
    reward_BT: Tensor
    """The reward of each step."""
    end_BT: Tensor
    """The probability that the step terminates the episode."""
    uncertainty_BT: Tensor
    """The expected error of the step (`Calibration`), in standard deviations of the changes in the data."""


class WorldModel(nn.Module):
    """A `Trainable` model of an environment; `imagine` predicts the outcomes of actions.

    Observations and actions are in environment units. `facts` hold the scales of the data.
    """

    mixing_XX: Tensor
    input_mask_D: Tensor
    """(D,) true for the entries of a timestep that the generative model is conditioned on."""

    def __init__(self, obs_dim: int, act_dim: int, config: WorldModelConfig, facts: WorldFacts,
                 memory: TrajectorySpec | None = None):
        """`memory` says what the model remembers; by default it sees the present observation alone."""
        super().__init__()
        self.config = config
        self.facts = facts
        self.batch_size = config.batch_size
        self.chunk = config.chunk
        self.spec = replace(memory or TrajectorySpec(obs_dim, act_dim, 1), horizon=config.chunk + 1)
        self.state_dim = self.spec.seen_dim + facts.goal_dim
        self.out_dim = obs_dim + 1
        inputs, outputs = self.state_dim + self.chunk * (act_dim + 1), self.chunk * self.out_dim
        self.ensemble = EnsembleMLP([inputs, *[config.width] * config.depth, 2 * outputs], config.members, F.silu)
        self.ends = mlp([self.state_dim + act_dim, config.width, config.width, 1])
        self.register_buffer("mixing_XX", torch.eye(outputs))
        self.window_spec = TrajectorySpec(self.state_dim + act_dim + 1, self.out_dim, self.chunk)
        input_mask_D = torch.arange(self.window_spec.dim) < self.window_spec.obs_dim
        self.register_buffer("input_mask_D", input_mask_D, persistent=False)
        self.model: Model | None = None
        if config.model is not None:
            self.model = MODELS.made_of(config.model)(
                self.window_spec, config.model, Normalizer.identity(self.window_spec.dim), None,
                conditioning=ConditionMix(start=0, goal=0, observations=1), batch_size=config.model_batch)
        self.scale = 1.0  # of the model's samples
        self.calibration, self.options = Calibration.none(), DEFAULT_OPTIONS
        self.act_ranges: DataRanges | None = None  # from the calibration on

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.facts.obs.shift_D.device

    @property
    def network_calls(self) -> int:
        """Network calls of the generative model so far (`calls_of`)."""
        return calls_of([self.model])

    def optimizers(self) -> dict[str, Optimizer]:
        optimizers = {"ensemble": adamw(self.ensemble, self.config), "ends": adamw(self.ends, self.config)}
        if self.model is not None:
            optimizers |= self.model.optimizers()
        return optimizers

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        """Updates the ensemble, the network of ends, and in some updates the model; returns metrics, scalars.

        Raises ValueError for windows of another layout than the model's.
        """
        batch, generator = step.batch, step.generator
        self.spec.check_windows(batch.x_BHD.shape)
        obs_BHO, act_BHA = self.spec.split(batch.x_BHD)
        real_BK = batch.mask_BHD[:, 1:, 0]
        first_B = to_device(torch.rand(len(real_BK), 1, generator=generator), real_BK.device) * self.chunk
        # Chunks are shortened at random, since a rollout may ask for fewer steps than a chunk has.
        real_BK = real_BK & (torch.arange(self.chunk, device=real_BK.device) <= first_B)
        state_BS = self.facts.state(obs_BHO[:, 0], batch.context_BC, self.spec, batch.past_BPD)
        input_BKX = self._inputs(state_BS, act_BHA[:, :-1], real_BK)
        reward_BK, ended_BK = rewards_and_ends(batch)
        outcome_BKY = self.facts.normalize_outcome(obs_BHO, reward_BK)
        mean_BKY, spread_BKY, metrics = self._update_ensemble(input_BKX, outcome_BKY, real_BK, step)
        logit_BK = self._end_logit(obs_BHO[:, 1:], input_BKX)
        loss_BK = F.binary_cross_entropy_with_logits(logit_BK, ended_BK.to(obs_BHO), reduction="none")
        end_loss = (loss_BK * real_BK).sum() / real_BK.sum().clamp(min=1)
        step.descend(end_loss, "ends", self.config.max_grad_norm)
        metrics["end_loss"] = end_loss.detach()
        if self.model is not None:
            error_BKY = (outcome_BKY - mean_BKY) / spread_BKY
            whole_B = real_BK.all(1)
            error_BX = error_BKY.flatten(1).to(self.mixing_XX.dtype)
            count = whole_B.sum().to(error_BX)
            # Only whole chunks count. How many there are would have to be waited for; the others are set to 0 instead.
            if waits_to_read(whole_B):
                error_BX = torch.where(whole_B[:, None], error_BX, 0)
            else:
                error_BX = error_BX[whole_B]
            with torch.autocast(error_BX.device.type, enabled=False):
                covariance_XX = error_BX.T @ error_BX / count.clamp(min=1)
                self.mixing_XX.lerp_(covariance_XX, MIXING_RATE * (count > 0).to(self.mixing_XX))
            if torch.rand((), generator=generator) < self.config.generator_update_prob:
                error_XB = rearrange(error_BKY * real_BK[..., None], "b k y -> (k y) b")
                # The correlations of errors within a chunk are removed; a timestep depends on earlier ones only.
                z_XB = torch.linalg.solve_triangular(self._covariance_root, error_XB, upper=False)
                x_BKD = torch.cat([input_BKX, rearrange(z_XB, "(k y) b -> b k y", k=self.chunk)], -1)
                mask_BKD = real_BK[..., None] | self.input_mask_D
                size = self.model.batch_size
                losses = self.model.update(step.on(Batch(x_BKD[:size], mask_BKD[:size])))
                metrics |= {f"model_{key}": value for key, value in losses.items()}
        return metrics

    def _update_ensemble(self, input_BKX: Tensor, outcome_BKY: Tensor, real_BK: Tensor,
                         step: TrainingStep) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Updates the ensemble by the negative log likelihood times the spread (Seitzer et al. 2022, beta = 0.5).

        The weight lets entries with much noise and entries with little learn equally fast. Each member is trained on
        its own Poisson bootstrap of the batch. Returns the mean and the spread before the update, and metrics.
        """
        mean_EBKY, spread_EBKY = self._predict(input_BKX)
        count_BE = torch.poisson(torch.ones(len(real_BK), len(mean_EBKY)), generator=step.generator)
        count_BE = to_device(count_BE, real_BK.device)
        weight_EBKY = count_BE.T[..., None, None] * real_BK[..., None]
        error_EBKY = (mean_EBKY - outcome_BKY) / spread_EBKY
        nll_EBKY = (error_EBKY**2 / 2 + spread_EBKY.log()) * spread_EBKY.detach()
        count = real_BK.sum().clamp(min=1)
        loss = (nll_EBKY * weight_EBKY).sum(0).sum() / count / self.out_dim
        step.descend(loss, "ensemble", self.config.max_grad_norm)
        mean_BKY, spread_BKY = _mixture(mean_EBKY.detach(), spread_EBKY.detach())
        error = (((mean_BKY - outcome_BKY) ** 2).mean(-1) * real_BK).sum() / count
        return mean_BKY, spread_BKY, {"loss": loss.detach(), "error": error.sqrt()}

    @property
    def _covariance_root(self) -> Tensor:
        """(K * Y, K * Y) the Cholesky factor of the covariance of the errors of a chunk."""
        identity_XX = torch.eye(len(self.mixing_XX), device=self.device)
        return torch.linalg.cholesky_ex(self.mixing_XX + MIN_EIGENVALUE * identity_XX).L  # whose check would wait

    def _inputs(self, state_BS: Tensor, act_BKA: Tensor, real_BK: Tensor) -> Tensor:
        """(B, K, X): the state, each action (0 for padding), and whether the action is real; normalised."""
        real_BK1 = real_BK[..., None].to(act_BKA)
        act_BKA = self.facts.act.normalize(act_BKA) * real_BK1
        return torch.cat([state_BS[:, None].expand(-1, self.chunk, -1), act_BKA, real_BK1], -1)

    def _predict(self, input_BKX: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised means and spreads (E, B, K, Y) of the members."""
        flat_BI = torch.cat([input_BKX[:, 0, : self.state_dim], input_BKX[..., self.state_dim :].flatten(1)], -1)
        mean, raw = rearrange(self.ensemble(flat_BI), "e b (two k y) -> two e b k y", two=2, k=self.chunk)
        middle, half = LOG_SPREAD
        return mean, (middle + half * torch.tanh(raw)).exp()

    def _end_logit(self, next_BKO: Tensor, input_BKX: Tensor) -> Tensor:
        goal_act_BKX = input_BKX[..., self.spec.obs_dim : -1]
        next_BKO = self.facts.obs.normalize(next_BKO).clamp(-INPUT_CLIP, INPUT_CLIP)
        return self.ends(torch.cat([next_BKO, goal_act_BKX], -1))[..., 0]

    @torch.no_grad()
    def imagine(self, obs_BO: Tensor, act_BTA: Tensor, goal_BG: Tensor | None = None, *, seeds: Seeds | None = None,
                temperature: float = 1.0, real_BT: Tensor | None = None, past_BPD: Tensor | None = None) -> Imagined:
        """Predicts the outcomes of T actions from the observations, all in environment units, K steps a call.

        Arrays are taken as tensors.

        Each rollout depends on its own seed or noise only; without seeds it is the mean, as with a `temperature` of 0,
        which scales the noise. `real_BT` is false where an action is padding, and the outcomes of padding have no
        meaning. `past_BPD` are the steps before the observations that a model with a history remembers; None is the
        beginning of an episode. A rollout does not stop at an end of the episode: `Imagined.end_BT` gives its
        probability. Warns, once, of actions far from the data; those on an accelerator are not compared, as that would
        wait for it. Raises ValueError for arguments of the wrong shape, and where there are no observations or no
        actions.
        """
        obs_BO, act_BTA = as_tensor(obs_BO, "observation"), as_tensor(act_BTA, "action")
        if goal_BG is not None:
            goal_BG = torch.as_tensor(goal_BG)
        if past_BPD is not None:
            past_BPD = torch.as_tensor(past_BPD)
        real_BT = torch.ones(act_BTA.shape[:2]) if real_BT is None else torch.as_tensor(real_BT)
        given = [tuple(x.shape) for x in (obs_BO, act_BTA, real_BT)]
        goal_shape = (len(obs_BO), 0) if goal_BG is None else tuple(goal_BG.shape)
        B, T = len(obs_BO), real_BT.shape[-1]
        expected = [(B, self.spec.obs_dim), (B, T, self.spec.act_dim), (B, T)]
        if given != expected or goal_shape != (B, self.facts.goal_dim) or B * T == 0:
            raise ValueError(f"observations, actions and real_BT of shapes {given}, and goals of shape {goal_shape}, "
                             f"were given; {expected} and {(B, self.facts.goal_dim)} are expected, with at least one "
                             "row and one step")
        if act_BTA.is_cpu and self.act_ranges is not None and not self.act_ranges.hold(act_BTA):
            act_RA = finite(act_BTA[real_BT > 0], "the actions to imagine are", "; give finite numbers")
            if not self.act_ranges.hold(act_RA):
                self.act_ranges.tell(act_RA, "action")
        past_shape = B, self.spec.past, self.spec.dim
        if past_BPD is not None and past_BPD.shape != past_shape:
            raise ValueError(f"the steps before the observations, of shape {tuple(past_BPD.shape)}, were given; "
                             f"{past_shape}, as many as the model remembers, is expected")

        def ready(x: Tensor) -> Tensor:
            return padded(to_device(x.to(torch.float32), self.device))

        number = len(obs_BO)
        obs_RO = ready(obs_BO)
        act_RTA = ready(act_BTA)
        real_RT = ready(real_BT) > 0
        goal_RG = None if goal_BG is None else ready(goal_BG)
        past_RPD = self.spec.beginning(obs_RO) if past_BPD is None else ready(past_BPD)
        parts: list[Imagined] = []
        noise = None
        if seeds is not None and temperature:
            noise = as_noise(seeds, number, "rollouts").padded(-number % MIN_ROWS)
        for t in range(0, act_BTA.shape[1], self.chunk):
            own = noise.anew(t) if noise is not None and t else noise
            now = slice(t, t + self.chunk)
            state_RS = self.facts.state(obs_RO, goal_RG, self.spec, past_RPD)
            parts.append(self._imagine_chunk(obs_RO, state_RS, act_RTA[:, now], real_RT[:, now], own, temperature))
            obs_RJO = torch.cat([obs_RO[:, None], parts[-1].obs_BTO], 1)
            obs_RO = obs_RJO[:, -1]
            if self.spec.past:
                x_RJD = self.spec.join(obs_RJO[:, :-1], act_RTA[:, now])
                past_RPD = torch.cat([past_RPD, x_RJD], 1)[:, -self.spec.past :]
        made = Imagined(*(torch.cat(field, 1)[:number] for field in zip(*parts, strict=True)))
        if noise is not None and self.model is not None:  # whose samples were not looked at
            finite(torch.cat([made.obs_BTO.flatten(1), made.reward_BT], 1), "what is imagined is", "; the observations "
                   "or actions may be too far from the data, or the model's weights are not finite")
        return made

    def _imagine_chunk(self, obs_RO: Tensor, state_RS: Tensor, act_RJA: Tensor, real_RJ: Tensor, noise: Noise | None,
                       temperature: float) -> Imagined:
        """The outcomes of J <= K steps; without noise, the mean."""
        J, missing = act_RJA.shape[1], self.chunk - act_RJA.shape[1]
        input_RKX = self._inputs(state_RS, F.pad(act_RJA, (0, 0, 0, missing)), F.pad(real_RJ, (0, missing)))
        mean_ERKY, spread_ERKY = self._predict(input_RKX)
        mean_RKY, spread_RKY = _mixture(mean_ERKY, spread_ERKY)
        outcome_RKY = mean_RKY
        if noise is not None:
            outcome_RKY = mean_RKY + spread_RKY * self._sample_errors(input_RKX, noise, temperature)
        next_RKO, reward_RK = self.facts.unnormalize_outcome(obs_RO, outcome_RKY)
        disagreement_ERK = ((mean_ERKY - mean_RKY)[..., :-1] ** 2).mean(-1)
        uncertainty_RK = self.calibration(disagreement_ERK.mean(0).sqrt())
        end_RK = 1 / (1 + (-self._end_logit(next_RKO, input_RKX)).exp())
        return Imagined(*(x[:, :J] for x in (next_RKO, reward_RK, end_RK, uncertainty_RK)))

    def _sample_errors(self, input_RKX: Tensor, noise: Noise, temperature: float) -> Tensor:
        """(R, K, Y) standardised errors of mean 0 and scale 1."""
        if self.model is None:
            return to_device(noise.scaled(temperature, self.chunk, self.out_dim), self.device)
        error_RKY = self.scale * self._sample_model(self.model, input_RKX, noise, temperature)
        return (error_RKY.flatten(1) @ self._covariance_root.T).view_as(error_RKY)

    def _sample_model(self, model: Model, input_RKX: Tensor, noise: Noise, temperature: float) -> Tensor:
        """(R, K, Y) samples of the model, which are errors without their correlations."""
        x_RKD = torch.cat([input_RKX, input_RKX.new_zeros(len(input_RKX), self.chunk, self.out_dim)], -1)
        condition = Condition(self.window_spec, x_RKD, self.input_mask_D.expand_as(x_RKD), checked=False)
        options = replace(self.options, temperature=temperature)
        return model.sample(condition, seed=noise, options=options)[:, 0, :, self.window_spec.obs_dim :]

    @torch.no_grad()
    def calibrate(self, reference: Batch, options: SamplingOptions = DEFAULT_OPTIONS) -> None:
        """Calibrates the uncertainty on windows of held-out data, and sets the `options` that the model samples by.

        From then on `Imagined.uncertainty_BT` is an expected error, and actions are compared with the data's. Samples
        of the model are scaled to the variance of the errors in the data, because a sampler of few steps falls short of
        it. Raises ValueError for sampling options where there is no model.
        """
        if self.model is None:
            refuse_options(options, "an ensemble has no sampler, grid or eta")
        self.options = options
        obs_BHO, act_BHA = self.spec.split(reference.x_BHD)
        real_BK, self.calibration = reference.mask_BHD[:, 1:, 0], Calibration.none()
        if self.model is not None:
            state_BS = self.facts.state(obs_BHO[:, 0], reference.context_BC, self.spec, reference.past_BPD)
            input_BKX = self._inputs(state_BS, act_BHA[:, :-1], real_BK)
            sample_MY = self._sample_model(self.model, input_BKX, RowNoise(range(len(input_BKX))), 1.0)[real_BK]
            self.scale = float(1 / (sample_MY**2).mean().sqrt().clamp(min=1e-3))
        mean = self.imagine(obs_BHO[:, 0], act_BHA[:, :-1], reference.context_BC, real_BT=real_BK,
                            past_BPD=reference.past_BPD)
        error_BKO = (mean.obs_BTO - obs_BHO[:, 1:]) / self.facts.step_scale
        self.calibration = Calibration.fit(mean.uncertainty_BT[real_BK], (error_BKO**2).mean(-1).sqrt()[real_BK])
        act = self.facts.act
        low_A, high_A = (act.shift_D - act.scale_D).cpu(), (act.shift_D + act.scale_D).cpu()
        self.act_ranges = DataRanges(low_A, high_A, names=self.spec.act_names)


def _mixture(mean_EBKY: Tensor, spread_EBKY: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the members' means, and the root mean square of their spreads, without their disagreement."""
    return mean_EBKY.mean(0), (spread_EBKY**2).mean(0).sqrt()
