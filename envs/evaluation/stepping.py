"""Steps environments one by one, checks what they return, and turns whatever goes wrong into a `Fault`.

This module imports no torch, as worker processes start with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from gentraj.data.spaces import is_part, is_vector, observed, spec_as_json

MakeEnv = Callable[[], gymnasium.Env]
SHOWN_CHARACTERS = 80  # of a faulty value in a message
MAX_FLOAT32 = float(np.finfo(np.float32).max)
BOUND_SLACK = 1e-3  # how far outside its own bounds an observation may be: environments round


class EnvironmentFault(RuntimeError):
    """An environment or an action is faulty; the message says in one line which environment, step and value.

    `finished` is the `Rollout` of the episodes that ended well, or None without any.
    """

    finished: Any = None


class EnvCrashed(EnvironmentFault):
    """An environment raised an error, tried to exit, ended its process or hung."""


class WorkerDied(EnvCrashed):
    """The process of an environment ended while it called it, by the environment's fault or by somebody else's."""


class EpisodeLost(EnvironmentFault):
    """An episode was under way in a process that was lost through no fault of its environment."""


class Step(NamedTuple):
    """What one environment returned for an action; after a reset, everything but the observation and goal is empty."""

    obs_O: np.ndarray
    goal_G: np.ndarray | None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    """The environment's own `info["success"]` or `info["is_success"]`; None without these."""


class Fault(NamedTuple):
    """What went wrong in one environment."""

    text: str
    kind: type[EnvironmentFault] = EnvCrashed


Orders = Mapping[int, int | np.ndarray]
"""For each slot the seed of the episode to begin there, or the action to take in the one that is under way."""


class Malformed(ValueError):
    """An environment returned something of a wrong type or shape, or a number that cannot be."""


@dataclass(frozen=True)
class Layout:
    """What an environment is called and what it observes and does.

    `boxes` are the spaces of the parts of an observation, which are the entries `obs_keys` of a dict observation. Each
    part is flattened.
    """

    env_id: str
    spec_json: str | None
    max_episode_steps: int | None
    boxes: tuple[Box, ...]
    obs_keys: tuple[str, ...]
    goal: Box | None
    action_space: Box

    @classmethod
    def of(cls, env: gymnasium.Env, obs_keys: Sequence[str] = ()) -> Layout:
        """The layout of an environment whose observations are the parts `obs_keys`.

        Without `obs_keys` these are "observation" if the environment has goals, or else all entries of the dict, as
        `gymnasium.spaces.utils.flatten` joins them. Raises ValueError for other spaces than 1-D Boxes and dicts of
        Boxes, and for `obs_keys` that a dict lacks.
        """
        space = env.observation_space
        act = env.action_space
        env_id = env.spec.id if env.spec else type(env.unwrapped).__name__
        keys: tuple[str, ...] = ()
        parts: list[Any] = [space]
        goal: Any = None
        supported = is_vector(space)
        if isinstance(space, Dict):
            entries = observed(space)
            goal = entries.get("desired_goal")
            keys = tuple(obs_keys)
            if not keys:
                keys = tuple(entries) if goal is None else ("observation",)
            for key in keys:
                if key not in entries:
                    raise ValueError(f"{env_id}: the agent's observations have the entry '{key}', which the "
                                     f"environment's lack ({', '.join(entries)}); take the environment of its data")
            parts = [entries[key] for key in keys]
            supported = bool(parts) and all(map(is_part, parts)) and (goal is None or is_vector(goal))
        if not supported:
            raise ValueError(f"{env_id}: observation space {space} is not supported; flatten it to a 1-D Box "
                             "(gymnasium.wrappers.FlattenObservation; encode images first), or name the Boxes of the "
                             "dict that are wanted in obs_keys")
        if not is_vector(act):
            raise ValueError(f"{env_id}: action space {act} is not supported; only a 1-D Box is, because models and "
                             "policies act by vectors of real numbers")
        if env.spec is None:
            return cls(env_id, None, None, tuple(parts), keys, goal, act)
        return cls(env_id, spec_as_json(env.spec), env.spec.max_episode_steps, tuple(parts), keys, goal, act)

    @cached_property
    def obs_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest finite observation (O,), with some slack."""
        low_O = np.concatenate([bounds(box)[0] for box in self.boxes]) - BOUND_SLACK
        high_O = np.concatenate([bounds(box)[1] for box in self.boxes]) + BOUND_SLACK
        return low_O.clip(-MAX_FLOAT32), high_O.clip(max=MAX_FLOAT32)

    def observed(self, obs: Any, **rest: Any) -> Step:
        """Reads an observation. Raises `Malformed`."""
        parts = [obs[key] for key in self.obs_keys] if self.obs_keys else [obs]
        read = [_vector(part, box, "observation") for part, box in zip(parts, self.boxes, strict=True)]
        goal_G = None if self.goal is None else _vector(obs["desired_goal"], self.goal, "goal")
        obs_O = read[0].ravel() if len(read) == 1 else np.concatenate([part.ravel() for part in read])
        return Step(obs_O, goal_G, **rest)

    def are_possible(self, obs_RO: np.ndarray, goal_RG: np.ndarray | None) -> np.ndarray:
        """(R,) whether these observations are finite and inside their space, and these goals finite."""
        low_O, high_O = self.obs_bounds
        possible_R: Any = ((obs_RO >= low_O) & (obs_RO <= high_O)).all(1)
        if goal_RG is not None:
            possible_R &= np.isfinite(goal_RG).all(1)
        return possible_R

    def problem(self, step: Step) -> str:
        """Why an observation or its goal is not possible."""
        if not np.isfinite(step.obs_O).all():
            return f"observation is {step.obs_O}; finite numbers are expected"
        if not self.are_possible(step.obs_O[None], None).all():
            return (f"observation is {step.obs_O}; numbers inside the environment's own observation space are "
                    "expected")
        return f"goal is {step.goal_G}; finite numbers are expected"

    def stepped(self, result: Any) -> Step:
        """Reads what `env.step` returned. Raises `Malformed`."""
        if not isinstance(result, tuple) or len(result) != 5:
            raise Malformed(f"step returned {_what(result)}; observation, reward, terminated, truncated and info are "
                            "expected, as Gymnasium has it (wrap an environment of the old gym)")
        obs, reward, terminated, truncated, info = result
        if not isinstance(info, Mapping):
            raise Malformed(f"info is {info!r:.{SHOWN_CHARACTERS}}, a {type(info).__name__}; a dict is expected")
        success = None
        for key in ("is_success", "success"):
            if info.get(key) is not None:
                success = _flag(info[key], "success")
        return self.observed(obs, reward=_number(reward, "reward"), terminated=_flag(terminated, "terminated"),
                             truncated=_flag(truncated, "truncated"), success=success)


class Stepper:
    """Environments in numbered slots of this process, made when their first episode begins, and anew after a fault.

    `begin_call` is told the slot of an environment and the step of its episode before each call of it. What goes wrong
    in an environment, an attempt to exit included, is returned as a `Fault`. One that ends the process ends everything,
    and one that hangs hangs for ever. Making the environment of the slot `first` here raises what making it raises.
    """

    def __init__(self, make_env: MakeEnv, obs_keys: Sequence[str] = (), first: int = 0,
                 begin_call: Callable[[int, int], None] = lambda slot, step: None):
        self.make_env, self.begin_call = make_env, begin_call
        self.elapsed = dict[int, int]()
        """Steps of the episode in each slot."""
        begin_call(first, 0)
        self.envs: dict[int, gymnasium.Env] = {first: make_env()}
        self.layout = Layout.of(self.envs[first], obs_keys)

    def carry_out(self, orders: Orders) -> dict[int, Step | Fault]:
        """Begins episodes and takes steps, one slot after the other."""
        return {slot: self._begin(slot, order) if isinstance(order, int) else self._step(slot, order)
                for slot, order in orders.items()}

    def place(self, slot: int) -> str:
        """Where an environment is, for messages."""
        return f"environment {slot}"

    def env(self, slot: int) -> gymnasium.Env:
        """The environment in a slot."""
        return self.envs[slot]

    def close(self) -> None:
        """Closes all environments."""
        for slot in tuple(self.envs):
            self._discard(slot)

    def _begin(self, slot: int, seed: int) -> Step | Fault:
        self.elapsed[slot] = 0
        return self._guarded(slot, lambda env: _reset(env, self.layout, seed))

    def _step(self, slot: int, action: np.ndarray) -> Step | Fault:
        if slot not in self.elapsed:  # the episode began in another process
            return Fault("its worker was lost", EpisodeLost)
        self.elapsed[slot] += 1
        return self._guarded(slot, lambda env: self.layout.stepped(env.step(action)))

    def _guarded(self, slot: int, call: Callable[[gymnasium.Env], Step]) -> Step | Fault:
        self.begin_call(slot, self.elapsed[slot])
        try:
            if slot not in self.envs:
                self.envs[slot] = self.make_env()
            return call(self.envs[slot])
        except Malformed as error:
            fault = Fault(str(error), EnvironmentFault)
        except (Exception, SystemExit) as error:
            fault = Fault(f"{type(error).__name__}: {error}")
        self._discard(slot)  # nobody knows its state
        return fault

    def _discard(self, slot: int) -> None:
        env = self.envs.pop(slot, None)
        if env is not None:
            with suppress(Exception, SystemExit):  # the fault says more than what follows from it
                env.close()


def bounds(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The flat bounds of a space, rounded to float32 as observations and actions are."""
    with np.errstate(over="ignore"):
        return box.low.ravel().astype(np.float32), box.high.ravel().astype(np.float32)


def _reset(env: gymnasium.Env, layout: Layout, seed: int) -> Step:
    result: Any = env.reset(seed=seed, options={})
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise Malformed(f"reset returned {_what(result)}; observation and info are expected, as Gymnasium has it (wrap "
                        "an environment of the old gym)")
    return layout.observed(result[0])


def _what(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def _vector(value: Any, box: Box, what: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise Malformed(f"{what} is {value!r:.{SHOWN_CHARACTERS}}; numbers are expected")
    if array.shape != box.shape:
        raise Malformed(f"{what} has shape {array.shape}; {box.shape} is expected, that of its space")
    return array.astype(np.float32)


def _number(value: Any, what: str) -> float:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.shape:
        raise Malformed(f"{what} is {value!r:.{SHOWN_CHARACTERS}}, a {type(value).__name__}; one number is expected")
    number = float(array)
    if not abs(number) <= MAX_FLOAT32:  # rewards are recorded in float32
        raise Malformed(f"{what} is {number}; a finite number within float32 is expected")
    return number


def _flag(value: Any, what: str) -> bool:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.shape or array not in (0, 1):
        raise Malformed(f"{what} is {value!r:.{SHOWN_CHARACTERS}}, a {type(value).__name__}; True or False is expected")
    return bool(array)
