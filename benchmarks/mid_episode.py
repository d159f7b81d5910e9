"""From which states of its data can an agent go on? Its episodes begin at states of recorded episodes.

    python -m benchmarks.mid_episode runs/iql --dataset halfcheetah-expert.hdf5

An agent that goes on well from the middle of an episode, and not from its start, has learnt how to run and not how to
begin to. Beside its mean reward per step stands that of the recorded episodes from there on. The observation must tell
the simulator's state, as that of Hopper, Walker2d, HalfCheetah and Ant does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np
import tyro

from gentraj import runs
from gentraj.data import Episodes, load_episodes
from gentraj.envs.evaluation.replay import place
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import EnvironmentFactory, environment_factory


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of the agent."""
    dataset: str
    """The recorded episodes; the first ones that are long enough are taken."""
    at: tuple[int, ...] = (0, 20, 100, 400)
    """Steps of the recorded episodes from which the agent goes on."""
    steps: int = 300
    """Environment steps of each of the agent's episodes."""
    episodes: int = 10
    """Number of recorded episodes."""


class From(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose episodes begin at given observations, one after the other."""

    def __init__(self, factory: EnvironmentFactory, obs_EO: np.ndarray):
        super().__init__(factory())
        self.env_id, self.next = factory.env_id, iter(obs_EO)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**arguments)
        start_O = next(self.next, None)  # there is none after the last episode
        if start_O is None:
            return obs, info
        place(self.env, self.env_id, start_O, np.zeros(0))
        return start_O.astype(obs.dtype), info


def chosen(data: Episodes, args: Args) -> np.ndarray:
    """(episodes,) numbers of the first recorded episodes that are long enough."""
    long = np.flatnonzero(data.lengths >= max(args.at) + args.steps)[: args.episodes]
    if len(long) < args.episodes:
        raise SystemExit(f"{args.dataset} has {len(long)} episodes of {max(args.at) + args.steps} steps; "
                         f"{args.episodes} are asked for: give fewer --episodes or --steps, or earlier steps in --at")
    return long


def main(args: Args) -> None:
    run, data = runs.load(args.run), load_episodes(args.dataset)
    factory = environment_factory(run.environment(), {"max_episode_steps": args.steps})
    episode_E = chosen(data, args)
    print("| goes on from step | reward per step | in the data | lowest and highest episode |")
    print("|---|---|---|---|")
    for at in args.at:
        first_E = data.starts[episode_E] + at
        start_EO = data.obs[first_E + episode_E]  # an episode has one observation more than steps
        played = rollout(run.agent(factory().action_space), lambda start_EO=start_EO: From(factory, start_EO),
                         args.episodes, num_envs=1, obs_keys=data.obs_keys, progress=False)
        each_E = played.returns / args.steps
        recorded = np.mean([data.reward[first : first + args.steps] for first in first_E])
        print(f"| {at} | {each_E.mean():.2f} | {recorded:.2f} | {each_E.min():.2f}, {each_E.max():.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
