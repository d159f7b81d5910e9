"""Model-predictive control by sampling: action sequences are tried in a simulator, and the better ones count more.

MPPI (Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning", algorithm 2, without its
term for the control's own cost) and the cross-entropy method (Chua et al. 2018, section 5). What is tried is drawn
around what is left of the previous solution, and, with a prior, by a generator: what is likely in the data is worth
more tries than noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gentraj.config import require, require_choice
from gentraj.randomness import RowNoise, fold
from gentraj.worlds.model import WorldModel

from .episodes import Playing

# obs_BO, act_BNTA, goal_BG -> what each sequence of actions earns from there, (B, N)
Simulate = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# obs_BO, goal_BG, N, seeds -> (B, N, K, A) likely actions of the next K steps
Prior = Callable[[Tensor, Tensor | None, int, Sequence[int]], Tensor]


@dataclass(frozen=True)
class MPCConfig:
    method: Literal["mppi", "cem"] = "mppi"
    """Weights exp((R - max R) / temperature) for all sequences, or equal ones for the elite."""
    horizon: int = 32
    """Steps that are simulated."""
    samples: int = 64
    """Sequences that are simulated for a decision, in all iterations together."""
    iterations: int = 1
    """Rounds in which the samples are drawn, each around the solution of the one before, which is its first sample."""
    spread: float = 0.3
    """Standard deviation of the normal draws, in halves of the range of actions."""
    temperature: float = 1.0
    """Of MPPI, in units of the return: close to 0 the best sequence alone counts."""
    elites: float = 0.1
    """Of CEM: the share of the sequences that counts."""
    drawn: float = 0.5
    """Share of the first iteration's sequences that come from the prior, where there is one."""

    def unused(self) -> dict[str, str]:
        return ({"elites": "the method is mppi"} if self.method == "mppi" else {"temperature": "the method is cem"})

    def __post_init__(self) -> None:
        require_choice(self, method=("mppi", "cem"))
        require(self, horizon=(1, 1e6), samples=(1, 1e9), iterations=(1, self.samples), spread=(0, 1e3),
                temperature=(1e-9, math.inf), elites=(1e-9, 1), drawn=(0, 1))


class MPC(Playing):
    """An `Agent`: simulates, acts by the first action of the solution, shifts it by a step, and starts from there."""

    def __init__(self, simulate: Simulate, config: MPCConfig, low_A: np.ndarray, high_A: np.ndarray,
                 prior: Prior | None = None):
        self.simulate, self.config, self.prior = simulate, config, prior
        self.low_A, self.high_A = torch.as_tensor(low_A).float(), torch.as_tensor(high_A).float()
        if not (torch.isfinite(self.low_A).all() and torch.isfinite(self.high_A).all()):
            raise ValueError("MPC draws actions between bounds, and this action space has none; bound it")
        self._begin(0)

    def _allocate(self, batch: int) -> None:
        self.mean_BTA = torch.empty(batch, self.config.horizon, len(self.low_A))
        self._forget(torch.ones(batch, dtype=torch.bool))

    def _forget(self, mask_B: Tensor) -> None:
        self.mean_BTA[mask_B] = (self.low_A + self.high_A) / 2

    @torch.no_grad()
    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A) inside the action space."""
        self._play(len(obs_BO))
        everyone_B = torch.ones(len(obs_BO), dtype=torch.bool)
        self.mean_BTA = self.solve(obs_BO, goal_BG, self.mean_BTA, self._seeds(everyone_B))
        act_BA = self.mean_BTA[:, 0]
        self.mean_BTA = torch.cat([self.mean_BTA[:, 1:], self.mean_BTA[:, -1:]], 1)
        self.decision_B += 1
        return act_BA.clamp(self.low_A, self.high_A)

    @torch.no_grad()
    def solve(self, obs_BO: Tensor, goal_BG: Tensor | None, mean_BTA: Tensor, seeds: Sequence[int]) -> Tensor:
        """(B, T, A) a better sequence of actions than `mean_BTA`, which is one of those that are tried."""
        config = self.config
        spread_BTA = (config.spread * (self.high_A - self.low_A) / 2).expand(mean_BTA.shape)
        for i in range(config.iterations):
            num = (config.samples + config.iterations - 1 - i) // config.iterations
            again = [fold(seed, i) for seed in seeds]
            eps_BNTA = RowNoise(again).normal(num, *mean_BTA.shape[1:])
            eps_BNTA[:, 0] = 0
            act_BNTA = mean_BTA[:, None] + spread_BTA[:, None] * eps_BNTA
            if self.prior is not None and i == 0:
                act_BNTA = self._with_prior(act_BNTA, self.prior, obs_BO, goal_BG, again)
            act_BNTA = act_BNTA.clamp(self.low_A, self.high_A)
            return_BN = self.simulate(obs_BO, act_BNTA, goal_BG)
            mean_BTA, spread_BTA = self._better(act_BNTA, return_BN, spread_BTA)
        return mean_BTA

    def _with_prior(self, act_BNTA: Tensor, prior: Prior, obs_BO: Tensor, goal_BG: Tensor | None,
                    seeds: Sequence[int]) -> Tensor:
        """The last of the sequences begin with what the prior draws; after its K steps they go on as they were."""
        num = min(round(self.config.drawn * act_BNTA.shape[1]), act_BNTA.shape[1] - 1)  # the first stays
        if num:
            likely_BNKA = prior(obs_BO, goal_BG, num, seeds)[:, :, : self.config.horizon].to(act_BNTA)
            act_BNTA[:, -num:, : likely_BNKA.shape[2]] = likely_BNKA
        return act_BNTA

    def _better(self, act_BNTA: Tensor, return_BN: Tensor, spread_BTA: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the sequences that count, and what to spread the next ones by."""
        if self.config.method == "mppi":
            weight_BN = (return_BN / self.config.temperature).softmax(1)
            return (weight_BN[..., None, None] * act_BNTA).sum(1), spread_BTA
        best_BE = return_BN.topk(math.ceil(self.config.elites * return_BN.shape[1]), 1).indices
        elite_BETA = act_BNTA[torch.arange(len(best_BE))[:, None], best_BE]
        alone = elite_BETA.shape[1] == 1  # it has no spread, and the next ones would all be it
        return elite_BETA.mean(1), spread_BTA if alone else elite_BETA.std(1, correction=0)


class Imagination:
    """Action sequences tried in a world model: a `Simulate` for `MPC`.

    `imagination(obs_BO, act_BNTA, goal_BG)` -> (B, N): the rewards that are expected until the episode ends.

    The mean is imagined, without noise.
    """

    def __init__(self, world: WorldModel):
        self.world = world

    @torch.no_grad()
    def __call__(self, obs_BO: Tensor, act_BNTA: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        num = act_BNTA.shape[1]
        goal_RG = None if goal_BG is None or not self.world.facts.goal_dim else goal_BG.repeat_interleave(num, 0)
        made = self.world.imagine(obs_BO.repeat_interleave(num, 0), act_BNTA.flatten(0, 1), goal_RG,
                                  seeds=[0] * (len(obs_BO) * num), temperature=0.0)
        alive_RT = (1 - made.end_BT).cumprod(1)
        before_RT = torch.cat([torch.ones_like(alive_RT[:, :1]), alive_RT[:, :-1]], 1)
        return (made.reward_BT * before_RT).sum(1).view(act_BNTA.shape[:2]).to(obs_BO.device)
