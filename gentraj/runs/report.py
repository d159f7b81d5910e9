"""Writes report.html: one page with the facts, scores and figures of a run, and a note for each figure that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gentraj.agents.planning.planner import Planner
from gentraj.envs.evaluation.rollout import Rollout, RolloutSettings, rollout
from gentraj.envs.making import EnvironmentFactory, environment_factory, recorded_factory
from gentraj.envs.rendering.film import CannotRender, Film, rendering
from gentraj.envs.tasks.maze import draw_maze

from ..data.windows import repeat_last
from ..plots import figures
from ..plots.page import Picture, Table, show, write_report
from ..plots.style import Plane, in_plane
from ..progress import bar, one_line, say
from ..trajectory import Condition, SamplingOptions, only_steps
from .folder import RunFolder, last_evaluations
from .model_card import YARDSTICKS, parameters_trained, read_scores, score_rows
from .models import model_config
from .planner import PlannerRun
from .run import Run, steps_done
from .world import WorldModelRun
from .world_evaluation import JudgeConfig, evaluate_world_model

EPISODES = 6
SAMPLES = 48
FRAMES = 40  # frames of the film
SHORT = 200  # environment steps of the film if nothing else is drawn of the episode

Draw = Callable[[], Sequence[Picture]]


def make_report(run: Run, out: Path | None = None, seed: int = 0) -> Path:
    """Draws all figures of a run and writes the page, by default into the run's folder. Returns the path of the page.

    A figure that cannot be drawn is replaced by a note.
    """
    out = out or run.folder / RunFolder.REPORT
    drawing = Drawing(run, out.parent / RunFolder.FIGURES, seed)
    scores, note = read_scores(run.folder, run.step, newest=run.step)
    about = facts(run, scores)  # a file that cannot be read stops the report before anything is drawn
    work: dict[str, Draw] = {"Loss": drawing.loss, "Scores": lambda: drawing.scores(scores, note)}
    if isinstance(run, WorldModelRun):
        work["World model"] = drawing.world_model
    if isinstance(run, PlannerRun):  # a policy's model samples actions, not trajectories
        work |= {"Samples and data": drawing.samples, "Denoising": drawing.denoising}
    if drawing.env is not None:
        work["The agent"] = partial(drawing.acting, drawing.env)
    pictures: list[Picture] = []
    with bar(len(work), "report", "figures") as done:
        for title, draw in work.items():
            done.set_description_str(f"report, {title}", refresh=False)
            pictures += drawn(title, draw)
            done.update()
    for picture in pictures:
        if picture.image is None:
            say(f"{picture.title}: skipped, {picture.why_missing}")
    return write_report(out, f"gentraj: {run.folder.absolute().name}", about, _tables(run, scores), pictures)


def drawn(title: str, draw: Draw) -> Sequence[Picture]:
    """The figures that `draw` returns, or a note with the exception that it raised: one figure never costs the page."""
    try:
        return draw()
    except (ValueError, OSError, CannotRender) as error:  # the messages of these are enough
        return [Picture(title, "", None, one_line(error))]
    except Exception as error:  # from a plug-in, an environment or our own code
        return [Picture(title, "", None, f"{type(error).__name__}: {one_line(error)}")]


class Drawing:
    """Draws the figures of one run.

    Trajectories are drawn in the plane of the first two goal entries, or of the first two entries of the observation;
    where there is only one, over time.
    """

    def __init__(self, run: Run, folder: Path, seed: int):
        self.run, self.folder, self.seed = run, folder, seed
        files = RunFolder(run.folder)
        self.metrics, self.curve = files.metrics(), files.curve()
        self.dims = list(run.data.goal_dims or range(run.data.obs_dim))[:2]
        factory = recorded_factory(run.data.env)
        self.env, maze = (run.data.env, factory.maze) if factory else (None, None)
        self.plane = Plane.of(self.dims, run.data.goal_dims, maze is not None)
        self.background: Callable[[Any], None] | None = None
        if maze is not None:
            self.background = partial(draw_maze, maze_map=maze.map, scaling=maze.scaling)

    def loss(self) -> list[Picture]:
        image = figures.plot_loss(self.metrics, self.folder / "loss.png") if self.metrics else None
        caption = "The loss of each trained component, averaged since the last logged step."
        return [Picture("Loss", caption, image, "nothing was logged")]

    def scores(self, scores: dict[str, Any], note: str) -> list[Picture]:
        beside = {name: s for name in YARDSTICKS if (s := scores.get(name))}
        means = {name: s["return_mean"] for name, s in beside.items()}
        each = ({scores.get("agent", "planner"): scores} if scores else {}) | beside
        bars = {name: (s["return_mean"], *s.get("return_ci95", 2 * [s["return_mean"]])) for name, s in each.items()}
        image = figures.plot_scores(bars, self.folder / "scores.png", "return per episode") if bars else None
        pictures = [Picture("Scores", "The environment's return, mean and 95 % bootstrap interval over episodes; "
                            "behaviour is the return of the episodes in the data.", image,
                            f"{note} Run `gentraj evaluate` to have them.")]
        if scores.get("returns"):
            image = figures.plot_returns(scores["returns"], means, self.folder / "returns.png")
            pictures.append(Picture("Returns", "The distribution of the episodes' returns; a mean hides failed ones.",
                                    image))
        if rows := self.curve:
            image = figures.plot_learning_curve(rows, means, self.folder / "learning-curve.png")
            last = last_evaluations(rows)
            last_three = f" The mean over the last three is {show(last['return_mean'])}." if last else ""
            pictures.append(Picture("Score while training", f"Mean return of {rows[-1]['episodes']} episodes, always "
                                    "from the same starts, and its 95 % interval. The result of the training is its "
                                    f"last checkpoint, whatever it scored.{last_three}", image))
        return pictures

    def world_model(self) -> list[Picture]:
        """How far a world model can be trusted on data that were held out of its training."""
        evaluate_world_model(self.run, self.folder, JudgeConfig(seed=self.seed))
        return [Picture("Open loop", "Root mean square error on held-out data: of the mean prediction, of one sample, "
                        "and of predicting no change.", self.folder / "open-loop.png"),
                Picture("Calibration", "The expected and the measured error of a step, in bins with equal numbers of "
                        "held-out steps.", self.folder / "calibration.png"),
                Picture("True and imagined", "A held-out window of median error: what happened, what the model expects "
                        "after the same actions, and eight samples.", self.folder / "imagined.png")]

    def samples(self) -> list[Picture]:
        whole = self.run.reference.mask_BHD.flatten(1).all(1)  # without padding
        shown = torch.arange(len(whole), device=whole.device)[whole if whole.any() else slice(None)][:SAMPLES]
        data, spec = repeat_last(self.run.reference)[shown], self.run.model.spec
        start = self._start(shown)
        x = self.run.model.sample(start, seed=self.seed)[:, 0]
        image = figures.plot_samples_beside_data(self._plane(x, spec.times), self._plane(data, spec.times),
                                                 self.folder / "samples.png", self.background, plane=self.plane)
        return [Picture("Samples and data", "Sampled from the same first observations as the windows of data.",
                        image)]

    def denoising(self) -> list[Picture]:
        generator = model_config(self.run.config)
        if generator is None or generator.ONE_CALL:
            return [Picture("Denoising", "", None, "this model samples a trajectory in one step")]
        spec, frames, levels = self.run.model.spec, [], []
        start = self._start(slice(1))

        def observe(x: Tensor, t: Tensor) -> None:
            frames.append(self._plane(x, spec.times))
            levels.append(float(t))

        steps = only_steps(self.run.model) or generator.max_steps or 20
        self.run.model.sample(start, 6, seed=self.seed, options=SamplingOptions(steps=steps), observe=observe)
        shown = np.unique(np.linspace(0, len(frames) - 1, 6).round().astype(int))
        data_M2 = self._plane(self.run.reference.x_BHD, spec.times)[self.run.reference.mask_BHD[..., 0].cpu().numpy()]
        strip = figures.denoising_strip([frames[i] for i in shown], [levels[i] for i in shown],
                                        self.folder / "denoising.png", self.background, plane=self.plane,
                                        data_M2=data_M2)
        gif = figures.denoising_gif(frames, levels, self.folder / "denoising.gif", self.background, plane=self.plane,
                                    data_M2=data_M2)
        caption = "Six trajectories from one start, from noise to plan; the colour is the timestep."
        return [Picture("Denoising", caption, strip), Picture("Denoising, step by step", caption, gif)]

    def _start(self, rows: Tensor | slice) -> Condition:
        """The first observations, and the contexts if there are any, of these windows of the data."""
        spec, reference = self.run.model.spec, self.run.reference
        obs_BO = spec.split(reference.x_BHD[rows])[0][:, 0]
        start = Condition.empty(spec, len(obs_BO), device=obs_BO.device).with_obs(0, obs_BO)
        return start if reference.context_BC is None else replace(start, context_BC=reference.context_BC[rows])

    def acting(self, env: str) -> list[Picture]:
        """A film of the agent, and if the data have goals, executed paths and plans."""
        goals = bool(self.run.data.goal_dims)  # without goals, plans have no end to show
        factory = environment_factory(env)
        if not goals:
            factory = replace(factory, max_episode_steps=min(SHORT, factory.max_episode_steps))
        film, why = self._film(factory)
        if not goals and film is None:
            return [self._gif(film, why)]
        agent, number = self.run.agent(self.run.action_space(env)), EPISODES if goals else 1
        settings = RolloutSettings(number, obs_keys=self.run.data.obs_keys, goal_dims=self.run.data.goal_dims)
        played = rollout(agent, rendering(factory) if film else factory, number, self.seed, settings, record=True,
                         watch=film)
        work: dict[str, Draw] = {"An episode": lambda: [self._gif(film, why)]}
        if goals and isinstance(agent, Planner):
            work |= {"Plans and executed paths": lambda: [self._paths(played, agent)],
                     "Candidates and trust": lambda: [self._candidates(agent, played)]}
        elif goals:
            work["Executed paths"] = lambda: [self._paths(played)]
        return [picture for title, draw in work.items() for picture in drawn(title, draw)]

    def _film(self, factory: EnvironmentFactory) -> tuple[Film | None, str]:
        """An empty film, or None and the reason why the environment cannot be filmed."""
        try:
            rendering(factory)
        except CannotRender as error:
            return None, str(error)
        return Film(FRAMES, factory.max_episode_steps), ""

    def _gif(self, film: Film | None, why: str) -> Picture:
        if film is None:
            return Picture("An episode", "", None, why)
        seconds = film.seconds * len(film.frames)
        image = figures.save_gif(film.frames, self.folder / "episode.gif", round(1000 * film.seconds))
        return Picture("An episode", f"The agent acts for {seconds:.0f} s, at the speed of the simulator.", image)

    def _paths(self, played: Rollout, planner: Planner | None = None) -> Picture:
        episodes = list(played.recorded or [])
        obs, goal = _first(played)
        plans, title, caption = None, "Executed paths", "The path of each episode under the policy."
        if planner is not None:
            chosen, arrival = planner.sampler.sample(obs, goal, played.seeds).chosen()
            times = planner.sampler.spec.times
            plans = [self._plane(x, times)[: int(a) + 1] for x, a in zip(chosen, arrival, strict=True)]
            title, caption = "Plans and executed paths", ("The first plan of each episode up to its arrival, and the "
                             "path that was executed, with replanning on the way.")
        paths = [self._plane(torch.from_numpy(e.obs), range(len(e.obs))) for e in episodes]
        goals = np.stack([self._goal(one, len(path) - 1) for one, path in zip(goal, paths, strict=True)])
        image = figures.plot_paths(paths, np.stack([path[0] for path in paths]), goals, self.folder / "paths.png",
                                   self.background, plans, plane=self.plane)
        return Picture(title, caption, image)

    def _candidates(self, planner: Planner, played: Rollout) -> Picture:
        if planner.sampler.trust is None:
            return Picture("Candidates", "", None, "this planner has a fixed arrival and one candidate")
        obs, goal = _first(played)
        far = int((obs[:, self.dims] - goal[:, :2]).norm(dim=1).argmax())  # the goal that is farthest from its start
        plans = planner.sampler.sample(obs[far : far + 1], goal[far : far + 1], [played.seeds[far]])
        times = planner.sampler.spec.times
        x = self._plane(plans.x_BNHD[0], times)
        chosen = int(plans.chosen_B[0])
        for n, arrival in enumerate(plans.arrival_step_BN[0]):
            x[n, int(arrival) :] = x[n, int(arrival)]  # the plan ends at its arrival
        goal_2 = self._goal(goal[far], times[int(plans.arrival_step_BN[0, chosen])])
        image = figures.plot_candidates(x, plans.ratio_BN[0].cpu().numpy(), chosen, self.folder / "candidates.png",
                                        self.background, goal=goal_2, plane=self.plane)
        return Picture("Candidates and trust", "One plan per proposed arrival. The planner executes the earliest one "
                       "that the model finds no further out of distribution than data of the same length.", image)

    def _plane(self, x_NHD: Tensor, times: Sequence[int]) -> np.ndarray:
        """(..., H, 2) the points of trajectories (..., H, D) whose timesteps are at these times."""
        return in_plane(x_NHD.cpu().numpy(), self.dims, times)

    def _goal(self, goal_G: Tensor, time: int) -> np.ndarray:
        """(2,) the point of a goal, which is to be reached at this time."""
        return np.array([time, *goal_G[: len(self.dims)].tolist()])[-2:]


def _first(played: Rollout) -> tuple[Tensor, Tensor]:
    """The first observations and the goals of the recorded episodes."""
    episodes = list(played.recorded or [])
    return (torch.from_numpy(np.stack([e.obs[0] for e in episodes])),
            torch.from_numpy(np.stack([e.extras["goal"][0] for e in episodes])))


def facts(run: Run, scores: Mapping[str, Any]) -> dict[str, Any]:
    """The table at the head of the page: how the run was made, and its return beside those of the yardsticks."""
    first, *resumed = RunFolder(run.folder).starts() or [{}]
    seconds = sum(row.get("seconds", 0.0) for row in RunFolder(run.folder).metrics())
    low, high = scores.get("return_ci95", (None, None))
    beside = {f"return of {name}": (scores.get(name) or {}).get("return_mean") for name in YARDSTICKS}
    table = {"command": first.get("command"), "last resumed by": resumed[-1].get("command") if resumed else None,
            "environment": scores.get("env_id"), "dataset": run.config.dataset,
            "training steps": steps_done(run), "training time": duration(seconds) if seconds else None,
            "seed": run.config.training.seed, "device": first.get("device"), "gentraj": first.get("version"),
            "return (mean of episodes)": scores.get("return_mean"),
            "its 95 % interval": None if low is None else f"{show(low)} to {show(high)}",
            "episodes": scores.get("episodes"), "success rate": scores.get("success_rate"), **beside}
    return {name: value for name, value in table.items() if value is not None}


def duration(seconds: float) -> str:
    """Seconds in words, such as "12 s", "3 min 20 s" or "5 h 2 min"."""
    whole = round(seconds)
    for name, size, smaller, small in (("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // small} {smaller}"
    return f"{whole} s"


def _tables(run: Run, scores: dict[str, Any]) -> list[Table]:
    rows = [*run.facts().items(), ("parameters trained", parameters_trained(run.main))]
    tables = [Table("Model", ("setting", "value"), rows)]
    if not scores:
        return tables
    note = ("A return is the sum of the environment's own rewards over a whole episode. Behaviour is the mean of the "
            "data's own episodes; the controller recorded the data, and acts without noise and with replanning here.")
    return [Table("Scores", *score_rows(scores, ("step", "env_id", "episodes", "seeds")), note), *tables]
