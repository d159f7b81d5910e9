"""What a world model keeps of its data: the scales and bounds of the data, and where episodes start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..data import ContextConfig, Episodes, Windows
from ..data.windows import context_rows, fit_contexts
from ..normalize import Normalizer
from ..trajectory import Batch, TrajectorySpec

STARTS = 1024  # observations kept for each kind of start: the first of an episode, and any
FEWEST_STARTS = 32  # with fewer episodes than these, starts are sampled from all observations
FITTED_WINDOWS = 16_384  # sampled to fit the scales of changes and rewards
INPUT_CLIP = 10.0  # standard deviations at which inputs are clipped
CONSTANT_ACTION_SCALE = 1e30  # scale of an action that never varies in the data: of other values nothing was learned


class WorldFacts(nn.Module):
    """The scales, starts and bounds of a world model's data.

    The normalisers are of observations (gaussian), actions (limits), goals, and `happened`: the changes of the
    observation and the rewards of the K steps of a chunk. An action that never varies in the data is normalised to 0
    whatever it is, and thus has no effect.
    """

    starts_NS: Tensor
    anywhere_NS: Tensor
    low_O: Tensor
    high_O: Tensor

    def __init__(self, obs: Normalizer, act: Normalizer, goal: Normalizer | None, happened: Normalizer,
                 starts_NS: Tensor, anywhere_NS: Tensor, low_O: Tensor, high_O: Tensor):
        """Each row of `starts_NS` and `anywhere_NS` is an observation followed by its goal, and by the steps before it
        that the model remembers, in environment units."""
        super().__init__()
        self.obs = obs
        self.act = act
        self.goal = goal
        self.happened = happened
        for name, value in (("starts_NS", starts_NS), ("anywhere_NS", anywhere_NS), ("low_O", low_O),
                            ("high_O", high_O)):
            self.register_buffer(name, value.float())

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, goal_dim: int, chunk: int, past: int = 0) -> WorldFacts:
        """Facts of the right shapes, to load saved ones into; the model remembers `past` steps."""
        identity, zeros = Normalizer.identity, torch.zeros
        start_NS = zeros(STARTS, obs_dim + goal_dim + past * (obs_dim + act_dim))
        return cls(identity(obs_dim), identity(act_dim), identity(goal_dim) if goal_dim else None,
                   identity(chunk * (obs_dim + 1)), start_NS, start_NS.clone(), zeros(obs_dim), zeros(obs_dim))

    @classmethod
    def fit(cls, episodes: Episodes, contexts: ContextConfig, chunk: int,
            memory: TrajectorySpec | None = None) -> WorldFacts:
        """Computes the facts of `episodes` for a model of chunks of `chunk` steps, which remembers what `memory` says.

        Raises `DataError` for data without goals where `contexts` asks for them.
        """
        goal = fit_contexts(episodes, contexts)
        spec = replace(memory or TrajectorySpec(episodes.obs_dim, episodes.act_dim, 1), horizon=chunk + 1)
        windows = Windows(episodes, spec, contexts)
        batch = windows.batch(0, 0, FITTED_WINDOWS)
        outcome_BKY = _join_outcome(spec.split(batch.x_BHD)[0], rewards_and_ends(batch)[0])
        real_KB = batch.mask_BHD[:, 1:, 0].T
        happened_KNY = [outcome_BKY[real_B, k] if real_B.any() else torch.zeros_like(outcome_BKY[:1, k])
                        for k, real_B in enumerate(real_KB)]  # of the windows that have each step
        happened = Normalizer.fit("gaussian", [happened_NY.numpy() for happened_NY in happened_KNY])
        rng, rows = np.random.default_rng(0), context_rows(episodes, contexts)
        anywhere_N = rng.integers(episodes.num_steps, size=STARTS)  # the last observation of an episode is no start
        start_N = anywhere_N
        if len(episodes) >= FEWEST_STARTS:
            start_N = np.resize(rng.permutation(episodes.starts), STARTS)
        starts = []
        for step_N in (start_N, anywhere_N):
            at = windows.at(step_N)
            parts = [episodes.obs[at.row_B]]
            if rows is not None:
                parts.append(rows(at.row_B, at.row_B))
            starts.append(np.concatenate([*parts, windows.past(at).reshape(STARTS, -1)], 1))
        act = Normalizer.fit("limits", [episodes.act])
        act.scale_D[torch.from_numpy(episodes.act.min(0) == episodes.act.max(0))] = CONSTANT_ACTION_SCALE
        return cls(Normalizer.fit("gaussian", [episodes.obs]), act, goal, happened,
                   *map(torch.from_numpy, (*starts, episodes.obs.min(0), episodes.obs.max(0))))

    @property
    def goal_dim(self) -> int:
        return 0 if self.goal is None else len(self.goal.shift_D)

    @property
    def act_limits(self) -> tuple[Tensor, Tensor]:
        """(A,), (A,) the lowest and the highest actions of the data; for an entry that never varies, its value minus 1
        and plus 1."""
        half_A = torch.where(self.act.scale_D < CONSTANT_ACTION_SCALE, self.act.scale_D, 1)
        return self.act.shift_D - half_A, self.act.shift_D + half_A

    @property
    def step_scale(self) -> Tensor:
        """(O,) the standard deviation of the change of the observation in one step."""
        return self.happened.scale_D[: len(self.low_O)]

    def state(self, obs_BO: Tensor, goal_BG: Tensor | None, spec: TrajectorySpec, past_BPD: Tensor | None) -> Tensor:
        """(B, S): what a model of this layout sees, and goals, normalised and clipped. The steps before the
        observations are `past_BPD`; None is the beginning of an episode."""
        parts = [self.obs.normalize(obs_BO)]
        if spec.past:
            past_obs, past_act = spec.split(spec.beginning(obs_BO) if past_BPD is None else past_BPD)
            past_BPD = spec.join(self.obs.normalize(past_obs), self.act.normalize(past_act))
            parts = [spec.seen(parts[0], past_BPD)]
        if self.goal is not None and goal_BG is not None:
            parts.append(self.goal.normalize(goal_BG))
        return torch.cat(parts, -1).clamp(-INPUT_CLIP, INPUT_CLIP)

    def normalize_outcome(self, obs_BHO: Tensor, reward_BK: Tensor) -> Tensor:
        """(B, K, Y): the change of the observation since the first one and the reward of each step, normalised."""
        outcome_BKY = _join_outcome(obs_BHO, reward_BK)
        return self.happened.normalize(outcome_BKY.flatten(1)).view_as(outcome_BKY)

    def unnormalize_outcome(self, obs_BO: Tensor, outcome_BKY: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse: observations (B, K, O) and rewards (B, K). Entries that are constant in the data stay so."""
        outcome_BKY = self.happened.unnormalize(outcome_BKY.flatten(1)).view_as(outcome_BKY)
        varies_O = self.high_O > self.low_O
        return obs_BO[:, None] + outcome_BKY[..., :-1] * varies_O, outcome_BKY[..., -1]


def rewards_and_ends(batch: Batch) -> tuple[Tensor, Tensor]:
    """The rewards (B, K) of the K steps of each window, and whether a step terminated its episode (B, K).

    Raises ValueError for a batch that does not have them.
    """
    if batch.reward_BH is None or batch.terminal_BH is None:
        raise ValueError("a world model needs the rewards and ends of episodes, which this batch lacks; take it from "
                         "Windows")
    return batch.reward_BH[:, :-1], batch.terminal_BH[:, 1:]


def _join_outcome(obs_BHO: Tensor, reward_BK: Tensor) -> Tensor:
    return torch.cat([obs_BHO[:, 1:] - obs_BHO[:, :1], reward_BK[..., None]], -1)
