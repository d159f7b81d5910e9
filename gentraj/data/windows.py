"""`Windows`: batches of windows, gathered from memory by index; each batch is a pure function of (seed, step).

A context is a vector that a model is conditioned on, such as a return, a goal or a task, by classifier-free guidance.
Contexts are computed once from the data and looked up for each window; those that the data hold are not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from ..config import Fraction, settings
from ..normalize import Normalizer
from ..trajectory import Batch, TrajectorySpec
from .episodes import DataError, Episodes, locate
from .goals import HindsightConfig, without_goals

FITTED_ROWS = 100_000  # observations at most that the statistics of contexts are computed from
MAX_TASKS = 1024  # a larger task number is a mistake, such as an episode's number
Kind = Literal["return", "goal", "task"]

Rows = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps the rows of `obs` (B,) with the first and the last real observation of windows to contexts (B, W) float32."""


@settings
class GoalContext:
    """The goals that a run learns to reach."""

    goals: HindsightConfig | None = field(default=None, kw_only=True)
    """Goals that are drawn from the data in hindsight, with rewards of their own: `--context.goals hindsight`. None
    takes those that the data record."""


@settings
class ContextConfig(GoalContext):
    """The contexts that a model is conditioned on, concatenated in this order, in environment units.

    Raises ValueError for a setting outside its range.
    """

    kinds: tuple[Kind, ...] = ()
    """return: the discounted sum of rewards from the window's start on; goal: a goal in hindsight, the episode's goal
    where the data have one, or else the observation at the window's end; task: the task's number, one-hot."""
    discount: Fraction = 0.99
    """Discount factor of the rewards in a return, per environment step."""


def context_width(episodes: Episodes, config: ContextConfig) -> int:
    """C, the width of `context_BC` for these data; 0 without contexts. Raises `DataError` as `context_rows` does."""
    first = np.zeros(1, dtype=np.int64)
    rows = context_rows(episodes, config)
    return 0 if rows is None else rows(first, first).shape[1]


def context_rows(episodes: Episodes, config: ContextConfig) -> Rows | None:
    """The look-up of the concatenated contexts of `config`, or None where it has none.

    Raises `DataError` for data that lack what a context needs.
    """
    if config.goals is not None:
        episodes = without_goals(episodes)
    parts = [CONTEXTS[kind](episodes, config) for kind in config.kinds]
    if not parts:
        return None
    return lambda first_B, last_B: np.concatenate([rows(first_B, last_B) for rows in parts], axis=1)


def fit_contexts(episodes: Episodes, config: ContextConfig) -> Normalizer | None:
    """The normaliser that gives the contexts of these data mean 0 and standard deviation 1; None without contexts.

    Raises `DataError` for data that lack what a context needs.
    """
    if (rows := context_rows(episodes, config)) is None:
        return None
    some = np.unique(np.linspace(0, len(episodes.obs) - 1, FITTED_ROWS).astype(np.int64))
    return Normalizer.fit("gaussian", [rows(some, some)])


def window_ends(e: Episodes, config: ContextConfig) -> np.ndarray:
    """The steps, in increasing order, that windows end before: one past the last step of each episode, and each step at
    which the recorded goal or the task changes, if windows are conditioned on it."""
    ends, last_E = np.cumsum(e.lengths), np.cumsum(e.lengths + 1) - 1  # the latter are rows of `obs`
    for kind in {"goal", "task"} & {*config.kinds} & e.extras.keys():
        row_R = 1 + np.flatnonzero((e.extras[kind][1:] != e.extras[kind][:-1]).any(1))
        ends = np.union1d(ends, row_R - np.searchsorted(last_E, row_R))
    return ends


def return_quantile(episodes: Episodes, config: ContextConfig, quantile: float) -> float:
    """A quantile, 0 to 1, of the discounted returns of the episodes, each from its first observation.

    The returns-to-go of later observations can be much higher, such as those of a robot that already runs. No agent
    attains them from a start, and a model that is conditioned on them there has seen nothing like it.
    """
    first_E = episodes.starts + np.arange(len(episodes))  # rows of `obs`
    return float(np.quantile(_return(episodes, config)(first_E, first_E), quantile))


def _return(e: Episodes, config: ContextConfig) -> Rows:
    """The return-to-go G_t = r_t + discount * G_(t+1), and 0 after the last step, also of a truncated episode.

    This is the return-to-go of Decision Transformer (Chen et al. 2021, section 3), discounted as Diffuser's values are.
    """
    from scipy.signal import lfilter  # takes a third of a second to import

    to_go_N1 = np.zeros((len(e.obs), 1), np.float32)
    for row, start, T in zip(e.starts + np.arange(len(e)), e.starts, e.lengths, strict=True):
        backwards = e.reward[start : start + T][::-1].astype(np.float64)
        to_go_N1[row : row + T, 0] = lfilter([1.0], [1.0, -config.discount], backwards)[::-1]
    return lambda first_B, last_B: to_go_N1[first_B]


def _goal(e: Episodes, config: ContextConfig) -> Rows:
    """The goal at the window's start where the data have goals, else the observation at the window's end, or the one
    that was drawn in hindsight in its place."""
    if "goal" in e.extras:
        goal_NG = e.extras["goal"]
        return lambda first_B, last_B: goal_NG[first_B]
    if not e.goal_dims:
        raise DataError(f"{e.name}: the context 'goal' needs extras['goal'], or goal_dims that say which entries of an "
                        "observation a goal gives values for; this dataset has neither")
    obs_NO, dims = e.obs, list(e.goal_dims)
    return lambda first_B, last_B: obs_NO[last_B][:, dims]


def _task(e: Episodes, config: ContextConfig) -> Rows:
    """The task at the window's start, one-hot; the width is the largest task number in the data plus one."""
    if "task" not in e.extras:
        raise DataError(f"{e.name}: the context 'task' needs extras['task'], the task's number for each observation; "
                        "this dataset has none")
    task_N1 = e.extras["task"]
    wrong = (task_N1 != np.round(task_N1)) | (task_N1 < 0) | (task_N1 >= MAX_TASKS)
    if task_N1.shape[1] != 1 or wrong.any():
        row = int(np.argmax(wrong.any(1)))
        raise DataError(f"{locate(e, row, 'task')}: task is {task_N1[row]}; one whole number from 0 to {MAX_TASKS - 1} "
                        "is expected")
    task_K = np.arange(int(task_N1.max()) + 1)
    return lambda first_B, last_B: (task_N1[first_B] == task_K).astype(np.float32)


CONTEXTS: dict[str, Callable[[Episodes, ContextConfig], Rows]] = {"return": _return, "goal": _goal, "task": _task}
"""The contexts by their names: functions of episodes and settings that return a function `Rows`."""


@dataclass(frozen=True)
class WindowStarts:
    """The steps that windows start at, in the flat arrays, and where these are."""

    step_B: np.ndarray
    episode_B: np.ndarray
    part_B: np.ndarray
    """The parts of episodes that the windows lie in, each with one goal."""
    end_B1: np.ndarray
    """One past the last steps of these parts."""

    @property
    def row_B(self) -> np.ndarray:
        """The rows of `obs` that these steps begin with. Each episode has one observation more than steps."""
        return self.step_B + self.episode_B


EARLY_STEPS = 32  # steps at the start of an episode that are early


class Windows:
    """All windows of a dataset: every step of every episode starts one window, padded past the episode's end.

    Timestep h of a window that starts at step t holds the observation and the action of step t + spec.times[h]. An
    episode's last observation has no action, so that action is padding, too. Padding holds zeros and is masked. The
    reward of a timestep is the sum over the `spec.stride` environment steps that it stands for. `contexts` are the
    vectors `context_BC` of each batch, by default none. A window that is conditioned on a recorded goal ends where that
    changes, and `episode_B` then numbers the parts of an episode with one goal. `batch` draws all steps equally often.
    If too few of them are among the first `EARLY_STEPS` steps of an episode, it then moves windows to these steps of
    their episode, so that at least a fraction `early` of the windows of real episodes starts there.

    Raises ValueError for data whose observations or actions have another width than `spec`, and for contexts with goals
    in hindsight, of which `HindsightWindows` are windows.
    """

    def __init__(self, episodes: Episodes, spec: TrajectorySpec, contexts: ContextConfig | None = None,
                 early: float = 0.0):
        for key, width, data_width in (("obs_dim", spec.obs_dim, episodes.obs_dim),
                                       ("act_dim", spec.act_dim, episodes.act_dim)):
            if width not in (data_width, 0):
                raise ValueError(f"{key} is {width} in the model and {data_width} in {episodes.name}; train on data of "
                                 "the model's environment")
        self.episodes, self.spec = episodes, spec
        self.moved = _moved(episodes.lengths[episodes.is_real], early)  # synthetic branches start anywhere
        self.ends = np.cumsum(episodes.lengths)  # (E,) one past the last step of each episode
        self.times_H = np.array(spec.times)
        self.steps_L = np.arange(spec.horizon * spec.stride)  # all environment steps of a window
        entry_D = np.arange(spec.dim)  # masks of padding, of the last observation of an episode, of others
        self.masks_3D = np.stack([entry_D < 0, entry_D < spec.obs_dim, entry_D < spec.dim])
        contexts = contexts or ContextConfig()
        if contexts.goals is not None:
            raise ValueError("Windows have goals as the data record them, and these contexts have goals in hindsight; "
                             "use gentraj.data.windows_of, which gives HindsightWindows")
        self.context_rows = context_rows(episodes, contexts)
        self.window_ends = window_ends(episodes, contexts)

    def __len__(self) -> int:
        return self.episodes.num_steps

    def batch(self, step: int, seed: int, size: int = 64) -> Batch:
        """The windows of one training step, with replacement; the same for the same (step, seed, size)."""
        return self.gather(self._drawn(np.random.default_rng([seed, step]), size))

    def _drawn(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """(B,) the steps that windows start at."""
        starts_B = rng.integers(0, len(self), size)
        if self.moved:
            episode_B = self._episode(starts_B)
            step_B = rng.integers(np.minimum(self.episodes.lengths, EARLY_STEPS)[episode_B])
            starts_B = np.where(rng.random(size) < self.moved, self.episodes.starts[episode_B] + step_B, starts_B)
        return starts_B

    def gather(self, starts_B: np.ndarray) -> Batch:
        """The windows that start at these steps (B,) of the flat arrays."""
        at = self.at(starts_B)
        reward_BL = self.episodes.reward.take(starts_B[:, None] + self.steps_L, mode="clip")
        reward_BH, terminal_BH = self._until(at, at.end_B1, self.episodes.terminated[at.end_B1 - 1], reward_BL)
        context_BC = None
        if self.context_rows is not None:
            context_BC = self.context_rows(at.row_B, self._last(at))
        return self._windows(at, context_BC, reward_BH, terminal_BH)

    def at(self, starts_B: np.ndarray) -> WindowStarts:
        """Where these steps (B,) are."""
        part_B = np.searchsorted(self.window_ends, starts_B, side="right")
        return WindowStarts(starts_B, self._episode(starts_B), part_B, self.window_ends[part_B][:, None])

    def _windows(self, at: WindowStarts, context_BC: np.ndarray | None, reward_BH: np.ndarray, terminal_BH: np.ndarray,
                 goal_BG: np.ndarray | None = None) -> Batch:
        """The windows that start at these steps, with these contexts, rewards, ends and goals."""
        t_BH = at.step_B[:, None] + self.times_H
        real_act_BH, real_obs_BH = t_BH < at.end_B1, t_BH <= at.end_B1
        x_BHD = _rows(self.episodes.obs, t_BH + at.episode_B[:, None], real_obs_BH)
        if self.spec.act_dim:
            x_BHD = torch.cat([x_BHD, _rows(self.episodes.act, t_BH, real_act_BH)], -1)
        mask_BHD = self.masks_3D.take(real_obs_BH.astype(np.intp) + real_act_BH, 0)
        arrays = {"mask_BHD": mask_BHD, "context_BC": context_BC, "reward_BH": reward_BH, "terminal_BH": terminal_BH,
                  "episode_B": at.part_B, "goal_BG": goal_BG}
        if (imagined := self.episodes.extras.get("imagined")) is not None:
            arrays["synthetic_B"] = imagined[at.row_B, 0] > 0
        if self.spec.past:
            arrays["past_BPD"] = self.past(at)
        return Batch(x_BHD, **{name: torch.from_numpy(x) for name, x in arrays.items() if x is not None})

    def past(self, at: WindowStarts) -> np.ndarray:
        """(B, P, D) the steps before these, as `TrajectorySpec.beginning` says where an episode has fewer."""
        episode_B1 = at.episode_B[:, None]
        t_BP = at.step_B[:, None] + np.arange(-self.spec.past, 0)
        first_B1 = self.episodes.starts[episode_B1]
        obs_BPO = self.episodes.obs.take(np.maximum(t_BP, first_B1) + episode_B1, 0)
        act_BPA = self.episodes.act.take(t_BP, 0, mode="clip") * (t_BP >= first_B1)[..., None]
        return np.concatenate([obs_BPO, act_BPA[..., : self.spec.act_dim]], -1)

    def _episode(self, starts_B: np.ndarray) -> np.ndarray:
        """(B,) the episodes of these steps."""
        return np.searchsorted(self.ends, starts_B, side="right")

    def _last(self, at: WindowStarts) -> np.ndarray:
        """(B,) the rows of `obs` that these windows end with."""
        real_BH = at.step_B[:, None] + self.times_H <= at.end_B1
        return at.row_B + self.times_H[real_BH.sum(1) - 1]

    def _until(self, at: WindowStarts, end_B1: np.ndarray, terminated_B1: np.ndarray,
               reward_BL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, H) the sums of the rewards of each timestep's environment steps before `end_B1`, and whether it is the
        first one from there on, where the end is terminal."""
        reward_BL[at.step_B[:, None] + self.steps_L >= end_B1] = 0
        if self.spec.stride > 1:
            reward_BL = np.add.reduceat(reward_BL, self.times_H, axis=1)
        over_BH = at.step_B[:, None] + self.times_H >= end_B1
        terminal_BH = over_BH & terminated_B1
        terminal_BH[:, 1:] &= ~over_BH[:, :-1]
        return reward_BL, terminal_BH


def _moved(length_E: np.ndarray, early: float) -> float:
    """The fraction of the windows to move, so that a fraction `early` of all windows starts early in an episode."""
    share = np.minimum(length_E, EARLY_STEPS).sum() / max(length_E.sum(), 1)
    return float((early - share) / (1 - share)) if early > share else 0.0


def _rows(array_SX: np.ndarray, t_BH: np.ndarray, real_BH: np.ndarray) -> torch.Tensor:
    """(B, H, X) the rows `t_BH` of the array, and 0 where they are padding."""
    x_BHX = array_SX.take(t_BH, 0, mode="clip")  # several times as fast as array_SX[...]
    x_BHX[~real_BH] = 0
    return torch.from_numpy(x_BHX)


def repeat_last(batch: Batch, horizon: int | None = None) -> torch.Tensor:
    """(B, H, D) the windows of a batch, with padding replaced by the last real value of each entry.

    With `horizon` only that many timesteps are returned.
    """
    real_BHD = batch.mask_BHD[:, :horizon]
    rows_H1 = torch.arange(real_BHD.shape[1], device=real_BHD.device)[:, None]
    return batch.x_BHD.gather(1, torch.where(real_BHD, rows_H1, 0).cummax(1).values)
