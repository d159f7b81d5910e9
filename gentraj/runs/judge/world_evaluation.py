"""`gentraj judge RUN`: how far a world model can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from gentraj.envs.evaluation.replay import entries
from gentraj.envs.evaluation.rollout import RolloutSettings
from gentraj.envs.making import environment_factory

from ...config import JsonObject, settings
from ...data import Windows, episodes_hash
from ...entries import entry_word
from ...plots import figures
from ...plots.comparison import Curve, plot_learning_curves
from ...plots.page import text_table
from ...plots.signals import Signals, plot_signals
from ...plots.style import BLUE, INK, ORANGE
from ...progress import busy, counted, say
from ...randomness import fold
from ...trajectory import Batch
from ...worlds.facts import rewards_and_ends
from ...worlds.model import Imagined, WorldModel
from ..kinds.datasets import read_data
from ..kinds.loading import load
from ..kinds.run import Run, check_widths, environment_of, of_kind
from ..kinds.world_run import WorldModelRun
from .off_policy import Returns, both_returns, compared

HORIZON = 20  # steps of an open-loop prediction
HELD_OUT_WINDOWS = 1000  # number of held-out windows
FIGURE_SAMPLES = 8  # number of sampled trajectories in the figure
DIAGRAM_BINS = 10  # of a calibration


@settings
class JudgeConfig:
    """How a world model is judged. Raises ValueError for one or two policies, whose order would say nothing."""

    policies: tuple[Path, ...] = ()
    """Runs of at least three policies, whose returns in the model are compared with their returns in the
    environment."""
    env_id: str | None = None
    """The environment of the policies: a Gymnasium id or a task name, whose arguments --env-kwargs KEY=VALUE gives. The
    default is that of the data."""
    episodes: PositiveInt = 50
    """Episodes of each policy, in the model and in the environment."""
    num_envs: PositiveInt = 25
    """Environments that run side by side."""
    seed: NonNegativeInt = 0
    """Seed of the windows, the samples and the episodes."""

    def __post_init__(self) -> None:
        if self.policies and (number := len({policy.resolve() for policy in self.policies})) < 3:
            raise ValueError(f"policies names {number} different runs; at least three are needed to compare their "
                             "order")


class OpenLoop(NamedTuple):
    """Windows of T real steps, and the rollouts of a world model from their first observations with their actions.

    `real_BT` is false for padding. `mean` is the rollout without noise and `sampled` one with noise; both are on the
    CPU, in environment units.
    """

    obs_BTO: Tensor
    reward_BT: Tensor
    ended_BT: Tensor
    real_BT: Tensor
    start_BO: Tensor
    mean: Imagined
    sampled: Imagined

    @classmethod
    def of(cls, world: WorldModel, batch: Batch, seeds: Sequence[int]) -> OpenLoop:
        """Rolls `world` out on the windows of `batch`, which may have any horizon, with a seed for each."""
        obs_BHO, act_BHA = world.spec.split(batch.x_BHD)
        real_BT = batch.mask_BHD[:, 1:, 0]
        mean, sampled = (Imagined(*(x.cpu() for x in world.imagine(
            obs_BHO[:, 0], act_BHA[:, :-1], batch.context_BC, seeds=seeds, temperature=temperature, real_BT=real_BT,
            past_BPD=batch.past_BPD))) for temperature in (0.0, 1.0))
        return cls(obs_BHO[:, 1:], *rewards_and_ends(batch), real_BT, obs_BHO[:, 0], mean, sampled)

    def errors(self, dims: Sequence[int], scale_O: Tensor | None = None) -> dict[str, list[float]]:
        """The root mean square errors (T,) of the entries `dims` of the observation after each step.

        They are in units of `scale_O` (environment units by default), for three predictions: the "mean", a "sample"
        with noise, and "nothing changes", which repeats the first observation.
        """
        scale_O = torch.ones_like(self.obs_BTO[0, 0]) if scale_O is None else scale_O.cpu()
        guesses = {"mean": self.mean.obs_BTO, "sample": self.sampled.obs_BTO,
                   "nothing changes": self.start_BO[:, None].expand_as(self.obs_BTO)}
        squared = {name: (((guess - self.obs_BTO) / scale_O)[..., list(dims)] ** 2).mean(-1)
                   for name, guess in guesses.items()}
        return {name: self._average(error_BT).sqrt().tolist() for name, error_BT in squared.items()}

    def rewards(self) -> dict[str, list[float]]:
        """The root mean square errors (T,) of each step's reward, for the model's mean and the average reward."""
        average = (self.reward_BT * self.real_BT).sum() / self.real_BT.sum()
        guesses = {"mean": self.mean.reward_BT, "the average": average.expand_as(self.reward_BT)}
        return {name: self._average((guess - self.reward_BT) ** 2).sqrt().tolist() for name, guess in guesses.items()}

    def calibration(self, scale_O: Tensor) -> dict[str, list[float]]:
        """The calibration of the first step: "expected" and "found" root mean square errors of each bin.

        Steps are sorted by uncertainty into bins of equal size. Errors are in units of `scale_O` (O,), as
        `WorldFacts.step_scale`.
        """
        error_B = (((self.mean.obs_BTO - self.obs_BTO)[:, 0] / scale_O.cpu()) ** 2).mean(-1)[self.real_BT[:, 0]]
        uncertainty_B = self.mean.uncertainty_BT[:, 0][self.real_BT[:, 0]]
        parts = [part for part in uncertainty_B.argsort().tensor_split(DIAGRAM_BINS) if len(part)]
        return {"expected": [float((uncertainty_B[part] ** 2).mean().sqrt()) for part in parts],
                "found": [float(error_B[part].mean().sqrt()) for part in parts]}

    def ends(self) -> JsonObject:
        """Counts the "steps", those that "ended" an episode by termination, those that the model "predicted" to end
        it, and those for which "both" hold."""
        predicted_BT, ended_BT = (self.mean.end_BT > 0.5) & self.real_BT, self.ended_BT & self.real_BT
        counted = {"steps": self.real_BT, "ended": ended_BT, "predicted": predicted_BT, "both": predicted_BT & ended_BT}
        return {name: int(step_BT.sum()) for name, step_BT in counted.items()}

    def _average(self, x_BT: Tensor) -> Tensor:
        """(T,) the mean over the windows that have each step; 0 where no window does."""
        return torch.where(self.real_BT, x_BT, 0).sum(0) / self.real_BT.sum(0).clamp(min=1)


def evaluate_world_model(run: Run, folder: Path, config: JudgeConfig) -> JsonObject:
    """Compares the predictions of a world model with held-out data and returns what world.json holds.

    Figures are written to `folder`. Raises ValueError for a run that is no world model, for policies of another
    environment and for a dataset that is not the run's; also raises what reading the data raises.
    """
    run, seed = of_kind(run, WorldModelRun), config.seed
    world, windows = run.world_model, held_out(run, seed)
    with busy(f"imagining {len(windows.x_BHD)} held-out windows"):
        loop = OpenLoop.of(world, windows, [fold(seed, i) for i in range(len(windows.x_BHD))])
    groups = entries(config.env_id or run.data.env, run.data.obs_dim)
    errors = {name: loop.errors(dims) for name, dims in groups.items()} | {"reward": loop.rewards()}
    calibration = loop.calibration(world.facts.step_scale)
    curves = {group: {guess: Curve.of([{"step": k, guess: error} for k, error in enumerate(error_T, 1)], guess)
                      for guess, error_T in guesses.items()} for group, guesses in errors.items()}
    plot_learning_curves(curves, folder / "open-loop.png", "error (environment units)",
                         "Open loop: root mean square error against the horizon", "environment steps", log=True)
    figures.plot_calibration(calibration["expected"], calibration["found"], folder / "calibration.png")
    _draw_imagined(run, loop, windows, folder / "imagined.png", seed)
    judged = {"step": run.step, "seed": seed, "windows": len(windows.x_BHD), "horizon": windows.x_BHD.shape[1] - 1,
              "open_loop": errors, "calibration": calibration, "ends": loop.ends()}
    if config.policies:
        judged["policies"] = off_policy(run, config)
    return judged


def held_out(run: WorldModelRun, seed: int) -> Batch:
    """Windows of `HORIZON` steps, or fewer if none is as long, that the run was not trained on.

    The run was not calibrated on them either, unless only a single episode was held out. A dataset that is missing is
    not recorded: policies that are trained anew for it may act otherwise than those of the run's data.
    """
    parts = run.split(run.config, read_data(run.config, run.folder, record=False))
    judged = parts.test
    if episodes_hash(parts.train) != run.dataset_hash:
        raise ValueError(f"{run.config.dataset}: holds other data than {run.folder} was trained on, so none are "
                         "known to be held out; restore the old data, or train again")
    number = min(HELD_OUT_WINDOWS, judged.num_steps)
    starts_B = np.sort(np.random.default_rng(seed).choice(judged.num_steps, number, replace=False))

    def gathered(timesteps: int) -> Batch:
        spec = replace(run.world_model.spec, horizon=timesteps)
        return Windows(judged, spec, run.context).gather(starts_B)

    return gathered(int(gathered(1 + HORIZON).mask_BHD[..., 0].any(0).sum()))  # the error of no window would be 0


def off_policy(run: WorldModelRun, config: JudgeConfig) -> JsonObject:
    """The returns of policies in the model and in the environment, and how far the two rankings agree."""
    env = environment_of(run, config.env_id)
    factory, space = environment_factory(env), run.action_space(env)
    loaded = [load(policy, device=run.world_model.device) for policy in config.policies]
    for policy in loaded:
        check_widths(run, policy)
    by_policy: dict[str, Returns] = {}
    for policy in loaded:
        say(f"{policy.folder}: {counted(config.episodes, 'episodes')} in the model and in {factory.env_id}")
        how = RolloutSettings(config.num_envs, obs_keys=policy.data.obs_keys, goal_dims=policy.data.goal_dims)
        by_policy[str(policy.folder)] = both_returns(policy.agent(space), run.world_model, factory, config.episodes,
                                                     config.seed, how)
    return compared(by_policy, config.seed)


def table(judged: JsonObject) -> str:
    """The judgement as a text table."""
    at = [k for k in (1, 5, 10, HORIZON) if k <= judged["horizon"]]
    rows = [["", *(f"{k} steps" for k in at)]]
    for group, guesses in judged["open_loop"].items():
        rows += [[f"{group}, {guess}", *(error_T[k - 1] for k in at)] for guess, error_T in guesses.items()]
    lines = [f"{judged['windows']} held-out windows, step {judged['step']}: root mean square errors, environment units",
             text_table(rows)]
    ends = judged["ends"]
    expected, found = (judged["calibration"][key][-1] for key in ("expected", "found"))
    lines += [f"ends: {ends['ended']} of {ends['steps']} steps, {ends['predicted']} predicted, {ends['both']} both",
              f"error where the model is least certain: {found:.3g}, expected {expected:.3g} (in standard deviations "
              "of the change in a step)"]
    if (policies := judged.get("policies")) is not None:
        low, high = policies["spearman_ci95"]
        lines += [f"{name}: {np.mean(returns['imagined']):.4g} imagined, {np.mean(returns['true']):.4g} true; "
                  f"{returns['truncated']} of {len(returns['imagined'])} imagined episodes went beyond the model's data"
                  for name, returns in policies["returns"].items()]
        lines += [f"{len(policies['returns'])} policies: rank correlation {policies['spearman']:.2f} [{low:.2f}, "
                  f"{high:.2f}], mean absolute error {policies['mean_absolute_error']:.4g}"]
    return "\n".join(lines)


def _draw_imagined(run: WorldModelRun, loop: OpenLoop, windows: Batch, path: Path, seed: int) -> None:
    """Draws the window of median error among those without padding, or among all if each has padding."""
    wrong_B = ((loop.mean.obs_BTO - loop.obs_BTO) ** 2).mean(-1).mean(1)
    whole_B = loop.real_BT.all(1)
    order = wrong_B.argsort()
    order = order[whole_B[order]] if whole_B.any() else order
    i = int(order[len(order) // 2])
    T = int(loop.real_BT[i].sum())
    one = windows.take(torch.full((FIGURE_SAMPLES,), i))
    obs_SHO, act_SHA = run.world_model.spec.split(one.x_BHD)
    sampled = run.world_model.imagine(obs_SHO[:, 0], act_SHA[:, :T], one.context_BC, past_BPD=one.past_BPD,
                                      seeds=[fold(seed, n) for n in range(FIGURE_SAMPLES)])

    def with_first(x_NTO: Tensor) -> np.ndarray:
        first_N1O = loop.start_BO[i].expand(len(x_NTO), 1, -1)
        return torch.cat([first_N1O, x_NTO[:, :T]], dim=1).numpy()

    step_T = np.arange(T + 1)
    plot_signals([Signals("true", step_T, with_first(loop.obs_BTO[i : i + 1]), INK, 3.5, 0.4),
                  Signals("expected", step_T, with_first(loop.mean.obs_BTO[i : i + 1]), ORANGE, 1.8),
                  Signals("sampled", step_T, with_first(sampled.obs_BTO.cpu()), BLUE, 0.8, 0.5)],
                 [entry_word("observation", o, run.data.obs_names) for o in range(run.data.obs_dim)], path,
                 "True and imagined, by the same actions")
