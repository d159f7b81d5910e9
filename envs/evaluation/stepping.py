"""Steps environments one by one, checks what they return, and turns whatever goes wrong into an `EnvironmentFault`.

This module imports no torch, as worker processes start with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Tuple

from gentraj.data.minari_io import flat_names, is_part, is_vector, numbered, observed, spec_as_json

MakeEnv = Callable[[], gymnasium.Env]
SHOWN_CHARACTERS = 80  # of a faulty value in a message
RANDOM_STATE_SEEDS = 2**32
SEED_ADVICE = ("; an episode is begun by reset(seed=..., options=...), with any whole number below 2**63 as its seed: "
               "wrap an environment whose reset takes none, or only smaller ones, as in seed % 2**31")
MAX_FLOAT32 = float(np.finfo(np.float32).max)


class EnvironmentFault(RuntimeError):
    """An environment or an action is faulty; the message says in one line which environment, step and value.

    `finished` is the `Rollout` of the episodes that ended well, or None without any.
    """

    finished: Any = None


class EnvCrashed(EnvironmentFault):
    """An environment raised an error, tried to exit, ended its process or hung."""


class EnvStep(NamedTuple):
    """What one environment returned for an action; after a reset, everything but the observation and goal is empty."""

    obs_O: np.ndarray
    goal_G: np.ndarray | None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    """The environment's own `info["success"]` or `info["is_success"]`; None without these."""


Orders = Mapping[int, int | np.ndarray]
"""For each slot the seed of the episode to begin there, or the action to take in the one that is under way."""


@dataclass(frozen=True)
class Layout:
    """What an environment is called and what it observes and does.

    `boxes` are the spaces of the parts of an observation, which are the entries `obs_keys` of a dict observation, or of
    a tuple, by their places ("0", "1"). Each part is flattened.
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

        Without `obs_keys` these are "observation" if the environment has goals, or else all entries of the dict or the
        tuple, as `gymnasium.spaces.utils.flatten` joins them. Raises ValueError for other spaces than 1-D Boxes and
        dicts and tuples of Boxes, and for `obs_keys` that a dict lacks.
        """
        space, act = env.observation_space, env.action_space
        spec = env.spec
        env_id = spec.id if spec else type(env.unwrapped).__name__
        keys: tuple[str, ...] = ()
        parts: list[Any] = [space]
        goal: Any = None
        supported = is_vector(space)
        if isinstance(space, Dict | Tuple):
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
        return cls(env_id, spec and spec_as_json(spec), spec and spec.max_episode_steps, tuple(parts), keys, goal, act)

    @property
    def obs_names(self) -> tuple[str, ...]:
        """What the entries of an observation are called, by the entries of the dict that they come from."""
        return flat_names(dict(zip(self.obs_keys, self.boxes, strict=False)))

    def begun(self, result: object) -> EnvStep:
        """Reads what `env.reset` returned. Raises `EnvironmentFault`."""
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise EnvironmentFault(f"reset returned {_what(result)}; observation and info are expected, as Gymnasium "
                                   "has it (wrap an environment of the old gym)")
        return self._observed(result[0])

    def stepped(self, result: object) -> EnvStep:
        """Reads what `env.step` returned. Raises `EnvironmentFault`."""
        if not isinstance(result, tuple) or len(result) != 5:
            raise EnvironmentFault(f"step returned {_what(result)}; observation, reward, terminated, truncated and "
                                   "info are expected, as Gymnasium has it (wrap an environment of the old gym)")
        obs, reward, terminated, truncated, info = result
        if not isinstance(info, Mapping):
            raise EnvironmentFault(f"info is {info!r:.{SHOWN_CHARACTERS}}, a {type(info).__name__}; a dict is expected")
        success = None
        for key in ("is_success", "success"):
            if info.get(key) is not None:
                success = _flag(info[key], "success")
        return self._observed(obs, _reward(reward), _flag(terminated, "terminated"), _flag(truncated, "truncated"),
                              success)

    def _observed(self, obs: Any, *rest: Any) -> EnvStep:
        entries: Any = numbered(obs) if isinstance(obs, tuple) else obs
        parts = [entries[key] for key in self.obs_keys] if self.obs_keys else [obs]
        read = [_vector(part, box, "observation") for part, box in zip(parts, self.boxes, strict=True)]
        goal_G = None if self.goal is None else _vector(entries["desired_goal"], self.goal, "goal")
        return EnvStep(read[0] if len(read) == 1 else np.concatenate(read), goal_G, *rest)


class Stepper:
    """Environments in numbered slots of this process, made when their first episode begins, and anew after a fault.

    What goes wrong in an environment, an attempt to exit included, is returned as a fault. One that ends the process
    ends everything, and one that hangs hangs for ever. Making the environment of slot 0 here raises what
    making it raises.
    """

    def __init__(self, make_env: MakeEnv, obs_keys: Sequence[str] = ()):
        self.make_env = make_env
        self.envs: dict[int, gymnasium.Env] = {0: make_env()}
        self.layout = Layout.of(self.envs[0], obs_keys)

    def carry_out(self, orders: Orders) -> dict[int, EnvStep | EnvironmentFault]:
        """Begins episodes and takes steps, one slot after the other."""
        return {slot: self.order(slot, order) for slot, order in orders.items()}

    def order(self, slot: int, order: int | np.ndarray) -> EnvStep | EnvironmentFault:
        """Begins an episode, or takes a step in it."""
        fault: EnvironmentFault
        try:
            if isinstance(order, int):
                if slot not in self.envs:
                    self.envs[slot] = self.make_env()
                return self.layout.begun(begin(self.envs[slot], order))
            return self.layout.stepped(self.envs[slot].step(order))
        except EnvironmentFault as wrong:
            fault = wrong
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}"
            if isinstance(order, int) and (isinstance(error, OverflowError) or "seed" in str(error).lower()):
                why += SEED_ADVICE
            fault = EnvCrashed(why)
        self._discard(slot)  # nobody knows its state
        return fault

    def env(self, slot: int) -> gymnasium.Env:
        """The environment in a slot."""
        return self.envs[slot]

    def close(self) -> None:
        """Closes all environments."""
        for slot in tuple(self.envs):
            self._discard(slot)

    def _discard(self, slot: int) -> None:
        env = self.envs.pop(slot, None)
        if env is not None:
            with suppress(Exception, SystemExit):  # the fault says more than what follows from it
                env.close()


def begin(env: gymnasium.Env, seed: int) -> object:
    """What `env.reset` returns for a seed; where numpy's RandomState, as in dm_control, refuses it as too large, for
    `seed % 2**32`."""
    try:
        return env.reset(seed=seed, options={})
    except ValueError as error:
        if seed < RANDOM_STATE_SEEDS or "2**32" not in str(error):
            raise
    return env.reset(seed=seed % RANDOM_STATE_SEEDS, options={})


def bounds(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The flat bounds of a space, rounded to float32 as observations and actions are."""
    with np.errstate(over="ignore"):
        return box.low.ravel().astype(np.float32), box.high.ravel().astype(np.float32)


def _what(result: object) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"


def _vector(value: object, box: Box, what: str) -> np.ndarray:
    """A part of an observation, flat and in float32."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise EnvironmentFault(f"{what} is {value!r:.{SHOWN_CHARACTERS}}; numbers are expected")
    if array.shape != box.shape:
        raise EnvironmentFault(f"{what} has shape {array.shape}; {box.shape} is expected, that of its space")
    return array.ravel().astype(np.float32)


def _scalar(value: object, what: str, expected: str, low: float, high: float) -> float:
    array = np.asarray(value)
    if array.dtype.kind in "biuf" and not array.shape and low <= float(array) <= high:
        return float(array)
    raise EnvironmentFault(f"{what} is {value!r:.{SHOWN_CHARACTERS}}, a {type(value).__name__}; {expected} is expected")


def _reward(value: object) -> float:
    # rewards are recorded in float32
    return _scalar(value, "reward", "a finite number within float32", -MAX_FLOAT32, MAX_FLOAT32)


def _flag(value: object, what: str) -> bool:
    expected = "True or False"
    flag = _scalar(value, what, expected, 0, 1)
    if flag not in (0, 1):
        raise EnvironmentFault(f"{what} is {value!r:.{SHOWN_CHARACTERS}}; {expected} is expected")
    return flag == 1
