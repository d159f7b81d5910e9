"""Writes report.html: one page with the facts, scores and figures of a run, and a note for each figure that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor
from tqdm import tqdm

from gentraj.agents.planning.planner import Planner
from gentraj.envs.evaluation.rollout import Rollout, RolloutSettings, join, rollout
from gentraj.envs.making import environment_factory, recorded_factory
from gentraj.envs.rendering import CannotRender, Film, rendering
from gentraj.envs.tasks.maze import draw_maze
from gentraj.envs.tasks.registry import OGBENCH

from ...config import JsonObject
from ...data.windows import repeat_last
from ...files import check_output, short_names
from ...plots import figures
from ...plots.comparison import Curve, plot_learning_curves
from ...plots.page import Beside, Picture, Table, show, write_report
from ...plots.style import Plane, in_plane
from ...progress import bar, busy, one_line, say
from ...randomness import unfold
from ...trajectory import Condition, SamplingOptions, only_steps
from ..judge.held_out import decided
from ..judge.saved_scores import YARDSTICKS, read_scores
from ..judge.world_evaluation import JudgeConfig, evaluate_world_model
from ..kinds.folder import RunFolder, last_evaluations
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun
from ..kinds.presets import model_config
from ..kinds.run import Run, steps_done, straight
from ..kinds.world_run import WorldModelRun
from .card import explanation, facts, own_scores, score_rows

EPISODES = 6
SAMPLES = 48
FRAMES = 40  # frames of the film
LONGEST_FILM = 200  # environment steps, if nothing else is drawn of the episode

Draw = Callable[[], Sequence[Table | Picture]]


def make_report(*runs: Run, out: Path | None = None, seed: int = 0) -> Path:
    """Draws the figures of one run or several and writes them as one page, by default report.html in the folder of the
    run, or in the current folder if there are several. Returns the path of the page; the figures are beside it.

    The page of one run begins with what the agent did and how that compares with the data, and ends with how the run
    was made. The page of several shows what their agents do, the scores that `gentraj evaluate` wrote, how their losses
    went and their settings side by side. A figure that cannot be drawn is replaced by a note. Raises ValueError for no
    runs.
    """
    if not runs:
        raise ValueError("no runs were given; give at least one")
    names = short_names([run.folder for run in runs])
    first, *others = runs
    made = {} if others else origin(first)
    out = out or (Path() if others else first.folder) / RunFolder.REPORT
    check_output(out, "--out")
    folder = out.parent / RunFolder.FIGURES
    if others:
        parts = parts_side_by_side(runs, names, folder, seed)
    else:
        parts = parts_of_one(first, folder, seed)
    return write_report(out, f"gentraj: {', '.join(names)}", parts, made)


def parts_of_one(run: Run, folder: Path, seed: int) -> list[Table | Picture]:
    drawing = Drawing(run, folder, seed)
    scores, note = read_scores(run.folder, run.step, newest=run.step)  # a bad file stops the report before the drawing
    work: dict[str, Draw] = {}
    if drawing.env is not None:
        work["The agent"] = partial(drawing.acting, drawing.env)
    if scores:
        work["Scores"] = lambda: [Table("Scores", *score_rows(scores), explanation(scores))]
    work["Returns"] = lambda: drawing.returns(scores, note)
    if isinstance(run, WorldModelRun):
        work["World model"] = drawing.world_model
    if isinstance(run, PolicyRun):
        work["Actions"] = drawing.actions
    if isinstance(run, PlannerRun):  # a policy's model samples actions, not trajectories
        work |= {"Samples and data": drawing.samples, "Denoising": drawing.denoising}
    work["Loss"] = drawing.loss
    work["Model"] = lambda: [Table("Model", ("setting", "value"), list(facts(run).items()))]
    parts: list[Table | Picture] = []
    with bar(len(work), "report", "parts") as done:
        for title, draw in work.items():
            done.set_description_str(f"report, {title}", refresh=False)
            parts += drawn(title, draw)
            done.update()
    for part in parts:
        if isinstance(part, Picture) and part.image is None:
            say(f"{part.title}: skipped, {part.why_missing}")
    return parts


def parts_side_by_side(runs: Sequence[Run], names: Sequence[str], folder: Path,
                       seed: int) -> list[Table | Beside]:
    found = [read_scores(run.folder, run.step, newest=run.step) for run in runs]  # a bad file stops before the drawing
    columns = [own_scores(scores) or {"": note} for scores, note in found]
    scores = Table("Scores", ("", *names), side_by_side(columns), explanation(*(scores for scores, _ in found)))
    made = Table("Runs", ("", *names), side_by_side([facts(run) | origin(run) for run in runs]))
    pictures: dict[str, list[Picture]] = {}
    for name, run in zip(names, runs, strict=True):
        drawing = Drawing(run, folder / name, seed)
        drawings: list[Draw] = []
        if drawing.env is not None:
            drawings.append(partial(drawing.acting, drawing.env))
        if isinstance(run, PolicyRun):
            drawings.append(drawing.actions)
        drawings.append(drawing.loss)
        with busy(f"drawing {name}"):
            parts = [part for draw in drawings for part in drawn("Not drawn", draw)]
        for part in parts:
            if isinstance(part, Picture):
                pictures.setdefault(part.title, []).append(part._replace(title=name))
    rows = [Beside(title, shown) for title, shown in pictures.items()]
    return [*rows[:1], scores, *rows[1:], made]


def side_by_side(columns: Sequence[JsonObject]) -> list[tuple[object, ...]]:
    """The rows of a table whose columns have these entries."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [(key, *(column.get(key) for column in columns)) for key in keys]


def origin(run: Run) -> JsonObject:
    """How the run was made."""
    folder = RunFolder(run.folder)
    first, *resumed = folder.starts() or [{}]
    seconds = sum(row.get("seconds", 0.0) for row in folder.metrics())
    table = {"command": first.get("command"), "last resumed by": resumed[-1].get("command") if resumed else None,
             "training steps": steps_done(run), "training time": tqdm.format_interval(seconds) if seconds else None,
             "device": first.get("device"), "gentraj": first.get("version")}
    return {name: value for name, value in table.items() if value is not None}


def outcomes(played: Rollout) -> list[str]:
    """How each episode ended, in words."""
    if not played.tells_success:
        return [f"return {value:.4g}" for value in played.returns]
    return [f"reached in {hit:.0f} steps" if np.isfinite(hit) else "not reached" for hit in played.first_hit]


def drawn(title: str, draw: Draw) -> Sequence[Table | Picture]:
    """The parts that `draw` returns, or a note with the exception that it raised: one figure never costs the page."""
    try:
        return draw()
    except Exception as error:  # from the data, a plug-in, an environment or our own code
        return [Picture(title, "", None, f"{type(error).__name__}: {one_line(error)}")]


class Drawing:
    """Draws the figures of one run.

    Trajectories are drawn in the plane of the first two goal entries, or of the first two entries of the observation;
    where there is only one, over time.
    """

    def __init__(self, run: Run, folder: Path, seed: int):
        self.run, self.folder = run, folder
        self.seed = seed
        self.dims = list(run.data.goal_dims or range(run.data.obs_dim))[:2]
        factory = recorded_factory(run.data.env)
        self.env = run.data.env if factory else None
        maze = factory.maze if factory else None
        self.plane = Plane.of(self.dims, run.data.goal_dims, maze is not None)
        self.background = partial(draw_maze, maze=maze) if maze and len(self.dims) > 1 else None

    def loss(self) -> list[Picture]:
        """The losses of the training and those on held-out episodes, as far as they were logged."""
        rows = RunFolder(self.run.folder).metrics()
        if not rows:
            return self.held_out(rows)
        image = figures.plot_loss(rows, self.folder / "loss.png")
        caption = "The loss of each trained component, averaged since the last logged step."
        return [Picture("Loss", caption, image), *self.held_out(rows)]

    def held_out(self, rows: Sequence[JsonObject]) -> list[Picture]:
        """What was lost on held-out episodes, beside the same loss in `rows` of metrics.jsonl; nothing without any."""
        measured = RunFolder(self.run.folder).held_out()
        if not measured:
            return []
        curves = {name: {label: Curve.of(table, name) for label, table in (("training", rows), ("held out", measured))
                         if any(name in row for row in table)} for name in measured[-1] if name != "step"}
        image = plot_learning_curves(curves, self.folder / "held-out.png", "loss", "On held-out data")
        return [Picture("Held-out data", "Each measure on episodes held out of the training, with the averaged "
                        "weights, and on those of the training, with the weights at that time. Less is better, except "
                        "for log_likelihood. Where a held-out loss rises, the run memorises its data.", image)]

    def returns(self, scores: JsonObject, note: str) -> list[Picture]:
        if not scores and self.run.data.env is None:  # the logs of a robot
            return []
        means = {name: scores[name]["return_mean"] for name in YARDSTICKS if scores.get(name)}
        image = None
        if scores.get("returns"):
            image = figures.plot_returns(scores["returns"], means, self.folder / "returns.png")
        pictures = [Picture("Returns", "The distribution of the episodes' returns; a mean hides failed ones.", image,
                            f"{note} Run `gentraj evaluate` to have them.")]
        if rows := RunFolder(self.run.folder).curve():
            low, high = np.array([row["return_ci95"] for row in rows]).T
            curve = Curve(np.array([row["step"] for row in rows]), np.array([row["return_mean"] for row in rows]), low,
                          high)
            image = plot_learning_curves({"": {"agent": curve}}, self.folder / "learning-curve.png",
                                         "return per episode", "Score while training")
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

    def actions(self) -> list[Picture]:
        """The actions of a policy in recorded states, against those of the data."""
        spec, reference = self.run.main.spec, self.run.reference
        obs_BHO, act_BHA = spec.split(reference.x_BHD)
        real_B = reference.mask_BHD[:, 0, -1].cpu()
        recorded_NA = act_BHA[:, 0].cpu()[real_B].numpy()
        agent = straight(self.run).agent(Box(recorded_NA.min(0), recorded_NA.max(0)))
        seen_BW = spec.seen(obs_BHO[:, 0], reference.past_BPD)
        chosen_BA = decided(agent, seen_BW.cpu(), reference.context_BC, unfold(len(seen_BW), self.seed))
        image = figures.plot_actions(recorded_NA, chosen_BA[real_B].numpy(), self.folder / "actions.png")
        return [Picture("Actions", "What the policy does in recorded states, over what was recorded. Where recorded "
                        "actions are noisy, or there are several ways to act, the points are beside the line.", image)]

    def samples(self) -> list[Picture]:
        whole = self.run.reference.mask_BHD.flatten(1).all(1)  # without padding
        shown = torch.arange(len(whole), device=whole.device)[whole if whole.any() else slice(None)][:SAMPLES]
        data, spec = repeat_last(self.run.reference)[shown], self.run.model.spec
        x = self.run.model.sample(self._start(shown), seed=self.seed)[:, 0]
        image = figures.plot_samples_beside_data({"samples": self._plane(x, spec.times)}, self._plane(data, spec.times),
                                                 self.folder / "samples.png", self.background, plane=self.plane)
        return [Picture("Samples and data", "Sampled from the same first observations as the windows of data.",
                        image)]

    def denoising(self) -> list[Picture]:
        """A film from noise to plans; nothing for a model that samples a trajectory in one step."""
        frames: list[np.ndarray] = []
        levels: list[float] = []
        config = model_config(self.run.config)
        if config is None or config.DIRECT:
            return []
        spec = self.run.model.spec

        def observe(x: Tensor, t: Tensor) -> None:
            frames.append(self._plane(x, spec.times))
            levels.append(float(t))

        steps = only_steps(self.run.model) or config.max_steps or 20
        self.run.model.sample(self._start(slice(1)), 6, seed=self.seed, options=SamplingOptions(steps=steps),
                              observe=observe)
        data_M2 = self._plane(self.run.reference.x_BHD, spec.times)[self.run.reference.mask_BHD[..., 0].cpu().numpy()]
        image = figures.denoising_gif(frames, levels, self.folder / "denoising.gif", self.background, plane=self.plane,
                                      data_M2=data_M2)
        return [Picture("Denoising", "Six trajectories from one start, from noise to plan; the colour is the timestep.",
                        image)]

    def _start(self, rows: Tensor | slice) -> Condition:
        """The first observations, and the contexts if there are any, of these windows of the data."""
        spec, reference = self.run.model.spec, self.run.reference
        obs_BO = spec.split(reference.x_BHD[rows])[0][:, 0]
        start = Condition.empty(spec, len(obs_BO), device=obs_BO.device).with_obs(0, obs_BO)
        return start if reference.context_BC is None else replace(start, context_BC=reference.context_BC[rows])

    def acting(self, env: str) -> list[Table | Picture]:
        """A film of the agent, and if the data have goals, executed paths and plans: of one episode of each task of
        OGBench, and else of several."""
        data, factory = self.run.data, environment_factory(env)
        parts: list[Table | Picture] = []
        if not data.goal_dims:  # plans have no end to show
            factory = replace(factory, max_episode_steps=min(LONGEST_FILM, factory.max_episode_steps))
        film = Film(FRAMES)
        try:
            factory = rendering(factory)
        except CannotRender as error:
            film = None
            parts.append(Picture("An episode", "", None, str(error)))
        agent, number = self.run.agent(self.run.action_space(env)), EPISODES if data.goal_dims else 1
        if film is not None or data.goal_dims:
            settings = RolloutSettings(number, obs_keys=data.obs_keys, goal_dims=data.goal_dims)
            if any(task.env_id == factory.env_id for task in OGBENCH.values()):
                factory = replace(factory, protocol="ogbench")
            first, *others = factory.tasks
            episodes = [rollout(agent, first, 1 if others else number, self.seed, settings, record=True, watch=film)]
            episodes += [rollout(agent, task, 1, self.seed, settings, record=True) for task in others]
            played = join(episodes)
            if film is not None:
                image = figures.save_gif(film.frames, self.folder / "episode.gif", round(1000 * film.seconds))
                parts.append(Picture("An episode", "The agent acts, at the speed of the simulator.", image))
            if data.goal_dims:
                planner = agent if isinstance(agent, Planner) else None
                name = "task {}" if others else "episode {}"
                titles = [f"{name.format(e)}:\n{outcome}" for e, outcome in enumerate(outcomes(played), bool(others))]
                parts += drawn("Executed paths", lambda: self._paths(played, titles, planner))
        return parts

    def _paths(self, played: Rollout, titles: Sequence[str] = (), planner: Planner | None = None) -> list[Picture]:
        """The executed paths, the first plan of each episode, and one episode's candidates with their trust."""
        episodes = list(played.recorded or [])
        obs_BO = torch.from_numpy(np.stack([e.obs[0] for e in episodes]))
        goal_BG = torch.from_numpy(np.stack([e.extras["goal"][0] for e in episodes]))
        paths = [self._plane(torch.from_numpy(e.obs), range(len(e.obs))) for e in episodes]
        goals = [self._goal(goal, len(path) - 1) for goal, path in zip(goal_BG, paths, strict=True)]
        draw = partial(figures.plot_paths, paths, np.stack(goals), self.folder / "paths.png", self.background,
                       titles=titles, plane=self.plane)
        if planner is None:
            return [Picture("Executed paths", "The path of each episode under the policy.", draw())]
        times = planner.sampler.spec.times
        plans = planner.sampler.sample(obs_BO, goal_BG, played.seeds)
        whole = planner.sampler.whole(obs_BO, goal_BG, played.seeds)
        chosen = [self._plane(plan.x_TD, plan.spec.times) for plan in whole]
        caption = ("The plan of each episode from its start up to its arrival, and the path that was executed, with "
                   "replanning on the way.")
        if plans.aim is not None:
            routes = [planner.sampler.route(*each) for each in zip(obs_BO, goal_BG, strict=True)]
            ways = [figures.NOWHERE if route is None else route.place_NG[:, :2] for route in routes]
            draw = partial(draw, ways=ways)
            caption += " The recorded way is the shortest one on the roadmap of the data."
        pictures = [Picture("Plans and executed paths", caption, draw(chosen))]
        if planner.sampler.trust is not None:
            far = int((obs_BO[:, self.dims] - goal_BG[:, :2]).norm(dim=1).argmax())  # of the goal that is farthest
            x_NH2, best = self._plane(plans.x_BNHD[far], times), int(plans.chosen_B[far])
            for n, arrival in enumerate(plans.arrival_step_BN[far]):
                x_NH2[n, int(arrival) :] = x_NH2[n, int(arrival)]  # the plan ends at its arrival
            aimed_BG, where = goal_BG, ""
            if plans.aim is not None:
                aimed_BG, where = plans.aim.place_BG.cpu(), " at a place on the way to the goal"
            goal = self._goal(aimed_BG[far], times[int(plans.arrival_step_BN[far, best])])
            image = figures.plot_candidates(x_NH2, plans.ratio_BN[far].cpu().numpy(), best,
                                            self.folder / "candidates.png", self.background, goal=goal,
                                            plane=self.plane)
            pictures.append(Picture("Candidates and trust", f"One plan per proposed arrival{where}. The planner "
                                    "executes the earliest trusted one: no farther out of distribution than data of "
                                    "the same length, and close to recorded positions.", image))
        return pictures

    def _plane(self, x_NHD: Tensor, times: Sequence[int]) -> np.ndarray:
        """(..., H, 2) the points of trajectories (..., H, D) whose timesteps are at these times."""
        return in_plane(x_NHD.cpu().numpy(), self.dims, times)

    def _goal(self, goal_G: Tensor, time: int) -> np.ndarray:
        """(2,) the point of a goal, which is to be reached at this time."""
        return np.array([time, *goal_G[: len(self.dims)].tolist()])[-2:]
