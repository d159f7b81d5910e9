"""Steps environments one by one, checks what they return, and turns whatever goes wrong into a `Fault`.

This module imports no torch, as worker processes start with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from gentraj.data.spaces import is_part, is_vector, observed, spec_as_json

MakeEnv = Callable[[], gymnasium.Env]
SHOWN = 80  # characters of a faulty value in a message


class EnvironmentFault(RuntimeError):
    """An environment or an action is faulty; the message says in one line which environment, step and value.

    `finished` is the `Rollout` of the episodes that ended well, or None without any.
    """

    finished: Any = None


class EnvCrashed(EnvironmentFault):
    """An environment raised an error, tried to exit, ended its process or hung."""


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
    crashed: bool = True
    """Whether the environment raised an error, ended its process or hung; false where it returned something faulty."""


class Episode(NamedTuple):
    """An episode to begin, or, with the actions so far, to repeat up to where it was."""

    seed: int
    actions: Sequence[np.ndarray] = ()
    seen_O: np.ndarray | None = None
    """The observation that the actions led to, and must lead to again; None before the first one."""
    pending: np.ndarray | None = None
    """One more action, the answer to which was lost."""


class Malformed(ValueError):
    """An environment returned something of a wrong type or shape."""


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
        space, act, spec = env.observation_space, env.action_space, env.spec
        env_id = spec.id if spec else type(env.unwrapped).__name__
        entries: Mapping[str, Any] = observed(space) if isinstance(space, Dict) else {}
        keys = tuple(obs_keys) or (("observation",) if "desired_goal" in entries else tuple(entries)) if entries else ()
        if absent := [key for key in keys if key not in entries]:
            raise ValueError(f"{env_id}: the agent's observations have the entry '{absent[0]}', which the "
                             f"environment's lack ({', '.join(entries)}); take the environment of its data")
        parts = [space] if is_vector(space) else [part for key in keys if is_part(part := entries.get(key))]
        goal: Any = entries.get("desired_goal")
        if not parts or len(parts) < len(keys) or ("desired_goal" in entries and not is_vector(goal)):
            raise ValueError(f"{env_id}: observation space {space} is not supported; flatten it to a 1-D Box "
                             "(gymnasium.wrappers.FlattenObservation; encode images first), or name the Boxes of the "
                             "dict that are wanted in obs_keys")
        if not is_vector(act):
            raise ValueError(f"{env_id}: action space {act} is not supported; only a 1-D Box is, because models and "
                             "policies act by vectors of real numbers")
        return cls(env_id, spec_as_json(spec) if spec else None,
                   spec.max_episode_steps if spec else None, tuple(parts), keys, goal, act)

    def observed(self, obs: Any, **rest: Any) -> Step:
        """Reads an observation. Raises `Malformed`."""
        parts = [obs[key] for key in self.obs_keys] if self.obs_keys else [obs]
        read = [_vector(part, box, "observation") for part, box in zip(parts, self.boxes, strict=True)]
        goal_G = None if self.goal is None else _vector(obs["desired_goal"], self.goal, "goal")
        return Step(np.concatenate([part.ravel() for part in read]), goal_G, **rest)

    def stepped(self, result: Any) -> Step:
        """Reads what `env.step` returned. Raises `Malformed`."""
        if not isinstance(result, tuple) or len(result) != 5:
            raise Malformed(f"step returned {_what(result)}; observation, reward, terminated, truncated and info are "
                            "expected, as Gymnasium has it (wrap an environment of the old gym)")
        obs, reward, terminated, truncated, info = result
        if not isinstance(info, Mapping):
            raise Malformed(f"info is {info!r:.{SHOWN}}, a {type(info).__name__}; a dict is expected")
        success = next((info[key] for key in ("success", "is_success") if info.get(key) is not None), None)
        return self.observed(obs, reward=_number(reward, "reward"), terminated=_flag(terminated, "terminated"),
                             truncated=_flag(truncated, "truncated"),
                             success=None if success is None else _flag(success, "success"))


class Stepper:
    """Environments in numbered slots, made when their first episode begins, and anew after a fault.

    `begin_call` is told the slot of an environment and the step of its episode before each call of it. `begin` and
    `step` raise nothing: what goes wrong in an environment, an attempt to exit included, is returned as a `Fault`.
    """

    def __init__(self, make_env: MakeEnv, obs_keys: Sequence[str] = (),
                 begin_call: Callable[[int, int], None] = lambda slot, step: None):
        self.make_env, self.obs_keys, self.begin_call = make_env, obs_keys, begin_call
        self.envs: dict[int, gymnasium.Env] = {}
        self.elapsed: dict[int, int] = {}  # steps of the episode in each slot
        self.layout: Layout | None = None

    def describe(self, slot: int = 0) -> Layout:
        """The layout of the environments, for which the first one is made. Raises what making it raises."""
        if self.layout is None:
            self.begin_call(slot, 0)
            self.envs[slot] = self.make_env()
            self.layout = Layout.of(self.envs[slot], self.obs_keys)
        return self.layout

    def begin(self, slot: int, episode: Episode) -> Step | Fault:
        """Resets the environment, and repeats the episode's actions if it has any."""
        self.elapsed[slot] = 0
        step = self._guarded(slot, lambda env, layout: _reset(env, layout, episode.seed))
        for action in episode.actions:
            if isinstance(step, Fault):
                return step
            step = self.step(slot, action)
        if isinstance(step, Fault) or episode.seen_O is None:
            return step
        if not np.array_equal(step.obs_O, episode.seen_O):
            self._discard(slot)
            return Fault("its worker was lost, and the same seed and actions do not lead to the same observation again")
        return step if episode.pending is None else self.step(slot, episode.pending)

    def step(self, slot: int, action: np.ndarray) -> Step | Fault:
        self.elapsed[slot] += 1
        return self._guarded(slot, lambda env, layout: layout.stepped(env.step(action)))

    def close(self) -> None:
        for slot in list(self.envs):
            self._discard(slot)

    def _guarded(self, slot: int, call: Callable[[gymnasium.Env, Layout], Step]) -> Step | Fault:
        self.begin_call(slot, self.elapsed[slot])
        try:
            layout = self.describe(slot)
            if slot not in self.envs:
                self.envs[slot] = self.make_env()
            return call(self.envs[slot], layout)
        except Malformed as error:
            fault = Fault(one_line(str(error)), crashed=False)
        except (Exception, SystemExit) as error:
            fault = Fault(one_line(f"{type(error).__name__}: {error}"))
        self._discard(slot)  # nobody knows its state
        return fault

    def _discard(self, slot: int) -> None:
        if (env := self.envs.pop(slot, None)) is not None:
            with suppress(Exception, SystemExit):  # the fault says more than what follows from it
                env.close()


class Environments(Protocol):
    """Environments in the slots 0, 1, 2 .., in this process or in others."""

    layout: Layout

    def place(self, slot: int) -> str:
        """Where an environment is, for messages."""
        ...

    def begin(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        """Begins an episode in each of these slots."""
        ...

    def step(self, actions: dict[int, np.ndarray]) -> dict[int, Step | Fault]:
        """Takes a step in each of these slots, each of which has an episode under way."""
        ...

    def env(self, slot: int) -> gymnasium.Env:
        """The environment in a slot. Raises ValueError if it is in another process."""
        ...

    def close(self) -> None: ...


class InProcess:
    """`Environments` in this process. One that ends the process ends everything, and one that hangs hangs for ever."""

    def __init__(self, make_env: MakeEnv, obs_keys: Sequence[str] = ()):
        self.stepper = Stepper(make_env, obs_keys)
        self.layout = self.stepper.describe()

    def place(self, slot: int) -> str:
        return f"environment {slot}"

    def begin(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        return {slot: self.stepper.begin(slot, Episode(seed)) for slot, seed in seeds.items()}

    def step(self, actions: dict[int, np.ndarray]) -> dict[int, Step | Fault]:
        return {slot: self.stepper.step(slot, action) for slot, action in actions.items()}

    def env(self, slot: int) -> gymnasium.Env:
        return self.stepper.envs[slot]

    def close(self) -> None:
        self.stepper.close()


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
        raise Malformed(f"{what} is {value!r:.{SHOWN}}; numbers are expected")
    if array.shape != box.shape:
        raise Malformed(f"{what} has shape {array.shape}; {box.shape} is expected, that of its space")
    return array.astype(np.float32)


def _number(value: Any, what: str) -> float:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.shape:
        raise Malformed(f"{what} is {value!r:.{SHOWN}}, a {type(value).__name__}; one number is expected")
    return float(array)


def _flag(value: Any, what: str) -> bool:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.shape or array not in (0, 1):
        raise Malformed(f"{what} is {value!r:.{SHOWN}}, a {type(value).__name__}; True or False is expected")
    return bool(array)
