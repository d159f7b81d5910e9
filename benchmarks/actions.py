"""How well a policy copies the actions of its data, which copy its critic chooses, and what other choices would score.

    python -m benchmarks.actions runs/gan-critic --datasets halfcheetah-medium.hdf5 halfcheetah-expert.hdf5 \
        --play 8 1 --temperatures 1 0

The first table is of states of each dataset, at steps counted from the start of an episode. Distances between actions
are root mean squares over their entries, in units of half the range of an action; the energy score is the distance of a
sample from the data's action minus half of that between two samples, and is least for a right copy. Values are those of
the target critic, in units of the root mean square of the rewards. The second table has D4RL's scores, or returns where
there are none, of episodes that are played with other numbers of candidates and temperatures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from gentraj import runs
from gentraj.data import Episodes, load_episodes
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.evaluation.scores import normalised
from gentraj.envs.making import environment_factory
from gentraj.runs import Run
from gentraj.trajectory import SamplingOptions

STEPS = ((0, 5), (5, 30), (30, 1000))  # intervals of steps since the start of an episode
STATES, SAMPLES = 512, 8


@dataclass(frozen=True)
class Args:
    run: tyro.conf.Positional[Path]
    """Folder of the run of a policy that samples its actions one at a time."""
    datasets: tuple[str, ...]
    """The datasets that it was trained on, each with rows of its own."""
    play: tuple[int, ...] = ()
    """Numbers of candidates to play with; none leaves the second table out."""
    temperatures: tuple[float, ...] = (1.0,)
    """Temperatures to play with."""
    episodes: int = 20
    """Number of episodes for each row of the second table."""


def main(args: Args) -> None:
    torch.set_num_threads(1)
    run = runs.load(args.run)
    print("| data | steps | energy score | error of a sample | two samples apart | nearest of 8 | most valued of 8 "
          "| value of a sample | of the most valued | of the data |\n|---|---|---|---|---|---|---|---|---|---|")
    for dataset in args.datasets:
        episodes = load_episodes(dataset)
        for low, high in STEPS:
            columns = " | ".join(copies(run.components["policy"], *states(episodes, low, high)))
            print(f"| {Path(dataset).stem} | {low} to {high - 1} | {columns} |", flush=True)
    if args.play:
        print("| candidates | temperature | score | lowest and highest episode |\n|---|---|---|---|")
        for candidates in args.play:
            for temperature in args.temperatures:
                print(played(run, candidates, temperature, args.episodes), flush=True)


def states(e: Episodes, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Observations (B, O) and actions (B, A) of the data, at random steps from `low` to `high` of random episodes."""
    rng = np.random.default_rng(low)
    episode_B = rng.choice(np.flatnonzero(e.lengths > low), STATES)
    t_B = rng.integers(low, np.minimum(e.lengths[episode_B], high))
    obs_BO, act_BA = e.obs[e.starts[episode_B] + episode_B + t_B], e.act[e.starts[episode_B] + t_B]
    return torch.from_numpy(obs_BO).float(), torch.from_numpy(act_BA).float()


@torch.no_grad()
def copies(policy: Any, obs_BO: Tensor, act_BA: Tensor) -> list[str]:
    """The numbers of the first table; those of a critic are left out without one."""
    state_BS, data_BA = policy.state(obs_BO, None), policy.act_scale.normalize(act_BA)
    act_BNA = policy.candidates(policy.model, state_BS, SAMPLES, list(range(len(obs_BO))))[:, :, 0]
    error_BN = (act_BNA - data_BA[:, None]).square().mean(-1).sqrt()
    apart_BNN = (act_BNA[:, :, None] - act_BNA[:, None]).square().mean(-1).sqrt()
    apart = apart_BNN.sum((1, 2)).mean() / (SAMPLES * (SAMPLES - 1))
    copied = [error_BN.mean() - apart / 2, error_BN.mean(), apart, error_BN.amin(1).mean()]
    if "critic" not in dict(policy.named_children()):
        return [f"{x:.3f}" for x in copied] + [""] * 4
    each_RS = state_BS.repeat_interleave(SAMPLES, 0)
    value_BN = policy.critic.target_value(each_RS, act_BNA.flatten(0, 1)).view(-1, SAMPLES)
    chosen = error_BN.gather(1, value_BN.argmax(1, keepdim=True)).mean()
    values = value_BN.mean(), value_BN.amax(1).mean(), policy.critic.target_value(state_BS, data_BA).mean()
    return [f"{x:.3f}" for x in [*copied, chosen]] + [f"{value:.2f}" for value in values]


def played(run: Run, candidates: int, temperature: float, episodes: int) -> str:
    """A row of the second table."""
    env_id = run.environment(None)
    agent: Any = run.agent(run.action_space(env_id))
    own = {"temperature": 1.0} if hasattr(agent.policy.config, "temperature") else {}
    agent.policy.config = replace(agent.policy.config, candidates=candidates, **own)
    agent.options = SamplingOptions(temperature=temperature)
    factory = environment_factory(env_id)
    returns = rollout(agent, factory, episodes, progress=False).returns
    scores = [score for each in returns if (score := normalised(float(each), factory)["score_d4rl"]) is not None]
    score_E = np.array(scores if scores else returns)
    return (f"| {candidates} | {temperature:g} | {score_E.mean():.1f} | {score_E.min():.1f}, {score_E.max():.1f} |")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
