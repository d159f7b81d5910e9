"""Vectorised environments with flat float32 observations, in which every number is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from gentraj.data.spaces import flattening
from gentraj.progress import say_once

from .stepping import EnvCrashed, EnvironmentFault, Environments, Fault, InProcess, MakeEnv, Step, one_line
from .workers import Workers

SLACK = 1e-3  # how far outside its own bounds an observation may be: environments round


class VectorEnvironment:
    """`batch` environments that are stepped together. A finished one must be reset before the next step.

    The entries `obs_keys` of a dict observation are flattened and joined; its "desired_goal" is kept apart. By default
    they are "observation" where there are goals, or else all entries, and a line on stderr says so. After each reset
    and step `obs_BO` (B, O) and `goal_BG` (B, G), or None without goals, are new float32 arrays. With `workers`, so
    many processes step the environments, and a call of one may take `time_limit` seconds; the results are the same
    bits. `strict` raises the first `EnvironmentFault`; otherwise `faults` holds those of the last call by environment,
    in whose rows nothing is new. Raises ValueError for observation and action spaces other than 1-D Boxes and dicts of
    Boxes.
    """

    def __init__(self, make_env: MakeEnv, batch: int, obs_keys: Sequence[str] = (), *, workers: int = 0,
                 time_limit: float = 60.0, strict: bool = True):
        self.envs: Environments = (Workers(make_env, batch, obs_keys, workers, time_limit) if workers else
                                   InProcess(make_env, obs_keys))
        layout = self.envs.layout
        self.env_id, self.spec_json, self.obs_keys = layout.env_id, layout.spec_json, layout.obs_keys
        self.max_episode_steps, self.action_space, self.boxes = (
            layout.max_episode_steps, layout.action_space, layout.boxes)
        self.has_goal, self.reports_success = layout.goal is not None, False
        self.lowest = self.highest = 0.0  # reward so far
        self.goal_dim = 0 if layout.goal is None else layout.goal.shape[0]
        if self.obs_keys and not obs_keys and not self.has_goal:
            say_once(flattening(self.env_id, dict(zip(self.obs_keys, self.boxes, strict=True))))
        self.act_low_A, self.act_high_A = bounds(self.action_space)
        self.low_O = np.concatenate([bounds(box)[0] for box in self.boxes]) - SLACK
        self.high_O = np.concatenate([bounds(box)[1] for box in self.boxes]) + SLACK
        self.strict, self.faults = strict, dict[int, EnvironmentFault]()
        self.seeds: list[int] = [0] * batch
        self.elapsed_B = np.zeros(batch, int)
        self.obs_BO = np.zeros((batch, self.obs_dim), np.float32)
        self.goal_BG = np.zeros((batch, self.goal_dim), np.float32) if self.has_goal else None

    @property
    def obs_dim(self) -> int:
        return len(self.low_O)

    @property
    def act_dim(self) -> int:
        return len(self.action_space.low)

    @property
    def tells_success(self) -> bool:
        """Whether success is known: by the info, or, with goals, by positive rewards. Rewards that are negative and
        never positive, such as -1 until the goal and 0 there, do not say where the goal is reached."""
        return self.reports_success or (self.has_goal and (self.highest > 0 or self.lowest == 0))

    def reset(self, mask_B: np.ndarray, seeds: Sequence[int]) -> None:
        """Resets the masked environments with their seeds; `seeds` holds one for each environment."""
        self.seeds, self.faults = list(seeds), {}
        self.elapsed_B[mask_B] = 0
        self._observe(self.envs.begin({int(i): self.seeds[i] for i in np.flatnonzero(mask_B)}))

    def step(self, act_BA: np.ndarray, mask_B: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Steps the masked environments (all by default); returns reward, terminated, truncated, success and reported,
        (B,) each.

        Raises ValueError for actions of another shape, and `EnvironmentFault` for a faulty action or environment.
        Success is the environment's own `info["success"]` or `info["is_success"]`, where it is reported, or else a
        positive reward if there are goals.
        """
        if act_BA.shape != (shape := (len(self.obs_BO), self.act_dim)):
            raise ValueError(f"the agent's actions have shape {act_BA.shape}; {self.env_id} needs {shape}")
        self._check_actions(act_BA)
        self.faults = {}
        stepped = range(len(act_BA)) if mask_B is None else np.flatnonzero(mask_B).tolist()
        self.elapsed_B[stepped] += 1
        if (space := self.action_space).dtype.kind == "f":  # an action at a rounded bound may lie beyond the true one
            act_BA = act_BA.astype(space.dtype).clip(space.low, space.high)
        answers = self.envs.step({i: act_BA[i] for i in stepped})
        result = {"reward": np.zeros(len(act_BA))} | {
            key: np.zeros(len(act_BA), bool) for key in ("terminated", "truncated", "success", "reported")}
        for i, step in self._observe(answers).items():
            reported = step.success is not None
            self.reports_success |= reported
            self.lowest, self.highest = min(self.lowest, step.reward), max(self.highest, step.reward)
            success = step.success if reported else step.reward > 0 and self.has_goal
            values = step.reward, step.terminated, step.truncated, success, reported
            for key, value in zip(result, values, strict=True):
                result[key][i] = value
        return result

    def env(self, i: int) -> gymnasium.Env:
        """One of the environments, to be filmed. Raises ValueError if it is in a worker process."""
        return self.envs.env(i)

    def close(self) -> None:
        self.envs.close()

    def _check_actions(self, act_BA: np.ndarray) -> None:
        outside_B = ((act_BA < self.act_low_A) | (act_BA > self.act_high_A)).any(1)
        for bad_B, why in ((~np.isfinite(act_BA).all(1), "; finite numbers are expected"),
                           (outside_B, ", which is outside {}; clip it in the agent")):
            if bad_B.any():
                i = int(np.argmax(bad_B))
                raise self._fault(i, f"the agent's action is {act_BA[i]}{why.format(self.action_space)}")

    def _observe(self, answers: Mapping[int, Step | Fault]) -> dict[int, Step]:
        """Checks and keeps what the environments returned; returns the steps that hold no fault."""
        steps = {}
        for i, answer in answers.items():
            if isinstance(answer, Fault):
                self._fail(i, answer.text, EnvCrashed if answer.crashed else EnvironmentFault)
            else:
                steps[i] = answer
        if not steps:
            return steps
        index, obs_RO = list(steps), np.array([step.obs_O for step in steps.values()])
        outside_R = ((obs_RO < self.low_O) | (obs_RO > self.high_O)).any(1)
        reward_R = np.array([step.reward for step in steps.values()])
        with np.errstate(over="ignore"):  # rewards are recorded in float32
            self._refuse(index, ~np.isfinite(reward_R.astype(np.float32)), "reward", reward_R,
                         "a finite number within float32 is expected")
        self._refuse(index, ~np.isfinite(obs_RO).all(1), "observation", obs_RO, "finite numbers are expected")
        self._refuse(index, outside_R, "observation", obs_RO, "numbers inside the environment's own observation "
                     "space are expected")
        self.obs_BO = self.obs_BO.copy()  # whoever has read it may keep it
        if self.goal_BG is not None:
            goal_RG = np.array([step.goal_G for step in steps.values()])
            self._refuse(index, ~np.isfinite(goal_RG).all(1), "goal", goal_RG, "finite numbers are expected")
            self.goal_BG = self.goal_BG.copy()
            self.goal_BG[index] = np.where(np.isfinite(goal_RG), goal_RG, self.goal_BG[index])
        self.obs_BO[index] = np.where(np.isfinite(obs_RO), obs_RO, self.obs_BO[index])
        return {i: step for i, step in steps.items() if i not in self.faults}

    def _refuse(self, index: Sequence[int], bad_R: Any, what: str, value_R: np.ndarray, why: str) -> None:
        if bad_R.any():
            for row in np.flatnonzero(bad_R).tolist():
                self._fail(index[row], f"{what} is {value_R[row]}; {why}")

    def _fail(self, i: int, text: str, kind: type[EnvironmentFault] = EnvironmentFault) -> None:
        """Notes or raises a fault; the first one of an environment counts."""
        fault = self._fault(i, text, kind)
        if self.strict:
            raise fault
        self.faults.setdefault(i, fault)

    def _fault(self, i: int, text: str, kind: type[EnvironmentFault] = EnvironmentFault) -> EnvironmentFault:
        return kind(f"{self.env_id}, {self.envs.place(i)} (seed {self.seeds[i]}), step {self.elapsed_B[i]}: "
                    f"{one_line(text)}")


def bounds(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The flat bounds of a space, rounded to float32 as observations and actions are."""
    with np.errstate(over="ignore"):
        return box.low.ravel().astype(np.float32), box.high.ravel().astype(np.float32)


def tells_success(make_env: MakeEnv) -> bool:
    """Whether the environment's episodes have a success rate; to read the info and a reward, a step is played."""
    with closing(VectorEnvironment(make_env, 1)) as envs:
        envs.action_space.seed(0)
        envs.reset(np.ones(1, bool), [0])
        envs.step(envs.action_space.sample()[None])
        return envs.tells_success
