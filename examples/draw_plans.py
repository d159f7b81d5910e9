"""A film of plans that are renewed in a maze, while a point drives from goal to goal: README's picture.

    python examples/draw_plans.py zoo:pointmaze-large docs/figures/plans.gif
"""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import gentraj
from gentraj.envs import environment_factory
from gentraj.envs.tasks.maze import draw_maze
from gentraj.plots.figures import save_gif
from gentraj.plots.style import BLUE, GREY, ORANGE, VERMILION, panels

FRAME_STEPS = 8  # environment steps between two frames
FRAME_MS = 60
REACHED = 0.45  # metres from a goal, at which the next one is set
PATH_STEPS = 240  # as much of the path is drawn


def drive(run, goals, steps, seed):
    """Yields, every `FRAME_STEPS` steps, the goal (2,), the path so far (T, 2), the N candidates up to their arrivals,
    each (H, 2), and the index of the chosen one; all in metres."""
    factory = replace(environment_factory(run.data.env), max_episode_steps=steps + 1)
    with closing(factory()) as env:
        agent = run.agent(env.action_space, replace(run.planning, replan=16, hold_radius=0.0))
        agent.sampler.decide = agent.sampler.sample  # all candidates are drawn, also where the first one is trusted
        agent.reset(seed=seed)
        obs = env.reset(seed=seed)[0]["observation"]
        path = []
        number = 0
        for step in range(steps):
            if np.linalg.norm(obs[:2] - goals[number]) < REACHED:
                number += 1
            if number == len(goals):
                return
            goal = torch.tensor(goals[number : number + 1], dtype=torch.float32)
            action = agent.act(torch.from_numpy(obs).float()[None], goal)[0].numpy()
            path.append(obs[:2].copy())
            if step % FRAME_STEPS == 0:
                plans = agent.last
                arrivals = plans.arrival_step_BN[0].tolist()
                ends = [x[: arrival + 1, :2] for x, arrival in zip(plans.x_BNHD[0], arrivals, strict=True)]
                yield goals[number], np.array(path), ends, int(plans.chosen_B[0])
            obs = env.step(action)[0]["observation"]


def far_goals(maze, number, seed):
    """(number, 2) centres of free cells in metres, each far from the one before."""
    rng = np.random.default_rng(seed)
    at = rng.choice(maze.cells)
    centres = []
    for _ in range(number):
        far = [cell for cell in maze.cells if maze.path_lengths[at, cell] >= 0.5 * maze.longest_way]
        at = rng.choice(far)
        centres.append(maze.centre(at))
    return np.array(centres)


def main(folder, out="plans.gif", goals="5", steps="1500", seed="0"):
    run = gentraj.load(folder)
    maze = environment_factory(run.data.env).maze
    figure, [ax] = panels(1)
    draw_maze(ax, maze)
    left, right = ax.get_xlim()
    low, high = ax.get_ylim()
    wall = 0.6 * maze.scaling  # of the outer walls, which are left out
    ax.set(xlim=(left + wall, right - wall), ylim=(low + wall, high - wall), position=(0, 0, 1, 1))
    ax.axis("off")
    figure.set_layout_engine("none")
    figure.set_size_inches(6, 6 * (high - low - 2 * wall) / (right - left - 2 * wall))
    canvas = FigureCanvasAgg(figure)
    images = []
    for goal, path, plans, chosen in drive(run, far_goals(maze, int(goals), int(seed)), int(steps), int(seed)):
        drawn = [line for plan in plans for line in ax.plot(*plan.T, color=GREY, lw=1.0, alpha=0.5)]
        drawn += ax.plot(*path[-PATH_STEPS:].T, color=BLUE, lw=2.5)
        drawn += ax.plot(*plans[chosen].T, color=ORANGE, lw=2.5)
        drawn += ax.plot(*path[-1], "o", color=BLUE, ms=13, mec="white")
        drawn += ax.plot(*goal, "*", color=VERMILION, ms=20, mec="white")
        canvas.draw()
        images.append(np.array(canvas.buffer_rgba())[..., :3])
        for artist in drawn:
            artist.remove()
    return save_gif(images, Path(out), FRAME_MS, side=640)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
