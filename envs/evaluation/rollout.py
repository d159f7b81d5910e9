"""Runs agents in vectorised environments; episode i is the same whatever the number of environments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch

from gentraj.data import Episodes
from gentraj.data.splitting import concatenate
from gentraj.networks.rows import batch_invariant
from gentraj.progress import bar
from gentraj.randomness import fold
from gentraj.trajectory import Agent, Limits

from ..rendering.film import Watch
from .stepping import EnvCrashed, EnvironmentFault
from .vector import VectorEnvironment

HOPELESS = 10  # a rollout stops after so many episodes that did not finish, if none did


@dataclass(frozen=True)
class Rollout:
    """E finished episodes; arrays are (E,), in the order of the episodes' numbers."""

    env_id: str
    """The id of the environment."""
    seeds: list[int]
    """The seeds of each episode's environment and agent."""
    returns: np.ndarray
    """The environment's own rewards summed over the whole episode, also after a first success."""
    success: np.ndarray
    """Whether any step was a success: by the environment's info, or, if that never tells, by a positive reward if there
    are goals."""
    first_hit: np.ndarray
    """The step of the first success, counted from 1; infinite without one."""
    time_at_goal: np.ndarray
    """The number of steps that were a success."""
    lengths: np.ndarray
    """The number of steps of each episode."""
    latency_ms: np.ndarray
    """(decisions,) wall time in milliseconds of each decision: a call of `act` for all environments in which a network
    was called, or every call of an agent that does not count its network calls."""
    network_calls: int | None
    """The number of network calls in those decisions; None for an agent without `network_calls`."""
    recorded: Episodes | None = None
    """The episodes as a dataset, to be saved or drawn, if they were recorded."""
    tells_success: bool = True
    """Whether success is known: the environment reports it in its info, or has goals and rewards that are positive, or
    never negative."""
    clipped_actions: float = 0.0
    """Fraction of the actions with an entry at a bound of the agent's `limits`, or of the action space."""
    clamped_observations: float | None = None
    """Fraction of the observations with an entry beyond the agent's `limits`; None for an agent that clamps none."""
    by_teacher: float | None = None
    """Fraction of the actions that were a teacher's; None for an agent that asks none."""
    faults: tuple[str, ...] = ()
    """What went wrong in each episode that did not finish; these are not among the E."""
    act_ms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(calls,) wall time in milliseconds of every call of `act`."""


def rollout(agent: Agent, make_env: Callable[[], Any], episodes: int, seed: int = 0, num_envs: int = 25, *,
            obs_keys: Sequence[str] = (), goal_dims: Sequence[int] = (), record: bool = False,
            progress: bool = True, name: str = "agent", watch: Watch | None = None, invariant: bool = True,
            workers: int = 0, time_limit: float = 60.0, period: float | None = None, first: int = 0) -> Rollout:
    """Runs `episodes` episodes, `num_envs` at a time; episode i seeds its environment and agent with `fold(seed, i)`.

    `obs_keys` and `goal_dims` are those of the data that the agent was trained on. An environment whose episode has
    ended begins the next one; when none is left, its further steps are not counted. `record` keeps the episodes as a
    dataset, `name` is the agent's name in the progress bar, and `watch` is called in every step, to film the episodes.
    Without `invariant`, an episode may depend on the number of environments by the last bits of a network's output, and
    decisions in few environments are faster (see `gentraj.networks.rows.batch_invariant`).

    `period` is the time in seconds between two environment steps. The environments wait for the agent however long it
    takes; an agent that plans ahead is given what is left of the period after it has acted.

    With `first`, the episodes are those from that number on: `join` makes one rollout of several such parts.

    With `workers`, so many processes step the environments, with the same result bit for bit. An environment that ends
    its process, or whose call takes more than `time_limit` seconds, then costs its episode only.

    Raises ValueError for less than one episode and if the agent's `spec` does not fit the environment, and
    `EnvironmentFault` for a faulty action. Where environments are faulty, it raises `EnvironmentFault`, or `EnvCrashed`
    where one raised an error, ended or hung, once all other episodes have finished; they are in the error's `finished`.
    If a lost worker cannot be replaced, it raises `EnvCrashed` at once, with the episodes that had finished.
    """
    if episodes < 1 or num_envs < 1:
        raise ValueError(f"episodes is {episodes} and num_envs {num_envs}; give at least 1")
    seeds = [fold(seed, i) for i in range(first, first + episodes)]
    envs = VectorEnvironment(make_env, min(num_envs, episodes), obs_keys, workers=workers, time_limit=time_limit,
                             strict=False)
    try:
        _check_fit(agent, envs, goal_dims)
        log, slots = _Log(), _Slots(seeds, len(envs.elapsed_B))
        with _Progress(name, envs, episodes, progress) as shown, batch_invariant(invariant):
            try:
                _play(agent, envs, log, slots, record, shown, watch, period)
            except EnvCrashed as error:  # a lost worker cannot be replaced
                log.faults |= dict.fromkeys(slots.unfinished, error)
        played = _result(log, envs, seeds, tuple(goal_dims), agent.limits is not None)
    finally:
        envs.close()
    if log.faults:
        raise _fault(log, played, episodes)
    return cast(Rollout, played)


def join(parts: Sequence[Rollout]) -> Rollout:
    """One rollout of the episodes of several, in their order."""
    lengths = [int(part.lengths.sum()) for part in parts]

    def mean(shares: Sequence[float | None]) -> float | None:
        """The share of all steps. That of a part is recovered as a number of its steps, so nothing is rounded."""
        given = [(share, length) for share, length in zip(shares, lengths, strict=True) if share is not None]
        return sum(round(share * length) for share, length in given) / sum(lengths) if given else None

    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (
        "returns", "success", "first_hit", "time_at_goal", "lengths", "latency_ms", "act_ms")}
    calls = [part.network_calls for part in parts if part.network_calls is not None]
    recorded = [part.recorded for part in parts if part.recorded is not None]
    return replace(parts[0], **arrays, seeds=[seed for part in parts for seed in part.seeds],
                   network_calls=sum(calls) if calls else None,
                   recorded=replace(concatenate(recorded), name=recorded[0].name) if recorded else None,
                   clipped_actions=mean([part.clipped_actions for part in parts]),
                   clamped_observations=mean([part.clamped_observations for part in parts]),
                   by_teacher=mean([part.by_teacher for part in parts]),
                   faults=tuple(fault for part in parts for fault in part.faults),
                   tells_success=any(part.tells_success for part in parts))


def _fault(log: _Log, finished: Rollout | None, episodes: int) -> EnvironmentFault:
    """The error about the episodes that did not finish, which holds those that did."""
    first = log.faults[min(log.faults)]
    how_many = f"{len(log.faults)} of {episodes} episodes did not finish" if finished else "no episode finished"
    error = type(first)(f"{first} ({how_many})")
    error.finished = finished
    return error


@dataclass
class _Log:
    """What happened, in order: one array (B, ...) per step and field."""

    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)
    act_ms: list[float] = field(default_factory=list)
    network_calls: int | None = None
    finished: int = 0
    """The number of episodes that have finished."""
    faults: dict[int, EnvironmentFault] = field(default_factory=dict)
    """Why an episode did not finish, by its number."""

    def failed(self, envs: VectorEnvironment, slots: _Slots) -> np.ndarray:
        """(B,) where the last call of the environments failed. These episodes are over, and the next ones follow."""
        self.faults |= {int(slots.episode_B[i]): fault for i, fault in envs.faults.items()}
        failed_B = np.zeros(len(slots.episode_B), bool)
        failed_B[list(envs.faults)] = True
        slots.next(failed_B)
        return failed_B

    def add(self, fields: dict[str, np.ndarray]) -> None:
        for key, value in fields.items():
            self.rows.setdefault(key, []).append(value)

    @contextmanager
    def decision(self, agent: Agent, period: float | None) -> Iterator[None]:
        """Logs the time and the network calls that the agent's decision takes, which is made within the block.

        What is left of the period is given to an agent that plans ahead.
        """
        calls, start = agent.network_calls, time.perf_counter()
        yield
        milliseconds = 1000 * (time.perf_counter() - start)
        self.act_ms.append(milliseconds)
        if period is not None:
            agent.rest(period - milliseconds / 1000)
        new_calls = None if calls is None or agent.network_calls is None else agent.network_calls - calls
        if new_calls is not None:
            self.network_calls = (self.network_calls or 0) + new_calls
        if new_calls != 0:
            self.latency_ms.append(milliseconds)


class _Progress:
    """The progress bar of a rollout. It counts steps where the length of episodes is bounded, else episodes.

    An episode that ends early lowers the total by the steps that it leaves out.
    """

    def __init__(self, name: str, envs: VectorEnvironment, episodes: int, shown: bool):
        self.envs, self.episodes, self.ended = envs, episodes, 0
        self.limit = envs.max_episode_steps
        self.bar = bar(episodes * (self.limit or 1), f"{name} in {envs.env_id}", "steps" if self.limit else "episodes",
                       shown=shown)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def stepped(self, counted_B: np.ndarray, done_B: np.ndarray) -> None:
        ended = int((counted_B & done_B).sum())
        self.ended += ended
        if self.limit:
            self.bar.total -= int((self.limit - self.envs.elapsed_B[counted_B & done_B]).sum())
            self.bar.set_postfix_str(f"{self.ended} of {self.episodes} episodes", refresh=False)
        self.bar.update(int(counted_B.sum()) if self.limit else ended)


def _check_fit(agent: Agent, envs: VectorEnvironment, goal_dims: Sequence[int]) -> None:
    spec = agent.spec
    if spec is not None and (spec.obs_dim != envs.obs_dim or spec.act_dim not in (0, envs.act_dim)):
        raise ValueError(f"the agent has obs_dim {spec.obs_dim} and act_dim {spec.act_dim}, but {envs.env_id} has "
                         f"obs_dim {envs.obs_dim} and act_dim {envs.act_dim}; train it on data of this environment")
    if goal_dims and not envs.has_goal:
        raise ValueError(f"the agent acts towards goals (entries {tuple(goal_dims)} of an observation), and "
                         f"{envs.env_id} gives none; take an environment with 'desired_goal' in its observations")
    if goal_dims and len(goal_dims) != envs.goal_dim:
        raise ValueError(f"goal_dims {tuple(goal_dims)} name {len(goal_dims)} entries, but {envs.env_id} has goals of "
                         f"{envs.goal_dim}; take them from data of this environment")


class _Slots:
    """Which episode is under way in each environment: its number, or -1 where none is left, and its seed."""

    def __init__(self, seeds: list[int], batch: int):
        self.seeds, self.started = seeds, batch
        self.episode_B, self.seeds_B = np.arange(batch), seeds[:batch]

    def next(self, mask_B: np.ndarray) -> None:
        """Gives the next episodes to the masked environments."""
        for i in np.flatnonzero(mask_B):
            self.episode_B[i] = self.started if self.started < len(self.seeds) else -1
            self.seeds_B[i] = self.seeds[min(self.started, len(self.seeds) - 1)]
            self.started += 1

    @property
    def unfinished(self) -> list[int]:
        """The episodes that are under way or have not begun."""
        return [*self.episode_B[self.episode_B >= 0].tolist(), *range(self.started, len(self.seeds))]


def _play(agent: Agent, envs: VectorEnvironment, log: _Log, slots: _Slots, record: bool, shown: _Progress,
          watch: Watch | None, period: float | None) -> None:
    """Plays every episode to its end, or stops where it is hopeless."""
    limits = agent.limits or Limits(envs.act_low_A, envs.act_high_A)

    def show(at_B: np.ndarray) -> None:
        if watch is not None:
            for i in np.flatnonzero(at_B & (slots.episode_B >= 0)).tolist():
                watch(int(slots.episode_B[i]), envs.env(i))

    def begin(mask_B: np.ndarray) -> None:
        while (mask_B := mask_B & (slots.episode_B >= 0)).any():
            envs.reset(mask_B, slots.seeds_B)
            agent.reset(None if mask_B.all() else torch.from_numpy(mask_B), slots.seeds_B)
            mask_B = log.failed(envs, slots)

    begin(slots.episode_B >= 0)
    show(slots.episode_B >= 0)
    while (slots.episode_B >= 0).any():
        live_B = slots.episode_B >= 0
        fields = {"episode": slots.episode_B.copy()} | (_seen(envs) if record else {})
        goal_BG = None if envs.goal_BG is None else torch.from_numpy(envs.goal_BG)
        with log.decision(agent, period):
            act_BA = agent.act(torch.from_numpy(envs.obs_BO), goal_BG).detach().cpu().numpy()
        fields |= {"act": act_BA, "clipped": limits.clips(act_BA), "clamped": limits.clamps(envs.obs_BO)}
        if agent.by_teacher_B is not None:
            fields["by_teacher"] = agent.by_teacher_B.numpy().copy()
        fields |= envs.step(act_BA, live_B) | {"elapsed": envs.elapsed_B.copy()}
        log.add(fields | (_seen(envs, "next_") if record else {}))
        failed_B = log.failed(envs, slots)
        ended_B = fields["terminated"] | fields["truncated"] | failed_B
        shown.stepped(live_B, ended_B)
        show(live_B & ~failed_B)
        log.finished += int((ended_B & ~failed_B).sum())
        if not log.finished and len(log.faults) >= max(len(live_B), HOPELESS):
            break
        slots.next(ended_B & ~failed_B)
        begin(ended_B)
        show(ended_B)


def _seen(envs: VectorEnvironment, prefix: str = "") -> dict[str, np.ndarray]:
    goal = {} if envs.goal_BG is None else {f"{prefix}goal": envs.goal_BG}
    return {f"{prefix}obs": envs.obs_BO} | goal


def _result(log: _Log, envs: VectorEnvironment, seeds: list[int], goal_dims: tuple[int, ...],
            clamps: bool) -> Rollout | None:
    """Sorts the log into the episodes that finished; None without any."""
    finished = [i for i in range(len(seeds)) if i not in log.faults] if log.finished else []
    if not finished:
        return None
    rows = {key: np.stack(value) for key, value in log.rows.items()}
    counted = np.isin(rows["episode"].ravel(), finished)
    order = np.lexsort((rows["elapsed"].ravel(), rows["episode"].ravel()))
    order = order[counted[order]]
    flat = {key: value.reshape(-1, *value.shape[2:])[order] for key, value in rows.items()}
    episode, E = np.searchsorted(finished, flat["episode"]), len(finished)
    first_hit, hits = np.full(E, np.inf), flat["success"]
    if envs.reports_success:  # perhaps only at the end of an episode, before which no reward is a success then
        hits = hits & flat["reported"]
    np.minimum.at(first_hit, episode[hits], flat["elapsed"][hits])
    lengths = np.bincount(episode, minlength=E)
    recorded = _episodes(flat, lengths, envs, goal_dims) if "obs" in flat else None
    returns, time_at_goal = (np.bincount(episode, each, minlength=E) for each in (flat["reward"], hits))
    return Rollout(envs.env_id, [seeds[i] for i in finished], returns, np.isfinite(first_hit), first_hit, time_at_goal,
                   lengths, np.array(log.latency_ms), log.network_calls, recorded, envs.tells_success,
                   float(flat["clipped"].mean()), float(flat["clamped"].mean()) if clamps else None,
                   float(flat["by_teacher"].mean()) if "by_teacher" in flat else None,
                   tuple(str(log.faults[i]) for i in sorted(log.faults)), np.array(log.act_ms))


def _episodes(flat: dict[str, np.ndarray], lengths: np.ndarray, envs: VectorEnvironment,
              goal_dims: tuple[int, ...]) -> Episodes:
    """Returns the recorded steps as a dataset; each episode's final observation follows that of its last step."""
    ends = np.cumsum(lengths)

    def with_last(key: str) -> np.ndarray:
        return np.insert(flat[key], ends, flat[f"next_{key}"][ends - 1], axis=0)

    goal = {"goal": with_last("goal")} if envs.has_goal else {}
    return Episodes(with_last("obs"), flat["act"], flat["reward"], flat["terminated"], flat["truncated"], lengths, goal,
                    goal_dims, envs.obs_keys, envs.spec_json, name=f"rollout in {envs.env_id}")
