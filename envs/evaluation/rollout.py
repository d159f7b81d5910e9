"""Runs agents in vectorised environments; episode i is the same whatever the number of environments."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from tqdm import tqdm

from gentraj.config import settings as settings_class
from gentraj.data import Episodes
from gentraj.data.splitting import concatenate
from gentraj.progress import bar
from gentraj.randomness import fold
from gentraj.trajectory import Agent, Limits

from ..making import environment_factory, imported
from ..rendering import Watch
from .own_agents import as_agent
from .stepping import EnvCrashed, EnvironmentFault, MakeEnv
from .vector import VectorEnvironment

HOPELESS_EPISODES = 10  # a rollout stops after so many episodes that did not finish, if none did


@settings_class
class RolloutSettings:
    """How episodes are run. Raises ValueError for less than one environment."""

    num_envs: PositiveInt = 25
    """Environments that run side by side."""
    batch_invariant: bool = True
    """Whether an episode is the same, bit for bit, whatever the number of environments. Without it decisions in few
    environments are faster (`Agent.pad_batches`)."""
    workers: NonNegativeInt = 0
    """Number of processes, each with one environment, of which at most `num_envs` run side by side; 0 is this process.
    The result is the same bit for bit. An environment that ends its process or hangs then costs its episode only."""
    time_limit: PositiveFloat = 60.0
    """Seconds that a call of an environment may take in a worker."""
    period: PositiveFloat | None = None
    """Seconds between two environment steps. The environments wait for the agent however long it takes; an agent that
    plans ahead is given what is left of the period after it has acted."""
    obs_keys: tuple[str, ...] = ()
    """The parts of a dict observation that the agent was trained on (`Episodes.obs_keys`)."""
    goal_dims: tuple[int, ...] = ()
    """The entries of an observation that its goals are about (`Episodes.goal_dims`)."""
    name: str = "agent"
    """The agent's name in the progress bar."""


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
    clipped_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    """The number of actions with an entry at a bound of the agent's `limits`, or of the action space."""
    clamped_steps: np.ndarray | None = None
    """The number of observations with an entry beyond the agent's `limits`; None for an agent that clamps none."""
    faults: tuple[str, ...] = ()
    """What went wrong in each episode that did not finish; these are not among the E."""
    act_ms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(calls,) wall time in milliseconds of every call of `act`."""
    timing: dict[str, Any] = field(default_factory=dict)
    """What the agent did in these episodes to be in time (`Agent.timing`); empty for an agent without a deadline."""

    def share(self, sums_E: np.ndarray | None) -> float | None:
        """The mean over all steps of what was summed in each episode; of a number of steps, their share."""
        if sums_E is None:
            return None
        return float(sums_E.sum() / self.lengths.sum())


DEFAULT_SETTINGS = RolloutSettings()


def rollout(agent: Agent | Any, make_env: MakeEnv | str, episodes: int, seed: int = 0,
            settings: RolloutSettings = DEFAULT_SETTINGS, *, record: bool = False, progress: bool = True,
            watch: Watch | None = None) -> Rollout:
    """Runs `episodes` episodes, several at a time; episode i seeds its environment and agent with `fold(seed, i)`.

    An environment whose episode has ended begins the next one; when none is left, its further steps are not counted.
    The agent is an `Agent`, or anything that `OwnAgent` takes: an object with `act`, or a function of observations.
    `record` keeps the episodes as a dataset, and `watch` is called in every step, to film the episodes.

    Raises ValueError for less than one episode, for an environment that is made already, and if the agent's `spec` does
    not fit the environment, and `EnvironmentFault` for a faulty action. Where environments are faulty, it raises
    `EnvironmentFault`, or `EnvCrashed` where one raised an error, ended or hung, once all other episodes have finished;
    they are in the error's `finished`. If a lost worker cannot be replaced, it raises `EnvCrashed` at once, with the
    episodes that had finished.
    """
    if not isinstance(episodes, int | np.integer) or episodes < 1:
        raise ValueError(f"episodes is {episodes!r}; a whole number of at least 1 is expected")
    agent = as_agent(agent)
    if not callable(make_env):
        make_env = environment_factory(imported(make_env))
    batch = min(settings.num_envs, settings.workers or settings.num_envs, episodes)
    with closing(VectorEnvironment(make_env, batch, settings.obs_keys,
                                   workers=settings.workers > 0, time_limit=settings.time_limit, strict=False)) as envs:
        _check_fit(agent, envs, settings.goal_dims)
        seeds = [fold(seed, i) for i in range(episodes)]
        player = _Player(agent, envs, seeds, settings, record, watch)
        limit = envs.layout.max_episode_steps or 0
        with bar(episodes * (limit or 1), f"{settings.name} in {envs.env_id}", "steps" if limit else "episodes",
                 shown=progress) as shown:
            player.play(shown, limit)
        played = player.result()
    if player.faults or played is None:
        raise player.fault(played)
    return played


def join(parts: Sequence[Rollout]) -> Rollout:
    """One rollout of the episodes of several, in their order."""
    joined: dict[str, Any] = {"tells_success": any(part.tells_success for part in parts)}
    for name in (each.name for each in fields(Rollout)):
        values: list[Any] = [getattr(part, name) for part in parts]
        if isinstance(values[0], np.ndarray):
            joined[name] = np.concatenate(values)
        elif isinstance(values[0], list | tuple):
            joined[name] = type(values[0])(one for value in values for one in value)
        elif isinstance(values[0], Episodes):
            joined[name] = replace(concatenate(values), name=values[0].name)
        elif name == "network_calls" and values[0] is not None:
            joined[name] = sum(values)
        elif name == "timing":
            joined[name] = values[-1] | {key: sum((value[key] for value in values), Counter())
                                         for key, last in values[-1].items() if isinstance(last, Counter)}
    return replace(parts[0], **joined)


class _Player:
    """Runs the episodes with these seeds, and keeps what happened, in order: an array (B, ...) per step and field."""

    def __init__(self, agent: Agent, envs: VectorEnvironment, seeds: list[int], settings: RolloutSettings, record: bool,
                 watch: Watch | None):
        self.agent = agent
        self.envs = envs
        self.seeds = seeds
        self.settings = settings
        self.record = record
        self.watch = watch
        self.limits = agent.limits or Limits(envs.act_low_A, envs.act_high_A)
        batch = len(envs.elapsed_B)
        self.episode_B = np.arange(batch)
        """The number of the episode that is under way in each environment; -1 where none is left."""
        self.seeds_B = seeds[:batch]
        self.waiting = deque(range(batch, len(seeds)))
        """The numbers of the episodes that have not begun."""
        self.ended = 0
        self.finished = 0
        self.faults = dict[int, EnvironmentFault]()
        """Why an episode did not finish, by its number."""
        self.rows = dict[str, list[np.ndarray]]()
        self.latency_ms = list[float]()
        self.act_ms = list[float]()
        self.network_calls: int | None = None
        self.counted = agent.timing()

    def play(self, shown: tqdm, limit: int) -> None:
        """Plays every episode to its end, or stops where it is hopeless.

        The bar `shown` counts steps if episodes have at most `limit` steps, or episodes if that is 0.
        """
        self.agent.pad_batches(self.settings.batch_invariant)
        try:
            self._begin(np.ones(len(self.episode_B), bool))
            while (self.episode_B >= 0).any():
                live_B = self.episode_B >= 0
                fields = self._step(live_B)
                failed_B = self._note_faults()
                ended_B = fields["terminated"] | fields["truncated"] | failed_B
                self._count(shown, limit, live_B, ended_B)
                self._show(live_B & ~failed_B)
                self.finished += int((ended_B & ~failed_B).sum())
                if not self.finished and len(self.faults) >= max(len(live_B), HOPELESS_EPISODES):
                    return
                self._next(ended_B & ~failed_B)
                self._begin(ended_B)
        except EnvCrashed as error:  # a lost worker cannot be replaced
            self.faults |= dict.fromkeys([*self.episode_B[self.episode_B >= 0].tolist(), *self.waiting], error)
        finally:
            self.agent.pad_batches(False)

    def _count(self, shown: tqdm, limit: int, live_B: np.ndarray, ended_B: np.ndarray) -> None:
        """Counts a step. An episode that ends early lowers the total by the steps that it leaves out."""
        over_B = live_B & ended_B
        self.ended += int(over_B.sum())
        if limit:
            shown.total -= int((limit - self.envs.elapsed_B[over_B]).sum())
            shown.set_postfix_str(f"{self.ended} of {len(self.seeds)} episodes", refresh=False)
            shown.update(int(live_B.sum()))
        else:
            shown.update(int(over_B.sum()))

    def _begin(self, mask_B: np.ndarray) -> None:
        """Begins the episodes of the masked environments, and further ones where one cannot be begun."""
        begun_B = mask_B
        mask_B = mask_B & (self.episode_B >= 0)
        while mask_B.any():
            self.envs.reset(mask_B, self.seeds_B)
            self.agent.reset(self.seeds_B, mask_B)
            mask_B = self._note_faults() & (self.episode_B >= 0)
        self._show(begun_B)

    def _step(self, live_B: np.ndarray) -> dict[str, np.ndarray]:
        """One decision and one step of the environments: what is kept of them."""
        obs_BO, goal_BG = self.envs.obs_BO, self.envs.goal_BG
        fields = self._seen() if self.record else {}
        act_BA = self._decide(obs_BO, goal_BG)
        fields |= {"episode": self.episode_B.copy(), "act": act_BA, "clipped": self.limits.clips(act_BA),
                   "clamped": self.limits.clamps(obs_BO)}
        fields |= self.envs.step(act_BA, live_B)
        fields["elapsed"] = self.envs.elapsed_B.copy()
        if self.record:
            fields |= self._seen("next_")
        for key, value in fields.items():
            self.rows.setdefault(key, []).append(value)
        return fields

    def _decide(self, obs_BO: np.ndarray, goal_BG: np.ndarray | None) -> np.ndarray:
        """The agent's actions; their time and network calls are noted, and what is left of the period is its own."""
        agent = self.agent
        calls = self.agent.network_calls
        start = time.perf_counter()
        act = agent.act(obs_BO, goal_BG)
        milliseconds = 1000 * (time.perf_counter() - start)
        self.act_ms.append(milliseconds)
        if self.settings.period is not None:
            agent.rest(self.settings.period - milliseconds / 1000)
        if calls is None or agent.network_calls is None:
            self.latency_ms.append(milliseconds)
        else:
            self.network_calls = (self.network_calls or 0) + agent.network_calls - calls
            if agent.network_calls > calls:
                self.latency_ms.append(milliseconds)
        return self.envs.actions(act)

    def _note_faults(self) -> np.ndarray:
        """(B,) where the last call of the environments failed. These episodes are over, and the next ones follow."""
        failed_B = np.zeros(len(self.episode_B), bool)
        for i, fault in self.envs.faults.items():
            failed_B[i] = True
            self.faults[int(self.episode_B[i])] = fault
        self._next(failed_B)
        return failed_B

    def _next(self, mask_B: np.ndarray) -> None:
        """Gives the next episodes to the masked environments."""
        for i in np.flatnonzero(mask_B):
            self.episode_B[i] = -1
            if self.waiting:
                self.episode_B[i] = self.waiting.popleft()
                self.seeds_B[i] = self.seeds[self.episode_B[i]]

    def _show(self, at_B: np.ndarray) -> None:
        if self.watch is not None:
            for i in np.flatnonzero(at_B & (self.episode_B >= 0)).tolist():
                self.watch(int(self.episode_B[i]), self.envs.env(i))

    def _seen(self, prefix: str = "") -> dict[str, np.ndarray]:
        seen = {f"{prefix}obs": self.envs.obs_BO}
        if self.envs.goal_BG is not None:
            seen[f"{prefix}goal"] = self.envs.goal_BG
        return seen

    def fault(self, finished: Rollout | None) -> EnvironmentFault:
        """The error about the episodes that did not finish, which holds those that did."""
        first = self.faults[min(self.faults)]
        how_many = "no episode finished"
        if finished is not None:
            how_many = f"{len(self.faults)} of {len(self.seeds)} episodes did not finish"
        error = type(first)(f"{first} ({how_many})")
        error.finished = finished
        return error

    def result(self) -> Rollout | None:
        """The episodes that finished, in their order; None without any."""
        if not self.finished:
            return None
        envs = self.envs
        finished = [i for i in range(len(self.seeds)) if i not in self.faults]
        rows = {key: np.stack(value) for key, value in self.rows.items()}
        order = np.lexsort((rows["elapsed"].ravel(), rows["episode"].ravel()))
        order = order[np.isin(rows["episode"].ravel(), finished)[order]]
        flat = {key: value.reshape(-1, *value.shape[2:])[order] for key, value in rows.items()}
        episode = np.searchsorted(finished, flat["episode"])
        E = len(finished)

        def steps(mask: np.ndarray) -> np.ndarray:
            return np.bincount(episode, mask, E).astype(int)

        hits = flat["success"]
        if envs.reports_success:  # perhaps only at the end of an episode, before which no reward is a success then
            hits = hits & flat["reported"]
        first_hit = np.full(E, np.inf)
        np.minimum.at(first_hit, episode[hits], flat["elapsed"][hits])
        lengths = np.bincount(episode, minlength=E)
        return Rollout(
            envs.env_id, [self.seeds[i] for i in finished], np.bincount(episode, flat["reward"], E),
            np.isfinite(first_hit), first_hit, np.bincount(episode, hits, E), lengths, np.array(self.latency_ms),
            self.network_calls, self._recorded(flat, lengths) if self.record else None, envs.tells_success,
            steps(flat["clipped"]), None if self.agent.limits is None else steps(flat["clamped"]),
            tuple(str(self.faults[i]) for i in sorted(self.faults)), np.array(self.act_ms), self._timing())

    def _timing(self) -> dict[str, Any]:
        """What the agent tells of its timing, with the counts of this rollout alone."""
        return {key: value - self.counted[key] if isinstance(value, Counter) else value
                for key, value in self.agent.timing().items()}

    def _recorded(self, flat: dict[str, np.ndarray], lengths: np.ndarray) -> Episodes:
        """The recorded steps as a dataset; each episode's final observation follows that of its last step."""
        ends, envs = np.cumsum(lengths), self.envs

        def with_last(key: str) -> np.ndarray:
            return np.insert(flat[key], ends, flat[f"next_{key}"][ends - 1], axis=0)

        goal = {"goal": with_last("goal")} if envs.has_goal else {}
        return Episodes(with_last("obs"), flat["act"], flat["reward"], flat["terminated"], flat["truncated"], lengths,
                        goal, tuple(self.settings.goal_dims), envs.obs_keys, envs.layout.spec_json,
                        f"rollout in {envs.env_id}", envs.layout.obs_names)


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
