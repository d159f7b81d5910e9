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
from gentraj.envs.tasks.registry import OGBENCH

from ...config import JsonObject
from ...data.windows import repeat_last
from ...files import check_output
from ...plots import figures
from ...plots.comparison import Curve, plot_learning_curves
from ...plots.page import Picture, Table, show, write_report
from ...plots.signals import Signals, executed, plot_signals
from ...plots.style import BLUE, GREEN, ORANGE, Floor
from ...progress import bar, one_line, say
from ...randomness import unfold
from ...trajectory import Condition
from ..judge.held_out import decided
from ..judge.saved_scores import read_scores, yardstick_returns
from ..judge.world_evaluation import JudgeConfig, evaluate_world_model
from ..kinds.folder import RunFolder, last_evaluations
from ..kinds.loading import load
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun
from ..kinds.run import Run, steps_done, straight
from ..kinds.world_run import WorldModelRun
from .card import explanation, facts, score_rows
from .floor import draw_samples, entry_names, floor_of

EPISODES = 6
SAMPLES = 48
FRAMES = 40  # frames of the film
LONGEST_FILM = 200  # environment steps, if nothing else is drawn of the episode
FANS = 5  # steps of an episode from which plans are drawn
FAN = 12  # plans from each

Draw = Callable[[], Sequence[Table | Picture]]


def make_report(run: Run | Path | str, out: Path | str | None = None, seed: int = 0) -> Path:
    """Draws the figures of a run, or of that in a folder, and writes them as one page, by default report.html in the
    folder of the run. Returns the path of the page; the figures are beside it.

    The page begins with what the agent did and how that compares with the data, and ends with how the run was made. A
    figure that cannot be drawn is replaced by a note.
    """
    if not isinstance(run, Run):
        run = load(run)
    out = Path(run.folder / RunFolder.REPORT if out is None else out)
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"out= is {out}; a file that ends in .html is expected")
    check_output(out, "out=")
    parts = drawn_parts(run, out.parent / RunFolder.FIGURES, seed)
    return write_report(out, f"gentraj: {run.folder.absolute().name}", parts, origin(run))


def drawn_parts(run: Run, folder: Path, seed: int) -> list[Table | Picture]:
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
        work["Samples and data"] = drawing.samples
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

    Trajectories are drawn on a `floor`, that of a maze or the plane of the first two goal entries, or else over time.
    """

    def __init__(self, run: Run, folder: Path, seed: int):
        self.run, self.folder = run, folder
        self.seed = seed
        self.env = run.data.env if recorded_factory(run.data.env) else None
        self.floor = floor_of(run.data)
        self.names = entry_names(run.data)

    def loss(self) -> list[Picture]:
        """The losses of the training and what was measured on held-out episodes, as far as they were logged."""
        folder = RunFolder(self.run.folder)
        tables = {"training": folder.metrics(), "held out": folder.held_out()}
        logged = [name for row in tables["training"] for name in row if "loss" in name]
        measured = [name for row in tables["held out"] for name in row if name != "step"]
        curves = {name: {label: Curve.of(rows, name) for label, rows in tables.items()
                         if any(name in row for row in rows)} for name in dict.fromkeys(logged + measured)}
        if not curves:
            return []
        caption = "The loss of each trained component, averaged since the last logged step."
        if measured:
            caption += (" Held out: the same measure on episodes held out of the training, with the averaged weights. "
                        "Less is better, except for log_likelihood. Where a held-out loss rises, the run memorises its "
                        "data.")
        image = plot_learning_curves(curves, self.folder / "loss.png", "loss", "Losses", log=True)
        return [Picture("Loss", caption, image)]

    def returns(self, scores: JsonObject, note: str) -> list[Picture]:
        if not scores and self.run.data.env is None:  # the logs of a robot
            return []
        means = yardstick_returns(scores)
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
        image = figures.plot_actions(recorded_NA, chosen_BA[real_B].numpy(), self.folder / "actions.png",
                                     self.names[self.run.data.obs_dim :])
        return [Picture("Actions", "What the policy does in recorded states, over what was recorded. Where recorded "
                        "actions are noisy, or there are several ways to act, the points are beside the line.", image)]

    def samples(self) -> list[Picture]:
        whole = self.run.reference.mask_BHD.flatten(1).all(1)  # without padding
        shown = torch.arange(len(whole), device=whole.device)[whole if whole.any() else slice(None)][:SAMPLES]
        data, spec = repeat_last(self.run.reference)[shown], self.run.model.spec
        x = self.run.model.sample(self._start(shown), seed=self.seed)[:, 0]
        image = draw_samples(self.run.data, spec, {"samples": x.cpu().numpy()}, data.cpu().numpy(),
                             self.folder / "samples.png")
        return [Picture("Samples and data", "Sampled from the same first observations as the windows of data.",
                        image)]

    def _start(self, rows: Tensor) -> Condition:
        """The first observations, and the contexts if there are any, of these windows of the data."""
        spec, reference = self.run.model.spec, self.run.reference
        obs_BO = spec.split(reference.x_BHD[rows])[0][:, 0]
        start = Condition.empty(spec, len(obs_BO), device=obs_BO.device).with_obs(0, obs_BO)
        return start if reference.context_BC is None else replace(start, context_BC=reference.context_BC[rows])

    def acting(self, env: str) -> list[Table | Picture]:
        """An episode of the agent as a film, or where nothing renders by its signals; on a floor also the executed
        paths and plans of several, or of one of each task of OGBench."""
        data, factory = self.run.data, environment_factory(env)
        number = EPISODES
        floor = self.floor if data.goal_dims else None
        if floor is None:
            number = 1
            factory = replace(factory, max_episode_steps=min(LONGEST_FILM, factory.max_episode_steps))
        film, why = Film(FRAMES), ""
        try:
            factory = rendering(factory)
        except CannotRender as error:
            film, why = None, f" There is no film: {error}"
        space = self.run.action_space(env)
        agent = self.run.agent(space)
        planner = agent if isinstance(agent, Planner) else None
        settings = RolloutSettings(number, obs_keys=data.obs_keys, goal_dims=data.goal_dims)
        if any(task.env_id == factory.env_id for task in OGBENCH.values()):
            factory = replace(factory, protocol="ogbench")
        first, *others = factory.tasks
        episodes = [rollout(agent, first, 1 if others else number, self.seed, settings, record=True, watch=film)]
        episodes += [rollout(agent, task, 1, self.seed, settings, record=True) for task in others]
        played = join(episodes)
        parts: list[Table | Picture] = []
        if film is not None:
            image = figures.save_gif(film.frames, self.folder / "episode.gif", round(1000 * film.seconds))
            parts.append(Picture("An episode", "The agent acts, at the speed of the simulator.", image))
        if film is None or floor is None:
            title = "An episode" if film is None else "Signals of the episode"
            parts += drawn(title, lambda: [self._signals(title, played, planner, space, why)])
        if floor is not None:
            name = "task {}" if others else "episode {}"
            titles = [f"{name.format(e)}:\n{outcome}" for e, outcome in enumerate(outcomes(played), bool(others))]
            parts += drawn("Executed paths", lambda: self._paths(floor, played, titles, planner))
        return parts

    def _signals(self, title: str, played: Rollout, planner: Planner | None, space: Box, why: str) -> Picture:
        """What was observed and done in the first episode, and what a planner plans from some of its observations."""
        episode = next(iter(played.recorded or []))
        steps, width = len(episode.act), len(self.names)
        x_1TD = executed(episode.obs, episode.act)
        signals = [Signals("executed", np.arange(steps + 1), x_1TD, BLUE, 2.2)]
        caption = f"What was observed and done, {outcomes(played)[0]}; the limits are those of the action space."
        goal_TG = episode.extras.get("goal")
        if goal_TG is not None and self.run.data.goal_dims:
            goal_1TD = np.full_like(x_1TD, np.nan)
            goal_1TD[..., list(self.run.data.goal_dims)] = goal_TG
            signals.append(Signals("goal", np.arange(steps + 1), goal_1TD, GREEN))
        if planner is not None:
            start_K = np.unique(np.linspace(0, steps - 1, FANS).astype(int))
            goal_KG = None
            if goal_TG is not None:
                goal_KG = torch.from_numpy(goal_TG[start_K])
            plans = planner.sampler.sample(torch.from_numpy(episode.obs[start_K]), goal_KG, start_K.tolist())
            x_KNHD = plans.x_BNHD[:, :FAN].cpu().numpy()
            plan_KNHD = np.pad(x_KNHD, ((0, 0), (0, 0), (0, 0), (0, width - x_KNHD.shape[-1])), constant_values=np.nan)
            times_H = np.array(planner.sampler.spec.times)
            signals += [Signals("planned", step + times_H, x_NHD, ORANGE, 0.6, 0.6)
                        for step, x_NHD in zip(start_K, plan_KNHD, strict=True)]
            caption += f" Plans are drawn from {len(start_K)} of the steps."
        bounds_2D = np.full((2, width), np.nan)
        bounds_2D[:, self.run.data.obs_dim :] = space.low, space.high
        image = plot_signals(signals, self.names, self.folder / "signals.png", "An episode over time", bounds_2D)
        return Picture(title, caption + why, image)

    def _paths(self, floor: Floor, played: Rollout, titles: Sequence[str], planner: Planner | None) -> list[Picture]:
        """The executed paths, the first plan of each episode, and one episode's candidates with their trust."""
        episodes = list(played.recorded or [])
        obs_BO = torch.from_numpy(np.stack([e.obs[0] for e in episodes]))
        goal_BG = torch.from_numpy(np.stack([e.extras["goal"][0] for e in episodes]))
        paths = [floor.places(e.obs) for e in episodes]
        draw = partial(figures.plot_paths, paths, goal_BG[:, :2].numpy(), self.folder / "paths.png", floor,
                       titles=titles)
        if planner is None:
            return [Picture("Executed paths", "The path of each episode under the policy.", draw())]
        plans = planner.sampler.sample(obs_BO, goal_BG, played.seeds)
        whole = planner.sampler.whole(obs_BO, goal_BG, played.seeds)
        chosen = [floor.places(plan.x_TD.cpu().numpy()) for plan in whole]
        caption = ("The plan of each episode from its start up to its arrival, and the path that was executed, with "
                   "replanning on the way.")
        if plans.aim is not None:
            routes = [planner.sampler.route(*each) for each in zip(obs_BO, goal_BG, strict=True)]
            ways = [figures.NOWHERE if route is None else route.place_NG[:, :2] for route in routes]
            draw = partial(draw, ways=ways)
            caption += " The recorded way is the shortest one on the roadmap of the data."
        pictures = [Picture("Plans and executed paths", caption, draw(chosen))]
        if planner.sampler.trust is not None:
            away_B2 = floor.places(obs_BO.numpy()) - goal_BG[:, :2].numpy()
            far = int(np.linalg.norm(away_B2, axis=1).argmax())  # of the goal that is farthest
            x_NH2, best = floor.places(plans.x_BNHD[far].cpu().numpy()), int(plans.chosen_B[far])
            for n, arrival in enumerate(plans.arrival_step_BN[far]):
                x_NH2[n, int(arrival) :] = x_NH2[n, int(arrival)]  # the plan ends at its arrival
            aimed_BG, where = goal_BG, ""
            if plans.aim is not None:
                aimed_BG, where = plans.aim.place_BG.cpu(), " at a place on the way to the goal"
            image = figures.plot_candidates(x_NH2, plans.ratio_BN[far].cpu().numpy(), best,
                                            self.folder / "candidates.png", floor, goal=aimed_BG[far, :2].numpy())
            pictures.append(Picture("Candidates and trust", f"One plan per proposed arrival{where}. The planner "
                                    "executes the earliest trusted one: no farther out of distribution than data of "
                                    "the same length, and close to recorded positions.", image))
        return pictures
