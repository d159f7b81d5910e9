"""Environments that end their process, exit, raise or hang. Workers import this without torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box

LENGTH = 6
STEP = 3  # of the fault


def kill(env: Misbehaving) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(env: Misbehaving) -> None:
    raise OSError(5, "the simulator\nis gone")


def leave_politely(env: Misbehaving) -> None:
    sys.exit("no licence")


def hang(env: Misbehaving) -> None:
    env.mark.write_text(str(os.getpid()))
    while True:
        time.sleep(3600)


HOW = {each.__name__: each for each in (kill, fail, leave_politely, hang)}


class Misbehaving(gymnasium.Env):
    """Its observation counts the steps and adds up the actions and a random number that the seed determines.

    In episodes with one of these seeds, it misbehaves in step 3.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, how: str = "", seeds: tuple[int, ...] = (), mark: Path = Path()):
        self.how, self.seeds, self.mark = how, seeds, mark

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bad = seed in self.seeds
        self.state = np.array([0, 0, self.np_random.normal()])
        return self.state, {}

    def step(self, action):
        self.state = self.state + np.array([1, float(action.sum()), self.np_random.normal()])
        if self.bad and self.state[0] == STEP:
            HOW[self.how](self)
        return self.state, float(self.state[1:].sum()), False, self.state[0] == LENGTH, {}


def deadly() -> gymnasium.Env:
    os._exit(3)
