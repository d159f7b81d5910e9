"""Scores beside a return: its normalisation by reference returns, and the returns of the data's own episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gentraj.data import Episodes, d4rl_reference
from gentraj.data.episodes import last_steps

from ..making import KITCHEN, KITCHEN_STEPS, EnvironmentFactory, environment_factory, lost_wrappers
from ..tasks.registry import LOCOMOTION

OTHERWISE = ("AntMaze", KITCHEN)  # environments whose data were rewarded, or begun, in another way
FEW = 0.1  # the share of a dataset's episodes that the recording may have truncated; as a rule it is the last one


@dataclass(frozen=True)
class DataReturns:
    """The undiscounted returns of the episodes of one dataset, as they were recorded."""

    episodes: int
    mean: float
    longest: int
    """Number of steps of the longest episode."""
    truncated: int
    """Number of episodes that were truncated, by a time limit or by the recording, and did not terminate."""
    truncated_last: int
    """Number of truncated episodes that are as long as the longest one."""
    steps: int = 0
    """Number of steps of all episodes; 0 in runs that were trained before it was kept."""

    @classmethod
    def of(cls, episodes: Episodes) -> DataReturns:
        truncated_E = ~episodes.terminated[last_steps(episodes.lengths)]
        longest_E = episodes.lengths == episodes.lengths.max()
        return cls(len(episodes), float(episodes.returns.mean()), int(episodes.lengths.max()), int(truncated_E.sum()),
                   int((truncated_E & longest_E).sum()), episodes.num_steps)


def score_behaviour(returns: Sequence[DataReturns], env: str | None,
                    factory: EnvironmentFactory) -> tuple[dict[str, Any] | None, str]:
    """Returns the mean return of the data's episodes with its normalised scores and the mean reward of their steps, or
    None; and why there is no return, which is empty if there is one.

    `env` is the environment that the data come from. Their returns can be compared with those of an agent if they are
    whole episodes of `factory`'s environment. The logs of a plant often are pieces of episodes, or one that is endless:
    then the return is None, and there is only the mean reward, unless the environment is a maze, which is recorded with
    one goal after the other. Recordings with wrappers, which may change rewards, have no scores.
    """
    episodes, limit = sum(r.episodes for r in returns), factory.max_episode_steps
    truncated = sum(r.truncated - (r.truncated_last if r.longest == limit else 0) for r in returns)
    longest = max((r.longest for r in returns), default=0)
    try:
        own = environment_factory(env) if env else None
    except ValueError as error:
        return None, f"the data's environment cannot be made here: {error}"
    if own is None:
        return None, (f"the data do not name their environment; if it is {factory.env_id}, name it as "
                      "that of the training")
    if (own.env_id, own.kwargs) != (factory.env_id, factory.kwargs):
        return None, f"the data are not of {factory.env_id} as it is here; they come from {own.env_id}"
    if env and (lost := lost_wrappers(env)):
        return None, (f"the data were recorded with the wrappers {', '.join(lost)}, without which {factory.env_id} is "
                      "made here")
    if factory.protocol != "random-goal":
        return None, f"the data were not recorded by the {factory.protocol} protocol"
    if factory.env_id.startswith(OTHERWISE):
        return None, f"the data of {factory.env_id} were not recorded as an agent is evaluated"
    total, steps = sum(r.mean * r.episodes for r in returns), sum(r.steps for r in returns)
    reward = total / steps if all(r.steps for r in returns) else None
    if longest > limit or truncated > FEW * episodes:
        problem = (f"the longest has {longest}" if longest > limit else
                   f"{truncated} of {episodes} were truncated sooner, and the longest has {longest}")
        scores = {"episodes": episodes, "return_mean": None, "reward_mean": reward}
        if reward is None or factory.pointmaze is not None:
            scores = None
        return scores, f"they are not whole episodes of {factory.env_id}, which have {limit} steps: {problem}"
    mean = total / episodes
    return {"episodes": episodes, "return_mean": mean, "reward_mean": reward, **normalised(mean, factory)}, ""


def normalised(mean: float, factory: EnvironmentFactory) -> dict[str, float | None]:
    """Returns `score_d4rl` and `score_minari` of a mean return, each None outside its own protocol and environment.

    D4RL's score is 100 * (return - min) / (max - min); it is defined for mazes in the single-goal protocol, for
    locomotion, and for four tasks in the kitchen. Minari's score is the same with the returns of its random agent and
    its controller, for mazes with random goals. Neither is defined for another time limit than the task's.
    """
    d4rl_id, d4rl_steps = d4rl_task(factory)
    reference = d4rl_reference(d4rl_id) if d4rl_id and factory.max_episode_steps == d4rl_steps else None
    minari = None
    task = factory.task
    if task is not None and factory.protocol == "random-goal" and factory.max_episode_steps == task.max_episode_steps:
        minari = task.minari_reference
    return {"score_d4rl": _score(mean, reference), "score_minari": _score(mean, minari)}


def d4rl_task(factory: EnvironmentFactory) -> tuple[str | None, int]:
    """Returns the id of D4RL's data that have this environment's reference returns, or None, and its time limit.

    A locomotion task has the same rewards and termination, whatever is observed.
    """
    if factory.protocol == "d4rl-single-goal" and factory.task is not None:
        return factory.task.d4rl_id, factory.task.d4rl_steps
    for task in LOCOMOTION.values():
        if task.env_id == factory.env_id and all("observation" in key or key == "render_mode"
                                                 for key in factory.kwargs):
            return task.d4rl_id, task.max_episode_steps
    if factory.env_id == KITCHEN and len(factory.kwargs.get("tasks_to_complete", ())) == 4:
        return "kitchen-partial-v0", KITCHEN_STEPS
    return None, 0


def _score(mean: float, reference: tuple[float, float] | None) -> float | None:
    if reference is None:
        return None
    return 100 * (mean - reference[0]) / (reference[1] - reference[0])
