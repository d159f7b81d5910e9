"""`gentraj report`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from agents.planning.planner import Planner
from envs.evaluation.evaluate import EvaluationConfig
from envs.evaluation.rollout import Rollout, rollout
from envs.making import environment_factory, recorded_factory
from envs.rendering.headless import CannotRender, render_frame
from envs.rendering.maze import draw_maze

from ..device import pick_device
from ..experiments.world_judgement import judge
from ..plots import trajectories as figures
from ..plots.page import Picture, Table, write_report
from ..plots.style import Plane
from ..progress import say
from ..runs.folder import Run, load
from ..runs.model_card import YARDSTICKS, parameters_trained, read_scores, score_rows
from ..training.log import read_metrics
from ..trajectory import Condition
from .common import RunFolder, check_output

PAGE = "report.html"
EPISODES = 6
SAMPLES = 48


@dataclass(frozen=True)
class Report:
    """Draw a run: loss, scores, executed paths, of a planner samples and plans too; and report.html with all of it.

    Example: gentraj report runs/demo
    """

    run: RunFolder
    """A run folder."""
    out: Path | None = None
    """The page; RUN/report.html by default. Figures go into the folder `figures` beside it."""
    seed: int = 0
    """Seed of the episodes and samples that are drawn."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = tyro.cli(Report, args=argv, prog="gentraj report")
    check_output(args.out or args.run / PAGE, "--out")
    print(make_report(load(args.run, device=pick_device(args.device)), args.out, args.seed))


def make_report(run: Run, out: Path | None = None, seed: int = 0) -> Path:
    """Draws everything a run has and writes the page; what cannot be drawn is named there. Returns the page's path."""
    out = out or run.folder / PAGE
    drawing = Drawing(run, out.parent / "figures", seed)
    scores, note = read_scores(run.folder, run.step, newest=run.step)
    pictures = [drawing.loss(), drawing.scores(scores, note)]
    if run.config.MAIN == "world":
        pictures += world_pictures(run, out.parent / "figures", seed)
    if run.config.MAIN == "model":  # what a policy's generator draws are actions, which lie in no plane
        pictures += [drawing.samples(), *drawing.denoising()]
    if drawing.env is not None:
        pictures += drawing.acting(drawing.env)
    for picture in pictures:
        if picture.image is None:
            say(f"{picture.title}: skipped, {picture.why_missing}")
    return write_report(out, f"gentraj: {run.folder.name}", _facts(run, scores), _tables(run, scores), pictures)


def world_pictures(run: Run, folder: Path, seed: int) -> list[Picture]:
    """How far a world model can be trusted, by data held out of its training, where they are still there."""
    try:
        judge(run, (), folder, EvaluationConfig(seed=seed))
    except (ValueError, OSError) as error:
        return [Picture("Open loop", "", None, str(error))]
    return [Picture("Open loop", "Root mean square error of held-out data: of the mean, of one draw, and of saying "
                    "that nothing changes.", folder / "open-loop.png"),
            Picture("Calibration", "The error that was expected of a step and the one that was found, in bins of "
                    "equally many held-out steps.", folder / "calibration.png"),
            Picture("True and imagined", "A held-out window of median error: by the same actions, what happened, what "
                    "the model expects and eight draws.", folder / "imagined.png")]


class Drawing:
    """The figures of one run. Trajectories are drawn in the plane of the first two goal entries."""

    def __init__(self, run: Run, folder: Path, seed: int):
        self.run, self.folder, self.seed = run, folder, seed
        self.dims = list(run.data.goal_dims[:2]) or [0, min(1, run.data.obs_dim - 1)]
        self.plane = Plane.of(self.dims, run.data.goal_dims)
        known = recorded_factory(run.data.env)
        self.env, maze = (run.data.env, known.maze) if known else (None, None)
        self.background: Callable[[Any], None] | None = None
        if maze is not None:
            self.background = partial(draw_maze, maze_map=maze.map, scaling=maze.scaling)

    def loss(self) -> Picture:
        rows = read_metrics(self.run.folder)
        image = figures.plot_loss(rows, self.folder / "loss.png") if rows else None
        return Picture("Loss", "Mean since the row before, of every trained part.", image, "nothing was logged")

    def scores(self, scores: dict[str, Any], note: str) -> Picture:
        each = {scores.get("agent", "planner"): scores} | {name: scores.get(name) for name in YARDSTICKS}
        bars = {name: (s["return_mean"], *s.get("return_ci95", 2 * [s["return_mean"]])) for name, s in each.items()
                if s}
        image = figures.plot_scores(bars, self.folder / "scores.png", "return per episode") if bars else None
        return Picture("Scores", "Native return, mean and 95 % bootstrap interval over episodes; behaviour is what "
                       "the data's own episodes earned.", image,
                       f"{note} `gentraj evaluate` makes some.")

    def samples(self) -> Picture:
        whole = self.run.reference.mask_BHD.flatten(1).all(1)  # padding is no data
        data = self.run.reference.x_BHD[whole if whole.any() else slice(None)][:SAMPLES]
        spec = self.run.model.spec
        start = Condition.unknown(spec, len(data), device=data.device).with_obs(0, spec.split(data)[0][:, 0])
        x = self.run.model.sample(start, seed=self.seed)[:, 0]
        image = figures.plot_samples_beside_data(self._plane(x), self._plane(data), self.folder / "samples.png",
                                                 self.background, plane=self.plane)
        return Picture("Samples beside data", "Sampled from the same first observations as the windows of data.", image)

    def denoising(self) -> list[Picture]:
        if self.run.model.levels == 1:
            return [Picture("Denoising", "", None, "this model draws a trajectory in one step")]
        spec, frames, levels = self.run.model.spec, [], []
        obs = spec.split(self.run.reference.x_BHD[:1])[0][:, 0]
        start = Condition.unknown(spec, device=obs.device).with_obs(0, obs)

        def observe(x: Tensor, t: Tensor) -> None:
            frames.append(self._plane(x))
            levels.append(float(t))

        self.run.model.sample(start, 6, seed=self.seed, steps=self.run.model.levels or 20, observe=observe)
        show = np.unique(np.linspace(0, len(frames) - 1, 6).round().astype(int))
        data_M2 = self._plane(self.run.reference.x_BHD)[self.run.reference.mask_BHD[..., 0].cpu().numpy()]
        strip = figures.denoising_strip([frames[i] for i in show], [levels[i] for i in show],
                                        self.folder / "denoising.png", self.background, plane=self.plane,
                                        data_M2=data_M2)
        gif = figures.denoising_gif(frames, levels, self.folder / "denoising.gif", self.background, plane=self.plane,
                                    data_M2=data_M2)
        caption = "Six trajectories from one start, from noise to plan; colour runs from the first row to the last."
        return [Picture("Denoising", caption, strip), Picture("Denoising, step by step", caption, gif)]

    def acting(self, env: str) -> list[Picture]:
        if not self.run.data.goal_dims:  # a free plan leads nowhere in particular, and the samples show such
            return [self._frame(env)]
        agent, data = self.run.agent(self.run.action_space(env)), self.run.data
        played = rollout(agent, environment_factory(env), EPISODES, self.seed, EPISODES, obs_keys=data.obs_keys,
                         goal_dims=data.goal_dims, record=True, progress=False)
        if isinstance(agent, Planner):
            return [self._paths(played, agent), self._candidates(agent, played), self._frame(env)]
        return [self._paths(played), self._frame(env)]

    def _paths(self, played: Rollout, planner: Planner | None = None) -> Picture:
        episodes = list(played.recorded or [])
        obs, goal = _first(played)
        plans, title, caption = None, "Executed paths", "The path of each episode, by the policy's own actions."
        if planner is not None:
            chosen, row = planner.propose(obs, goal, played.seeds).chosen()
            plans = [self._plane(x[: int(r) + 1]) for x, r in zip(chosen, row, strict=True)]
            title, caption = "Plans and executed paths", ("The first plan of each episode up to its arrival, and the "
                             "path that the planner's own actions took, replanning on the way.")
        image = figures.plot_paths([e.obs[:, self.dims] for e in episodes], self._plane(obs), goal[:, :2].numpy(),
                                   self.folder / "paths.png", self.background, plans)
        return Picture(title, caption, image)

    def _candidates(self, planner: Planner, played: Rollout) -> Picture:
        if planner.trust is None:
            return Picture("Candidates", "", None, "this planner has a fixed arrival and one candidate")
        obs, goal = _first(played)
        far = int((obs[:, self.dims] - goal[:, :2]).norm(dim=1).argmax())  # the episode with the longest way shows most
        plans = planner.propose(obs[far : far + 1], goal[far : far + 1], [played.seeds[far]])
        x = [self._plane(x) for x in plans.x_BNHD[0]]
        for n, row in enumerate(plans.row_BN[0]):
            x[n][int(row) :] = x[n][int(row)]  # what follows the arrival is not part of the plan
        image = figures.plot_candidates(np.stack(x), plans.ratio_BN[0].cpu().numpy(), int(plans.chosen_B[0]),
                                        self.folder / "candidates.png", self.background, goal=goal[far, :2].numpy())
        return Picture("Candidates and trust", "One plan per proposed arrival. The earliest that the model finds no "
                       "more implausible than data of the same length is executed.", image)

    def _frame(self, name: str) -> Picture:
        env = environment_factory(name, {"render_mode": "rgb_array"})()
        title, caption = "The environment", "A frame of the simulator, rendered headless."
        try:
            env.reset(seed=self.seed)
            return Picture(title, caption, figures.save_image(render_frame(env), self.folder / "environment.png"))
        except CannotRender as error:
            return Picture(title, caption, None, str(error))
        finally:
            env.close()

    def _plane(self, x: Tensor) -> np.ndarray:
        return x[..., self.dims].cpu().numpy()


def _first(played: Rollout) -> tuple[Tensor, Tensor]:
    """First observations and goals of the recorded episodes."""
    episodes = list(played.recorded or [])
    return tuple(torch.from_numpy(np.stack(rows)) for rows in
                 ([e.obs[0] for e in episodes], [e.extras["goal"][0] for e in episodes]))  # type: ignore[return-value]


def _facts(run: Run, scores: dict[str, Any]) -> dict[str, Any]:
    facts = {"environment": scores.get("env_id"), "dataset": run.config.dataset, "training steps": run.step,
             "success rate": scores.get("success_rate"), "native return": scores.get("return_mean")}
    return {name: value for name, value in facts.items() if value is not None}


def _tables(run: Run, scores: dict[str, Any]) -> list[Table]:
    rows = [*run.config.facts(run.parts).items(), ("parameters trained", parameters_trained(run.main))]
    tables = [Table("Model", ("setting", "value"), rows)]
    if not scores:
        return tables
    note = ("Returns are native and unlatched. Behaviour are the data's own episodes; the controller is the one that "
            "made them, without noise, replanning.")
    return [Table("Scores", *score_rows(scores, ("step",)), note), *tables]
