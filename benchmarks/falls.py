"""Why does a planner for returns fall? What it plans in states of its data, and when its episodes come to a stop.

    python -m benchmarks.falls runs/cheetah --datasets halfcheetah-medium.hdf5 halfcheetah-expert.hdf5

The run is a planner of observations and actions with a critic, such as `veteran+`. The first table compares the first
actions of its plans with the data's own, at steps counted from the start of an episode. Distances between actions are
Euclidean, in the action space, and values are in standard deviations of the data's returns. The second table holds the
episodes of the planner itself. With `--further 2500 --early 0.3` the model of the plans is first trained further, with
its full learning rate decaying to 0 and 30 % of the windows from the first steps of episodes. An episode has stopped at
the first step after which no 50 steps in a row earn a tenth of the data's mean reward; `entry` is an entry of its last
observation, such as the pitch of HalfCheetah.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import tyro
from torch import Tensor

from gentraj import runs
from gentraj.agents.planning.plan_critic import PlanCritic
from gentraj.data import Episodes, Windows, load_episodes
from gentraj.data.episodes import concatenate
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.evaluation.scores import normalised
from gentraj.envs.making import environment_factory
from gentraj.randomness import generator
from gentraj.runs import Run
from gentraj.training.loop import learning_rate_factor
from gentraj.trajectory import Condition, SamplingOptions

STEPS = ((0, 1), (1, 10), (10, 30), (30, 100), (200, 900))  # intervals of steps since the start of an episode
STATES, PLANS, CHOSEN_OF = 100, 16, 8
STILL = 50  # steps


@dataclass(frozen=True)
class Args:
    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    datasets: tuple[str, ...]
    """The datasets that it was trained on, each with rows of its own."""
    episodes: int = 20
    """Episodes of the planner; 0 leaves them out."""
    entry: int = 1
    """The entry of the last observations that is printed."""
    candidates: tuple[int, ...] = ()
    """Numbers of candidates to play with; by default the run's own."""
    temperatures: tuple[float, ...] = ()
    """Temperatures to play with; by default the run's own."""
    steps: int | None = None
    """Sampling steps; by default the run's own."""
    further: int = 0
    """Updates of the model of the plans before anything is measured; the run in the folder stays as it is."""
    early: float = 0.0
    """As `gentraj train --training.early`, in these updates."""


def main(args: Args) -> None:
    torch.set_num_threads(1)
    run = runs.load(args.run)
    data = {Path(name).stem: load_episodes(name) for name in args.datasets}
    if args.further:
        train_further(run, concatenate(list(data.values())), args)
    print("| data | steps | error of one plan | at temperature 0 | of the most valued | of the nearest of 16 | spread "
          "| spread of values | members apart |\n|---|---|---|---|---|---|---|---|---|")
    for name, episodes in data.items():
        for low, high in STEPS:
            row = in_states(run, *states(episodes, low, high), args.steps or run.planning.steps)
            print(f"| {name} | {low} to {high - 1} | " + " | ".join(f"{x:.3f}" for x in row) + " |", flush=True)
    if args.episodes:
        usual = float(np.mean(np.concatenate([episodes.reward for episodes in data.values()])))
        print("| candidates | temperature | score | stopped | at step (median) | entry at the end |\n"
              "|---|---|---|---|---|---|")
        for candidates in args.candidates or (run.planning.candidates,):
            for temperature in args.temperatures or (run.planning.temperature,):
                print(played(run, args, candidates, temperature, usual), flush=True)


def train_further(run: Run, episodes: Episodes, args: Args) -> None:
    model, full = cast(Diffusion, run.model), cast(DiffusionConfig, run.model.config).learning_rate
    windows, optimizers = Windows(episodes, model.spec, early=args.early), model.optimizers()
    model.train()
    for step in range(args.further):
        for group in optimizers["network"].param_groups:
            group["lr"] = full * learning_rate_factor(step, 0, args.further)
        model.update(windows.batch(step, 1, model.batch_size), optimizers, generator(1, step))
    model.eval()


def states(e: Episodes, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Observations (B, O) and actions (B, A) of the data, at random steps from `low` to `high` of random episodes."""
    rng = np.random.default_rng(low)
    long = np.flatnonzero(e.lengths >= high)
    episode_B, t_B = rng.choice(long, STATES), rng.integers(low, high, STATES)
    obs_BO, act_BA = e.obs[e.starts[episode_B] + episode_B + t_B], e.act[e.starts[episode_B] + t_B]
    return torch.from_numpy(obs_BO).float(), torch.from_numpy(act_BA).float()


def in_states(run: Run, obs_BO: Tensor, act_BA: Tensor, steps: int) -> list[float]:
    """Means over the states, in the order of the columns of the first table."""
    model, critic = run.model, cast(PlanCritic, run.components["critic"])
    start = Condition.empty(model.spec, len(obs_BO)).with_obs(0, obs_BO)
    if context := run.planning.context:
        start = replace(start, context_BC=torch.tensor(context).expand(len(obs_BO), -1))

    def plans(num: int, temperature: float) -> Tensor:
        seeds = list(range(num * len(obs_BO)))
        options = SamplingOptions(steps=steps, temperature=temperature)
        return model.sample(start.repeat(num), seed=seeds, options=options)[:, 0]

    def first(x_RHD: Tensor) -> Tensor:
        return model.spec.split(x_RHD)[1][:, 0].clamp(-1, 1).view(len(obs_BO), -1, act_BA.shape[1])

    with torch.no_grad():
        x_RHD = plans(PLANS, 1.0)
        members_ER = critic.by_member(x_RHD)
        act_BNA, value_BN = first(x_RHD), members_ER.amin(0).view(len(obs_BO), PLANS)
        error_BN = (act_BNA - act_BA[:, None]).norm(dim=-1)
        likeliest_B = (first(plans(1, 0.0))[:, 0] - act_BA).norm(dim=-1)
        valued_B = error_BN[torch.arange(len(error_BN)), value_BN[:, :CHOSEN_OF].argmax(1)]
        columns = (error_BN[:, 0], likeliest_B, valued_B, error_BN.amin(1), act_BNA.std(1).norm(dim=-1),
                   value_BN.std(1), members_ER.std(0))
    return [float(column.mean()) for column in columns]


def played(run: Run, args: Args, candidates: int, temperature: float, usual: float) -> str:
    """A row of the second table."""
    env_id = run.environment(None)
    planning = replace(run.planning, candidates=candidates, temperature=temperature,
                       steps=args.steps or run.planning.steps)
    factory = environment_factory(env_id)
    result = rollout(run.agent(run.action_space(env_id), planning), factory, args.episodes, record=True, progress=False)
    e = cast(Episodes, result.recorded)
    stops, ends = [], []
    for number, (start, length) in enumerate(zip(e.starts, e.lengths, strict=True)):
        if (stop := stopped(e.reward[start : start + length], usual)) is not None:
            stops.append(stop)
            ends.append(e.obs[start + number + length, args.entry])
    score = normalised(mean := float(result.returns.mean()), factory)["score_d4rl"]
    shown = f"return {mean:.1f}" if score is None else f"{score:.1f}"
    at, last = (f"{np.median(stops):g}", " ".join(f"{end:.2f}" for end in ends)) if stops else ("", "")
    return (f"| {candidates} | {temperature:g} | {shown} | {len(stops)} of {len(e)} "
            f"| {at} | {last} |")


def stopped(reward_T: np.ndarray, usual: float) -> int | None:
    """The step after which no `STILL` steps in a row earn a tenth of the `usual` reward, if the episode stopped."""
    earned = np.convolve(reward_T, np.full(STILL, 1 / STILL), "valid")
    moving = np.flatnonzero(earned >= usual / 10)
    last = moving[-1] + 1 if len(moving) else 0
    return int(last) if last + STILL <= len(reward_T) - STILL else None


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
