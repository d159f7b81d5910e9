"""Draws the moving pictures of docs/gallery.md.

    python -m benchmarks.gallery maze runs/demo             # OUT/maze.gif: plans, and the path that is executed
    python -m benchmarks.gallery denoising runs/demo        # plans from noise
    python -m benchmarks.gallery obstacle runs/demo         # plans that have to avoid a disc, wherever it is
    python -m benchmarks.gallery play runs/swift-hopper     # an agent in its simulator, in real time
    python -m benchmarks.gallery world runs/world           # the simulator beside a world model, after the same actions
    python -m benchmarks.gallery mpc runs/tutorial-world    # a pendulum that is swung up in a world model's imagination

Pictures of simulators need EGL or another backend of MuJoCo (MUJOCO_GL).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
import tyro
from torch import Tensor

import gentraj
from gentraj.agents import MPC, MPCConfig, Planner, WorldModelSimulator
from gentraj.constraints import Circle, Constraints
from gentraj.diffusion import Constrained
from gentraj.envs import environment_factory, rollout
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.rendering.film import Film, rendering, speed
from gentraj.envs.rendering.maze import draw_maze
from gentraj.envs.rendering.renderer import Renderer
from gentraj.plots.figures import save_gif
from gentraj.plots.style import BLUE, GREEN, INK, ORANGE, VERMILION
from gentraj.progress import bar
from gentraj.runs import Run
from gentraj.trajectory import only_steps

FRAME_MS = 60
SIDE = 260  # pixels, of the longer side
DISC = 0.28  # radius of the obstacle


@dataclass(frozen=True)
class Args:
    picture: Annotated[Literal["maze", "denoising", "obstacle", "play", "world", "mpc"], tyro.conf.Positional]
    """What to draw."""
    run: Annotated[Path, tyro.conf.Positional]
    """Run folder: of a planner in a maze, of any agent (play), of a world model with its data (world, mpc)."""
    out: Path = Path("docs/gallery")
    """Folder of the picture."""
    name: str | None = None
    """Name of the file, without .gif; by default that of the picture."""
    steps: int = 240
    """Environment steps of an episode."""
    seed: int = 0
    """Seed of the episode and of the samples."""
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    path = args.out / f"{args.name or args.picture}.gif"
    PICTURES[args.picture](gentraj.load(args.run), args, path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


class Canvas:
    """A matplotlib figure of one or more panels, whose frames are arrays (height, width, 3)."""

    def __init__(self, panels: int = 1, size: float = 2.6):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(size * panels, size), dpi=100, layout="constrained", facecolor="white")
        self.canvas, self.axes = FigureCanvasAgg(self.figure), self.figure.subplots(1, panels, squeeze=False)[0]

    def frame(self) -> np.ndarray:
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


def in_maze(run: Run) -> Canvas:
    """A canvas with the walls of the run's maze."""
    canvas, maze = Canvas(), environment_factory(run.environment()).maze
    if maze is None:
        raise SystemExit(f"{run.folder} has no PointMaze; give a run such as that of gentraj demo")
    draw_maze(canvas.axes[0], maze.map, maze.scaling)
    return canvas


def ends(run: Run) -> tuple[Tensor, Tensor]:
    """The start, at rest, and the goal that are furthest apart in the maze."""
    maze: Any = environment_factory(run.environment()).maze
    cells = [(a, b) for a in maze.cells for b in maze.cells]
    start, goal = max(cells, key=lambda pair: distance(maze, *pair))
    return torch.tensor([*maze.centre(start), 0, 0]).float(), torch.from_numpy(maze.centre(goal)).float()


def distance(maze: Any, cell: int, goal: int) -> int:
    """The number of cells that are entered on a shortest way, which exists."""
    count = 0
    while cell != goal:
        cell, count = int(maze.next_cell[goal, cell]), count + 1
    return count


def maze(run: Run, args: Args, path: Path) -> None:
    """An episode: the plan that is followed, its rivals, and the path so far."""
    canvas, agent = in_maze(run), cast(Planner, run.agent(run.action_space()))
    envs = VectorEnvironment(environment_factory(run.environment()), 1, run.data.obs_keys)
    ax, frames, way = canvas.axes[0], [], []
    with closing(envs):
        envs.reset(np.ones(1, bool), [args.seed])
        agent.reset(seeds_B=[args.seed])
        for step in range(args.steps):
            goal_BG = torch.from_numpy(cast(np.ndarray, envs.goal_BG))
            way.append(envs.obs_BO[0, :2])
            envs.step(agent.act(torch.from_numpy(envs.obs_BO), goal_BG).numpy())
            if step % 4 == 0:
                drawn = draw_plans(ax, agent)
                drawn += ax.plot(*np.array(way).T, color=BLUE, lw=2)
                drawn += ax.plot(*way[-1], "o", color=GREEN, ms=9) + ax.plot(*goal_BG[0], "*", color=VERMILION, ms=13)
                frames.append(canvas.frame())
                for artist in drawn:
                    artist.remove()
    save_gif(frames, path, FRAME_MS, side=SIDE)


def draw_plans(ax: Any, agent: Planner) -> list[Any]:
    """Draws the candidates of the last decision up to their arrivals, and the chosen one."""
    plans = agent.last
    drawn = [line for x, row in zip(plans.x_BNHD[0, :, :, :2], plans.row_BN[0], strict=True)
             for line in ax.plot(*x[: int(row) + 1].T, color=ORANGE, lw=0.8, alpha=0.5)]
    chosen, row_B = plans.chosen()
    return drawn + ax.plot(*chosen[0, : int(row_B[0]) + 1, :2].T, color=ORANGE, lw=2)


def denoising(run: Run, args: Args, path: Path) -> None:
    """Eight plans between the two ends of the maze, from noise to plan."""
    (start, goal), spec, canvas, frames = ends(run), run.model.spec, in_maze(run), []
    condition = gentraj.Condition.empty(spec).with_obs(0, start).with_obs(-1, goal, dims=(0, 1))

    def observe(x: Tensor, t: Tensor) -> None:
        drawn = [line for way in x.reshape(-1, *x.shape[-2:])[..., :2]
                 for line in canvas.axes[0].plot(*way.T, ".-", color=BLUE, lw=0.6, ms=3, alpha=0.6)]
        canvas.axes[0].set_title(f"noise {float(t):.2f}", fontsize=9)
        frames.append(canvas.frame())
        for artist in drawn:
            artist.remove()

    canvas.axes[0].autoscale(False)
    steps = only_steps(run.model) or run.config.generator.max_steps or 20
    run.model.sample(condition, 8, seed=args.seed, observe=observe, options=gentraj.SamplingOptions(steps=steps))
    save_gif(frames, path, 3 * FRAME_MS, side=SIDE, last_ms=1500)


def obstacle(run: Run, args: Args, path: Path) -> None:
    """Plans between the two ends of the maze that keep out of a disc, which wanders across their way."""
    (start, goal), spec, canvas, frames = ends(run), run.model.spec, in_maze(run), []
    condition = gentraj.Condition.empty(spec).with_obs(0, start).with_obs(-1, goal, dims=(0, 1))
    free = run.model.sample(condition, 12, seed=args.seed)[0, :, :, :2]
    middle = free.mean(0)[len(free[0]) // 2]
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    with bar(len(turns), "obstacle", "frames") as shown:
        for turn in turns:
            centre = float(middle[0]) + 0.25 * math.sin(turn), float(middle[1]) + 0.5 * math.cos(turn)
            limits = Constraints(spec, [Circle(centre, DISC, dims=(0, 1))])
            x = run.model.sample(condition, 12, guide=Constrained(limits, strict=False), seed=args.seed)
            frames.append(with_disc(canvas, x[0, :, :, :2], limits.certificate(x).feasible[0], centre))
            shown.update()
    save_gif(frames, path, 2 * FRAME_MS, side=SIDE, last_ms=2 * FRAME_MS)


def with_disc(canvas: Canvas, plans_NH2: Tensor, feasible_N: Tensor, centre: tuple[float, float]) -> np.ndarray:
    """A frame of plans around a disc; a plan without a certificate is red."""
    from matplotlib.patches import Circle as Disc

    ax = canvas.axes[0]
    drawn: list[Any] = [ax.add_patch(Disc(centre, DISC, color=INK, alpha=0.7))]
    for x, feasible in zip(plans_NH2, feasible_N, strict=True):
        drawn += ax.plot(*x.T, color=BLUE if feasible else VERMILION, lw=1.2, alpha=0.7)
    drawn += ax.plot(*plans_NH2[0, 0], "o", color=GREEN, ms=8) + ax.plot(*plans_NH2[0, -1], "*", color=VERMILION, ms=13)
    frame = canvas.frame()
    for artist in drawn:
        artist.remove()
    return frame


def play(run: Run, args: Args, path: Path) -> None:
    """The agent in its simulator, in real time."""
    factory = rendering(replace(environment_factory(run.environment()), max_episode_steps=args.steps))
    film = Film(48, args.steps)
    rollout(run.agent(run.action_space()), factory, 1, args.seed, 1, obs_keys=run.data.obs_keys,
            goal_dims=run.data.goal_dims, watch=film)
    save_gif(film.frames, path, round(1000 * film.seconds), side=200)


def world(run: Run, args: Args, path: Path) -> None:
    """An episode of the data, and what the world model makes of its start and its actions."""
    episodes = gentraj.load_episodes(run.config.dataset)
    episode = max((episodes[e] for e in range(min(len(episodes), 50))), key=lambda one: len(one.act))
    steps = min(args.steps, len(episode.act))
    act_BTA = torch.from_numpy(episode.act[None, :steps])
    made = run.world_model.imagine(torch.from_numpy(episode.obs[None, 0]), act_BTA, seeds=[args.seed], temperature=0.0)
    canvas, shows, frames = Canvas(2), Renderer(run.environment()), []
    with closing(shows), closing(shows.factory()) as env:
        frame_ms = 1000 / speed(env)
        for step in range(0, steps, every := max(1, steps // 32)):
            seen = episode.obs[step + 1], made.obs_BTO[0, step].numpy()
            for ax, obs_O, title in zip(canvas.axes, seen, ("simulator", "world model"), strict=True):
                ax.clear()
                ax.imshow(shows(obs_O, np.empty(0)))
                ax.set_axis_off()
                ax.set_title(f"{title}, step {step + 1}", fontsize=9)
            frames.append(canvas.frame())
    save_gif(frames, path, round(every * frame_ms), side=2 * 200)


def mpc(run: Run, args: Args, path: Path) -> None:
    """A pendulum that MPC swings up in a world model, with what it imagines at each step."""
    space, imagination = run.action_space(), WorldModelSimulator(run.world_model)
    agent = MPC(imagination, MPCConfig(horizon=25, samples=200, iterations=2, spread=0.8), space.low, space.high)
    envs, canvas, frames = VectorEnvironment(environment_factory(run.environment()), 1), Canvas(), []
    with closing(envs):
        envs.reset(np.ones(1, bool), [args.seed])
        agent.reset(seeds_B=[args.seed])
        for step in range(min(args.steps, 150)):
            obs_BO = torch.from_numpy(envs.obs_BO)
            act_BA = agent.act(obs_BO)
            future = run.world_model.imagine(obs_BO, agent.mean_BTA[:, :20], seeds=[0], temperature=0.0)
            if step % 2 == 0:
                frames.append(pendulum(canvas, envs.obs_BO[0], future.obs_BTO[0].numpy()))
            envs.step(act_BA.numpy())
    save_gif(frames, path, 100, side=SIDE)


def pendulum(canvas: Canvas, obs_O: np.ndarray, future_TO: np.ndarray) -> np.ndarray:
    """A frame of the pendulum, (cos, sin, velocity) of its angle from upright, with its imagined future."""
    ax = canvas.axes[0]
    ax.clear()
    for (cos, sin, _), alpha in zip(future_TO[::-1], np.linspace(0.05, 0.4, len(future_TO)), strict=True):
        ax.plot([0, -sin], [0, cos], color=ORANGE, lw=3, alpha=alpha)
    ax.plot([0, -obs_O[1]], [0, obs_O[0]], color=BLUE, lw=7, solid_capstyle="round")
    ax.plot(0, 0, "o", color=INK, ms=8)
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", xticks=[], yticks=[])
    return canvas.frame()


PICTURES: dict[str, Callable[[Run, Args, Path], None]] = {
    "maze": maze, "denoising": denoising, "obstacle": obstacle, "play": play, "world": world, "mpc": mpc}


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
