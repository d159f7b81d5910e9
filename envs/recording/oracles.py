"""OGBench data by its own scripted oracles, which pursue one random target after another, as in its play data."""

from __future__ import annotations

from typing import Any

import numpy as np

from gentraj.data import Episodes
from gentraj.data.episodes import last_steps
from gentraj.progress import bar
from gentraj.randomness import fold, seeded

from ..making import environment_factory
from ..tasks.ogbench_envs import GOAL_KEYS, make_base, settled
from ..tasks.registry import OGBENCH

STACKING = {"double": (0.0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5), "octuple": (0.0, 0.35)}
"""The range of the probability, drawn for each episode, that a cube's target is on another cube."""
RUN_STEPS = 1_000  # an episode ends with the first target that is finished after this number of steps


def record(task: str, steps: int, seed: int = 0, *, progress: bool = True) -> Episodes:
    """Records at least `steps` steps of a task of `OGBENCH`; the last episode is recorded to its end.

    An oracle with smooth noise (OGBench's defaults) brings one object after another to a random place. The goal of all
    steps towards a target is what the oracle has achieved at their end; the reward is 1 where the object is at its
    target. Episode r is a function of (seed, r). Raises ImportError, in one line, without the package ogbench.
    """
    base = make_base(OGBENCH[task].base_id, mode="data_collection", terminate_at_goal=False)
    oracles = _oracles(base, task)
    columns = list(OGBENCH[task].goal_dims)
    stacking = STACKING.get(task.rpartition("-")[2])
    runs = []
    with bar(steps, f"recording {task}", shown=progress) as done:
        while sum(len(run["act"]) for run in runs) < steps:
            with seeded(fold(seed, len(runs))):  # the oracles draw from numpy's global generator
                runs.append(_run(base, oracles, columns, fold(seed, len(runs)), stacking))
            done.update(len(runs[-1]["act"]))
    base.close()
    lengths = np.array([len(run["act"]) for run in runs])
    obs, act, reward, goal = (np.concatenate([run[key] for run in runs]) for key in ("obs", "act", "reward", "goal"))
    return Episodes(obs, act, reward, np.zeros(len(act), bool), last_steps(lengths), lengths, {"goal": goal},
                    tuple(columns), GOAL_KEYS[:1], environment_factory(task).spec_json, name=task)


def _run(base: Any, oracles: dict[str, Any], columns: list[int], seed: int,
         stacking: tuple[float, float] | None) -> dict[str, np.ndarray]:
    """Records one episode of T steps: obs (T + 1, O), act (T, A), reward (T,), goal (T + 1, G)."""
    _, info = base.reset(seed=seed & 0x7FFFFFFF)
    p_stack = 0.0 if stacking is None else np.random.uniform(*stacking)
    rows = [settled(base)]
    goals = []
    act = []
    reward = []
    while True:
        oracle, begun = oracles[info["privileged/target_task"]], len(act)
        oracle.reset(rows[-1], info)
        while not oracle.done:
            act.append(np.clip(oracle.select_action(rows[-1], info), -1, 1).astype(np.float32))
            obs, r, _, _, info = base.step(act[-1])
            rows.append(obs)
            reward.append(r)
        goals += [rows[-1][columns]] * (len(act) - begun)
        if len(act) >= RUN_STEPS:
            break
        _, info = base.set_new_target(p_stack=p_stack)
    arrays = {"obs": rows, "act": act, "reward": reward, "goal": [*goals, goals[-1]]}
    return {key: np.asarray(value, np.float32) for key, value in arrays.items()}


def _oracles(base: Any, task: str) -> dict[str, Any]:
    """Returns the oracles by the kind of target. A puzzle has only buttons, and its gripper stays closed."""
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle  # pyright: ignore[reportMissingImports]
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle  # pyright: ignore[reportMissingImports]
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle  # pyright: ignore[reportMissingImports]
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle  # pyright: ignore[reportMissingImports]

    button = ButtonPlanOracle(env=base, gripper_always_closed="puzzle" in task)
    return {"button": button, "cube": CubePlanOracle(env=base), "drawer": DrawerPlanOracle(env=base),
            "window": WindowPlanOracle(env=base)}
