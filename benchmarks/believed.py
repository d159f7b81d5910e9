"""What does a world model believe of an agent, what does the agent's critic believe, and what is true?

    python -m benchmarks.believed AGENT --world WORLD --dataset halfcheetah-mixed.hdf5

AGENT and WORLD are run folders, such as `benchmarks.augmented_data` leaves. From states of the dataset, any or those of
the first `--first` steps of an episode, the agent acts in the world model and in the simulator. The table has, up to
each of the steps `--at`: the mean reward per step in both, the share of the episodes that ended in both, the root mean
square error of the model's state after the actions that the agent took in the model, in deviations of what one step
changes, beside how far the true state had moved then, and the uncertainty, in the same unit. Above it stands the
critic's value of the first action beside the discounted return in the simulator. The observation must tell the
simulator's state, as that of Hopper, Walker2d and HalfCheetah does; what is taken has no goals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import torch
import tyro

from gentraj import runs
from gentraj.data import Episodes, load_episodes
from gentraj.envs.evaluation.replay import place, replay
from gentraj.envs.making import EnvironmentFactory, environment_factory
from gentraj.envs.worlds.branches import Starts, follow
from gentraj.envs.worlds.imagined import ImaginedConfig, ImaginedEpisodes
from gentraj.randomness import fold
from gentraj.worlds.model import WorldModel


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of a policy with a critic."""
    world: Path
    """Run folder of the world model."""
    dataset: str
    """The recorded episodes in whose states the agent begins."""
    first: int = 10
    """Number of steps of an episode that are its first."""
    at: tuple[int, ...] = (1, 5, 20, 100)
    """Steps after which the two are compared."""
    steps: int = 200
    """Steps of the true episodes, whose discounted rewards are the return."""
    starts: int = 32
    seed: int = 0
    threads: int = 1


class Course(NamedTuple):
    """Rewards (B, T) of episodes and the number of steps (B,) before each of them ended, T if it did not end."""

    reward_BT: np.ndarray
    steps_B: np.ndarray

    def upto(self, t: int) -> tuple[float, float]:
        """The mean reward of the steps up to t, and the share of the episodes that ended before."""
        taken_BT = np.arange(t) < self.steps_B[:, None]
        return float(self.reward_BT[:, :t][taken_BT].mean()), float((self.steps_B < t).mean())

    def discounted(self, discount: float) -> float:
        """The mean return from the start."""
        steps = np.arange(self.reward_BT.shape[1])
        return float((self.reward_BT * discount**steps * (steps < self.steps_B[:, None])).sum(1).mean())


def states(data: Episodes, number: int, first: int | None, seed: int) -> np.ndarray:
    """(number, O) states drawn from the data: from any step, or from the first steps of the episodes."""
    rng, last = np.random.default_rng(seed), data.lengths if first is None else np.minimum(data.lengths, first)
    share_E = last / last.sum()
    episode_B = rng.choice(len(data), number, p=share_E)
    return data.obs[data.starts[episode_B] + episode_B + rng.integers(last[episode_B])]


def imagined(agent: Any, world: WorldModel, obs_BO: np.ndarray, steps: int, seed: int) -> tuple[Course, np.ndarray,
                                                                                            np.ndarray]:
    """The agent's episodes in the model, with their observations (B, T + 1, O) and actions (B, T, A)."""
    batch, config = len(obs_BO), ImaginedConfig(steps, max_uncertainty=1e9, margin=1e9)  # trusts everything
    start = Starts(obs_BO.astype(np.float32), np.zeros((batch, 0), np.float32), np.full(batch, steps))
    made = follow(ImaginedEpisodes(world, batch, config), start, [fold(seed, i) for i in range(batch)], agent)
    return Course(made.reward_BK, made.steps_B), made.obs_BKO, made.act_BKA


def played(agent: Any, factory: EnvironmentFactory, obs_BO: np.ndarray, steps: int) -> Course:
    """The agent's episodes in the simulator."""
    envs, reward_BT = [factory() for _ in obs_BO], np.zeros((len(obs_BO), steps), np.float32)
    for env, obs_O in zip(envs, obs_BO, strict=True):
        env.reset(seed=0)
        place(env, factory.env_id, obs_O, np.zeros(0))
    agent.reset(None, list(range(len(envs))))
    now_BO, steps_B, alive_B = obs_BO.copy(), np.full(len(envs), steps), np.ones(len(envs), bool)
    for t in range(steps):
        act_BA = agent.act(torch.from_numpy(now_BO)).numpy()
        for i in np.flatnonzero(alive_B):
            now_BO[i], reward_BT[i, t], ended, _, _ = envs[i].step(act_BA[i])
            if ended:
                alive_B[i], steps_B[i] = False, t + 1
    return Course(reward_BT, steps_B)


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    run, world, data = runs.load(args.run), runs.load(args.world).world_model, load_episodes(args.dataset)
    factory = environment_factory(run.environment(), {"max_episode_steps": args.steps})
    agent = run.agent(factory().action_space)
    for title, first in (("any step", None), (f"the first {args.first} steps", args.first)):
        obs_BO = states(data, args.starts, first, args.seed)
        true = played(agent, factory, obs_BO, args.steps)
        believed, obs_BTO, act_BTA = imagined(agent, world, obs_BO, max(args.at), args.seed)
        discount = cast(Any, run.config).policy.critic.discount
        print(f"\nFrom {title} of an episode: the critic's value is {value(run.main, obs_BO, act_BTA[:, 0]):.0f}, the "
              f"true return {true.discounted(discount):.0f}.\n")
        print("| steps | reward per step in the model | true | ended in the model | true | error | moved | "
              "uncertainty |\n" + "|---" * 8 + "|")
        error_BT, moved_BT, uncertainty_BT = errors(world, factory, obs_BTO, act_BTA)
        for t in args.at:
            alive_B = believed.steps_B >= t
            cells = [f"{x:.2f}" for course in (believed, true) for x in course.upto(t)]
            sizes = [f"{np.sqrt((x_BT[alive_B, t - 1] ** 2).mean()):.2f}"
                     for x_BT in (error_BT, moved_BT, uncertainty_BT)]
            print(f"| {t} | {cells[0]} | {cells[2]} | {cells[1]} | {cells[3]} | {' | '.join(sizes)} |")


def value(policy: Any, obs_BO: np.ndarray, act_BA: np.ndarray) -> float:
    """The critic's mean value of these actions, in units of the environment's rewards."""
    state_BS = policy.state(torch.from_numpy(obs_BO), None)
    value_B = policy.critic.target_value(state_BS, policy.act_scale.normalize(torch.from_numpy(act_BA)))
    return float(value_B.mean() * policy.reward.scale_D)


def errors(world: WorldModel, factory: EnvironmentFactory, obs_BTO: np.ndarray,
           act_BTA: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B, T) each: how far the model's states are from those that its actions truly lead to, how far those have moved
    from the start, and the uncertainty of each step."""
    scale_O = world.facts.step_scale.cpu().numpy()
    true_BTO = replay(factory, obs_BTO[:, 0].astype(float), act_BTA.astype(float))
    error_BT, moved_BT = (np.sqrt((((true_BTO - other) / scale_O) ** 2).mean(-1))
                          for other in (obs_BTO[:, 1:], obs_BTO[:, :1]))
    flat_obs, flat_act = (torch.from_numpy(x.reshape(-1, x.shape[-1])) for x in (obs_BTO[:, :-1], act_BTA))
    made = world.imagine(flat_obs, flat_act[:, None], seeds=[0] * len(flat_obs), temperature=0.0)
    return error_BT, moved_BT, made.uncertainty_BT[:, 0].cpu().numpy().reshape(error_BT.shape)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
