"""`gentraj evaluate RUN --as world-model`: how far a world model can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.evaluation.evaluate import EvaluationConfig
from envs.evaluation.off_policy import Returns, both_returns, compared
from envs.evaluation.replay import entries
from envs.making import environment_factory

from ..data import Windows, episodes_hash
from ..plots import figures
from ..progress import busy, say
from ..randomness import fold
from ..runs.folder import Run, load, read_data
from ..trajectory import Batch, TrajectorySpec
from ..worlds.open_loop import OpenLoop

HORIZON = 20  # steps of the open loop
WINDOWS = 1000  # of held-out data
DRAWS, SHOWN = 8, 6  # imagined trajectories, and entries of an observation, in the figure


def judge(run: Run, policies: Sequence[Path], folder: Path, config: EvaluationConfig) -> dict[str, Any]:
    """What world.json holds; its figures lie in `folder`. Raises ValueError for a run that is no world model, fewer
    than three policies (none is fine), for a dataset that is not the run's, and what reading it raises."""
    seed = config.seed
    world, windows = run.world_model, held_out(run, seed)
    with busy(f"imagining {len(windows.x_BHD)} held-out windows"):
        loop = OpenLoop.of(world, windows, [fold(seed, i) for i in range(len(windows.x_BHD))])
    groups = entries(config.env_id or run.data.env, run.data.obs_dim)
    errors = {name: loop.errors(dims) for name, dims in groups.items()} | {"reward": loop.rewards()}
    calibration = loop.calibration(world.facts.step_scale)
    figures.plot_errors(errors, folder / "open-loop.png")
    figures.plot_calibration(calibration["expected"], calibration["found"], folder / "calibration.png")
    _draw_imagined(run, loop, windows, folder / "imagined.png", seed)
    judged = {"step": run.step, "seed": seed, "windows": len(windows.x_BHD), "horizon": windows.x_BHD.shape[1] - 1,
              "open_loop": errors, "calibration": calibration, "ends": loop.ends()}
    if policies:
        judged["policies"] = off_policy(run, policies, folder / "returns.png", config)
    return judged


def held_out(run: Run, seed: int) -> Batch:
    """Windows of `HORIZON` steps, or what is left of an episode, that the run was neither trained nor calibrated on,
    but where a single episode was held out."""
    learnt, _, judged = run.config.split(read_data(run.config, run.folder)[0])
    if episodes_hash(learnt) != run.dataset_hash:
        raise ValueError(f"{run.config.dataset}: holds other data than {run.folder} was trained on, so that none are "
                         "known to be held out; put the old ones back, or train anew")
    rows = 1 + min(HORIZON, int(judged.lengths.max()))
    windows = Windows(judged, TrajectorySpec(run.data.obs_dim, run.data.act_dim, rows), run.config.context)
    number = min(WINDOWS, len(windows))
    return windows.gather(np.sort(np.random.default_rng(seed).choice(len(windows), number, replace=False)))


def off_policy(run: Run, policies: Sequence[Path], path: Path, asked: EvaluationConfig) -> dict[str, Any]:
    """What policies earn in the model and in the environment, and how far their orders agree."""
    if (number := len({policy.resolve() for policy in policies})) < 3:
        raise ValueError(f"--policies names {number} different runs; at least three are needed to compare their order")
    env = run.environment(asked.env_id)
    factory, space = environment_factory(env, protocol=asked.protocol), run.action_space(env)
    loaded = [load(policy, device=run.world_model.device) for policy in policies]
    for policy in loaded:
        if (policy.data.obs_dim, policy.data.act_dim) != (run.data.obs_dim, run.data.act_dim):
            raise ValueError(f"{policy.folder}: was trained on observations of width {policy.data.obs_dim} and actions "
                             f"of {policy.data.act_dim}; those of {run.folder} have {run.data.obs_dim} and "
                             f"{run.data.act_dim}: give runs of its environment")
    found: dict[str, Returns] = {}
    for policy in loaded:
        agent = policy.agent(space)
        say(f"{policy.folder}: {asked.episodes} episodes in the model and in {factory.env_id}")
        found[str(policy.folder)] = both_returns(agent, run.world_model, factory, asked.episodes, asked.seed,
                                                 num_envs=asked.num_envs, obs_keys=policy.data.obs_keys,
                                                 goal_dims=policy.data.goal_dims)
    said = compared(found, asked.seed)
    figures.plot_off_policy({name: of[:2] for name, of in found.items()}, path,
                            f"Off-policy evaluation: rank correlation {said['spearman']:.2f}")
    return said


def table(judged: dict[str, Any]) -> str:
    """The judgement as text."""
    at = [k for k in (1, 5, 10, HORIZON) if k <= judged["horizon"]]
    lines = [f"{judged['windows']} held-out windows, step {judged['step']}: root mean square errors, environment units",
             f"{'':34}" + "".join(f"{f'{k} steps':>12}" for k in at)]
    for group, guesses in judged["open_loop"].items():
        lines += [f"{group + ', ' + guess:34}" + "".join(f"{error_T[k - 1]:12.4g}" for k in at)
                  for guess, error_T in guesses.items()]
    ends, expected, found = judged["ends"], *(judged["calibration"][key][-1] for key in ("expected", "found"))
    lines += [f"ends: {ends['ended']} of {ends['steps']} steps, {ends['said']} said, {ends['both']} of both",
              f"error where it is least sure: {found:.3g}, expected {expected:.3g} (deviations of a step's change)"]
    if (policies := judged.get("policies")) is not None:
        low, high = policies["spearman_ci95"]
        lines += [f"{name}: {np.mean(of['imagined']):.4g} imagined, {np.mean(of['true']):.4g} true; {of['truncated']} "
                  f"of {len(of['imagined'])} imagined episodes went beyond what the model knows"
                  for name, of in policies["returns"].items()]
        lines += [f"{len(policies['returns'])} policies: rank correlation {policies['spearman']:.2f} [{low:.2f}, "
                  f"{high:.2f}], mean absolute error {policies['mean_absolute_error']:.4g}"]
    return "\n".join(lines)


def _draw_imagined(run: Run, loop: OpenLoop, windows: Batch, path: Path, seed: int) -> None:
    """The window whose error is the median of those that are whole, or of all."""
    wrong_B = ((loop.mean.obs_BTO - loop.obs_BTO) ** 2).mean(-1).mean(1)
    whole_B = loop.real_BT.all(1)
    order = wrong_B.argsort()
    order = order[whole_B[order]] if whole_B.any() else order
    i = int(order[len(order) // 2])
    T = int(loop.real_BT[i].sum())
    obs_BHO, act_BHA = run.world_model.spec.split(windows.x_BHD)
    each = lambda x: x[i : i + 1].expand(DRAWS, *x.shape[1:])  # noqa: E731
    goal_NG = None if windows.context_BC is None else each(windows.context_BC)
    sampled = run.world_model.imagine(each(obs_BHO)[:, 0], each(act_BHA)[:, :T], goal_NG,
                                      seeds=[fold(seed, n) for n in range(DRAWS)])
    first_1O = loop.start_BO[i : i + 1]
    dims = loop.obs_BTO.flatten(0, 1).std(0).argsort(descending=True)[:SHOWN].sort().values
    with_first = lambda x_TO: torch.cat([first_1O, x_TO[:T]])[:, dims].numpy()  # noqa: E731
    figures.plot_imagined(with_first(loop.obs_BTO[i]), with_first(loop.mean.obs_BTO[i]),
                          np.stack([with_first(x) for x in sampled.obs_BTO.cpu()]), path,
                          [f"observation[{o}]" for o in dims.tolist()])
