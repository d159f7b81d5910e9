"""Contexts: vectors that a model of trajectories is conditioned on, such as a return, a goal or a task.

Models follow a context by classifier-free guidance. Contexts are computed once from the data and looked up for each
window; those that the data hold already are not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from ..config import Fraction, settings
from ..normalize import Normalizer
from .episodes import DataError, Episodes, locate

FITTED_ROWS = 100_000  # observations at most that the statistics of contexts are computed from
MAX_TASKS = 1024  # a larger task number is a mistake, such as an episode's number
Kind = Literal["return", "goal", "task"]

Rows = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps the rows of `obs` (B,) with the first and the last real observation of windows to contexts (B, W) float32."""


@settings
class ContextConfig:
    """The contexts that a model is conditioned on, concatenated in this order, in environment units.

    Raises ValueError for a setting outside its range.
    """

    kinds: tuple[Kind, ...] = ()
    """return: the discounted sum of rewards from the window's start on; goal: the episode's goal where the data have
    one, else the observation at the window's end; task: the task's number, one-hot."""
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
    which the goal or the task changes, if windows are conditioned on it."""
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
    """The goal at the window's start where the data have goals, else the goal reached at the window's end
    (hindsight)."""
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
                        f"the extras are {', '.join(e.extras) or 'empty'}")
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
