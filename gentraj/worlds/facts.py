"""What a world model keeps of its data: scales, where episodes start, and how far the data reach."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..data import ContextConfig, Episodes, Windows
from ..data.context import context_rows, fit_contexts
from ..normalize import Normalizer
from ..trajectory import TrajectorySpec

STARTS = 1024  # observations that episodes may start from: those of the data's episodes, and any
FEW = 32  # of fewer episodes nothing is said by where they started
WINDOWS = 16_384  # give the scales of what happens


class WorldFacts(nn.Module):
    """Scales of observations (gaussian), actions (limits), goals, what K steps change and earn; and the starts."""

    starts_NS: Tensor
    anywhere_NS: Tensor
    low_O: Tensor
    high_O: Tensor

    def __init__(self, obs: Normalizer, act: Normalizer, goal: Normalizer | None, happened: Normalizer,
                 starts_NS: Tensor, anywhere_NS: Tensor, low_O: Tensor, high_O: Tensor):
        """Starts are observations and goals side by side, environment units."""
        super().__init__()
        self.obs, self.act, self.goal, self.happened = obs, act, goal, happened
        for name, value in (("starts_NS", starts_NS), ("anywhere_NS", anywhere_NS), ("low_O", low_O),
                            ("high_O", high_O)):
            self.register_buffer(name, value.float())

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, goal_dim: int, chunk: int) -> WorldFacts:
        """With room to load saved ones into."""
        identity, zeros = Normalizer.identity, torch.zeros
        return cls(identity(obs_dim), identity(act_dim), identity(goal_dim) if goal_dim else None,
                   identity(chunk * (obs_dim + 1)), zeros(STARTS, obs_dim + goal_dim),
                   zeros(STARTS, obs_dim + goal_dim), zeros(obs_dim), zeros(obs_dim))

    @classmethod
    def fit(cls, episodes: Episodes, contexts: ContextConfig, chunk: int) -> WorldFacts:
        """Raises `DataError` for data that lack a goal where a model is conditioned on one."""
        goal = fit_contexts(episodes, contexts)
        spec = TrajectorySpec(episodes.obs_dim, episodes.act_dim, chunk + 1)
        batch = Windows(episodes, spec, contexts).batch(0, 0, WINDOWS)
        whole_B = batch.mask_BHD[:, -1, 0]
        whole_B = whole_B if whole_B.any() else torch.ones_like(whole_B)
        obs_BHO, reward_BH = spec.split(batch.x_BHD)[0][whole_B], batch.reward_BH[whole_B]  # pyright: ignore
        happened = Normalizer.fit("gaussian", [_happened(obs_BHO, reward_BH[:, :-1]).flatten(1).numpy()])
        rng, rows = np.random.default_rng(0), context_rows(episodes, contexts)
        first = episodes.starts + np.arange(len(episodes))
        step_N = rng.integers(episodes.num_steps, size=STARTS)  # where an episode ended is no start
        anywhere_N = step_N + np.searchsorted(np.cumsum(episodes.lengths), step_N, side="right")
        start_N = np.resize(rng.permutation(first), STARTS) if len(first) >= FEW else anywhere_N
        beside = lambda row_N: ([] if rows is None else [rows(row_N, row_N)])  # noqa: E731
        starts = [np.concatenate([episodes.obs[row_N], *beside(row_N)], 1) for row_N in (start_N, anywhere_N)]
        return cls(Normalizer.fit("gaussian", [episodes.obs]), Normalizer.fit("limits", [episodes.act]), goal, happened,
                   *map(torch.from_numpy, (*starts, episodes.obs.min(0), episodes.obs.max(0))))

    @property
    def goal_dim(self) -> int:
        return self.starts_NS.shape[1] - len(self.low_O)

    @property
    def step_scale(self) -> Tensor:
        """(O,) the deviation of what one step changes."""
        return self.happened.scale_D[: len(self.low_O)]

    def state(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, S) normalised."""
        parts = [self.obs.normalize(obs_BO)]
        return torch.cat(parts if self.goal is None or goal_BG is None else [*parts, self.goal.normalize(goal_BG)], -1)

    def scaled(self, obs_BHO: Tensor, reward_BK: Tensor) -> Tensor:
        """(B, K, Y) what has changed since the first row and what each step earned, normalised."""
        happened_BKY = _happened(obs_BHO, reward_BK)
        return self.happened.normalize(happened_BKY.flatten(1)).view_as(happened_BKY)

    def unscaled(self, obs_BO: Tensor, happened_BKY: Tensor) -> tuple[Tensor, Tensor]:
        """The observations (B, K, O), in which what never varied in the data stays, and rewards (B, K)."""
        happened_BKY = self.happened.unnormalize(happened_BKY.flatten(1)).view_as(happened_BKY)
        varies_O = self.high_O > self.low_O
        return obs_BO[:, None] + happened_BKY[..., :-1] * varies_O, happened_BKY[..., -1]


def _happened(obs_BHO: Tensor, reward_BK: Tensor) -> Tensor:
    return torch.cat([obs_BHO[:, 1:] - obs_BHO[:, :1], reward_BK[..., None]], -1)
