"""Model-predictive control by sampling: sequences of actions are simulated, and averaged by their returns.

The methods are MPPI (Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning",
algorithm 2, without its term for the control cost) and the cross-entropy method (Chua et al. 2018, section 5).
Sequences are sampled around what is left of the previous solution and, with a prior, from a generative model of
the data's actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from einops import rearrange, repeat
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from gentraj.config import settings
from gentraj.models.sampling import without_gradient
from gentraj.randomness import Seeds, as_noise
from gentraj.ranges import DataRanges
from gentraj.trajectory import TrajectorySpec
from gentraj.worlds.model import WorldModel

from .episodic import EpisodicAgent, aimed_at, observed
from .memory import ObservationBuffer

# obs_BO, act_BNTA, goal_BG -> the return of each sequence of actions from these observations, (B, N)
Simulate = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# obs_BO, goal_BG, N, seeds or noise of B rows -> (B, N, K, A) likely actions of the next K steps
Prior = Callable[[Tensor, Tensor | None, int, Seeds], Tensor]


@settings
class MPCConfig:
    """The settings of `MPC`. Raises ValueError for a setting outside its range."""

    method: Literal["mppi", "cem"] = "mppi"
    """How sequences are averaged: MPPI weights all of them by exp((R - max R) / temperature), CEM weights the elites
    equally."""
    horizon: PositiveInt = 32
    """Environment steps that are simulated."""
    samples: PositiveInt = 64
    """Number of sequences that are simulated in each decision, over all iterations."""
    iterations: PositiveInt = 1
    """Number of iterations. Each samples around the solution of the one before, which is its first sample."""
    spread: NonNegativeFloat = 0.3
    """Standard deviation of the normal noise on actions, in units of half their range."""
    temperature: PositiveFloat = 1.0
    """Temperature of MPPI, in units of the return; close to 0, only the best sequence counts."""
    elites: Annotated[float, Gt(0), Le(1)] = 0.1
    """Fraction of the sequences that are the elites of CEM."""
    prior_fraction: Annotated[float, Ge(0), Le(1)] = 0.5
    """Fraction of the first iteration's sequences that are sampled from the prior, if there is one."""

    def __post_init__(self) -> None:
        if self.iterations > self.samples:
            raise ValueError(f"iterations is {self.iterations} and samples {self.samples}; give each iteration at "
                             "least one sample")


class MPC(EpisodicAgent):
    """An `Agent` that carries out the first action of its solution in each step.

    The rest of the solution is where the next step's search starts. Raises ValueError for an unbounded action space.
    """

    def __init__(self, simulate: Simulate, config: MPCConfig, low_A: np.ndarray, high_A: np.ndarray,
                 prior: Prior | None = None, memory: TrajectorySpec | None = None, ranges: DataRanges | None = None):
        """`memory` says what the simulator and the prior are given (`TrajectorySpec.seen`); by default that is the
        present observation alone."""
        self.simulate = simulate
        self.config = config
        self.prior = prior
        self.ranges = ranges
        self.low_A = torch.as_tensor(low_A).float()
        self.high_A = torch.as_tensor(high_A).float()
        if not (torch.isfinite(self.low_A).all() and torch.isfinite(self.high_A).all()):
            raise ValueError("MPC samples actions between bounds, and this action space has none; give it some")
        self.memory = memory or TrajectorySpec(1, len(self.low_A), 1)
        self._begin(0)

    def _allocate(self, batch: int) -> None:
        self.observations = ObservationBuffer(self.memory, self.memory.past, batch)
        self.mean_BTA = torch.empty(batch, self.config.horizon, len(self.low_A))
        self._forget(torch.ones(batch, dtype=torch.bool))

    def _forget(self, mask_B: Tensor) -> None:
        super()._forget(mask_B)
        self.mean_BTA[mask_B] = (self.low_A + self.high_A) / 2

    @without_gradient
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, A) actions inside the action space. Raises ValueError for NaN and infinity in what it is given."""
        obs_BO = observed(obs_BO, known=self.ranges).cpu()
        goal_BG = aimed_at(goal_BG, known=self.ranges)
        if goal_BG is not None:
            goal_BG = goal_BG.cpu()
        all_B = torch.ones(len(obs_BO), dtype=torch.bool)
        seen_BW = self.observations.seen(obs_BO)
        self.mean_BTA = self.solve(seen_BW, goal_BG, self.mean_BTA, self._seeds(all_B))
        act_BA = self.mean_BTA[:, 0].clamp(self.low_A, self.high_A)
        self.mean_BTA = torch.cat([self.mean_BTA[:, 1:], self.mean_BTA[:, -1:]], 1)
        self.decision_B += 1
        self.observations.add(obs_BO, act_BA)
        return act_BA

    @torch.no_grad()
    def solve(self, obs_BO: Tensor, goal_BG: Tensor | None, mean_BTA: Tensor, seeds: Seeds) -> Tensor:
        """(B, T, A) a solution found around `mean_BTA`, which is itself one of the sequences that are simulated.

        Sequences whose return is NaN or minus infinity count for nothing. Raises ValueError where none is left, and for
        returns of another shape.
        """
        config = self.config
        spread_BTA = (config.spread * (self.high_A - self.low_A) / 2).expand(mean_BTA.shape)
        for i in range(config.iterations):
            num = (config.samples + config.iterations - 1 - i) // config.iterations
            noise = as_noise(seeds, len(obs_BO), "observations").anew(i)
            eps_BNTA = noise.normal(num, *mean_BTA.shape[1:])
            eps_BNTA[:, 0] = 0
            act_BNTA = mean_BTA[:, None] + spread_BTA[:, None] * eps_BNTA
            likely = min(round(config.prior_fraction * num), num - 1)  # the first sequence stays
            if self.prior is not None and i == 0 and likely:  # the first actions of the last sequences are the prior's
                likely_BNKA = self.prior(obs_BO, goal_BG, likely + -likely % self.multiple, noise)
                likely_BNKA = likely_BNKA[:, :likely, : config.horizon]
                act_BNTA[:, -likely:, : likely_BNKA.shape[2]] = likely_BNKA.to(act_BNTA)
            act_BNTA = act_BNTA.clamp(self.low_A, self.high_A)
            return_BN = self.simulate(obs_BO, act_BNTA, goal_BG).to(act_BNTA)
            if return_BN.shape != act_BNTA.shape[:2]:
                raise ValueError(f"the simulator gave returns of shape {tuple(return_BN.shape)}; "
                                 f"{tuple(act_BNTA.shape[:2])} is expected, one for each sequence of actions")
            return_BN = torch.where(return_BN.isnan(), -torch.inf, return_BN)
            if not return_BN.amax(1).isfinite().all():
                raise ValueError("the simulator gave a sequence of actions an infinite return, or none a finite one; "
                                 "finite returns are expected")
            mean_BTA, spread_BTA = self._better(act_BNTA, return_BN, spread_BTA)
        return mean_BTA

    def _better(self, act_BNTA: Tensor, return_BN: Tensor, spread_BTA: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted mean of the sequences, and the spread of the next iteration."""
        if self.config.method == "mppi":
            weight_BN = (return_BN / self.config.temperature).softmax(1)
            return (weight_BN[..., None, None] * act_BNTA).sum(1), spread_BTA
        best = return_BN.topk(math.ceil(self.config.elites * return_BN.shape[1]), 1)
        best_BE = torch.where(best.values.isfinite(), best.indices, best.indices[:, :1])
        elite_BETA = act_BNTA[torch.arange(len(best_BE))[:, None], best_BE]
        if elite_BETA.shape[1] > 1:  # a single elite has a spread of 0
            spread_BTA = elite_BETA.std(1, correction=0)
        return elite_BETA.mean(1), spread_BTA


class WorldModelSimulator:
    """A `Simulate` for `MPC` that rolls out sequences of actions in a world model.

    `imagination(obs_BO, act_BNTA, goal_BG)` returns (B, N), the expected sums of rewards until the episode ends. The
    rollouts follow the mean of the world model, without noise.
    """

    def __init__(self, world: WorldModel):
        self.world = world

    @torch.no_grad()
    def __call__(self, obs_BO: Tensor, act_BNTA: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        num = act_BNTA.shape[1]
        goal_RG = None
        if goal_BG is not None and self.world.facts.goal_dim:
            goal_RG = repeat(goal_BG, "b g -> (b n) g", n=num)
        obs_RO, past_RPD = self.world.spec.past_of(repeat(obs_BO, "b o -> (b n) o", n=num))
        rollout = self.world.imagine(obs_RO, rearrange(act_BNTA, "b n t a -> (b n) t a"), goal_RG, past_BPD=past_RPD)
        alive_RT = (1 - rollout.end_BT).cumprod(1)
        before_RT = torch.cat([torch.ones_like(alive_RT[:, :1]), alive_RT[:, :-1]], 1)
        return rearrange((rollout.reward_BT * before_RT).sum(1), "(b n) -> b n", n=num).to(obs_BO.device)
