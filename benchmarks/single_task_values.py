"""How far the critic of a policy tells actions apart, and what the best of several actions by it achieves.

    python -m benchmarks.single_task_values runs/reproduce/ogbench-fql/cube-single/seed-0-*/run

prints, on states of the run's data, the mean value of the model's actions, their deviation within a state, how much
more the policy's own action is worth, and the success rate of the best of --candidates actions of the model. With
batches that are not invariant, the last digits depend on --episodes.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch

from gentraj import load_episodes
from gentraj.envs.evaluation.evaluate import EvaluationConfig
from gentraj.runs.evaluation import evaluate_run
from gentraj.runs.folder import load
from gentraj.trajectory import DEFAULT_OPTIONS, SamplingOptions

STATES = 256


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=25)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    run = load(args.run)
    policy: Any = run.components["policy"]
    with torch.no_grad():
        print(values(policy, run.config.dataset, args.candidates))
    policy.sample_actions = MethodType(best_of(args.candidates), policy)
    config = EvaluationConfig(episodes=args.episodes, baselines=False, batch_invariant=False)
    scores, _ = evaluate_run(run, config, progress=False)
    print(f"the best of {args.candidates} succeeds in {scores['success_rate']:.2f} of {args.episodes} episodes")


def values(policy: Any, dataset: str, number: int) -> str:
    episodes, rng = load_episodes(dataset), np.random.default_rng(0)
    steps = rng.choice(episodes.num_steps, STATES)
    episode_S = np.repeat(np.arange(len(episodes)), episodes.lengths)
    state_BS = policy.state(torch.tensor(episodes.obs[steps + episode_S[steps]]), None)
    value_BN = candidate_values(policy, state_BS, number, range(STATES))[1]
    own_BX = policy.sample_actions(state_BS, list(range(STATES))).flatten(1)
    gain = policy.critic.target_value(state_BS, own_BX) - value_BN.mean(1)
    return (f"values of the model's actions: mean {value_BN.mean():.1f}, deviation within a state "
            f"{value_BN.std(1).mean():.2f}; the policy's own action is worth {gain.mean():.2f} more")


def candidate_values(policy: Any, state_BS: torch.Tensor, number: int,
                     seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N, K, A) chunks of actions of the policy's model, and their values (B, N)."""
    act_BNKA = policy.candidates(policy.model, state_BS, number, list(seeds))
    states, chunks = state_BS.repeat_interleave(number, 0), act_BNKA.flatten(0, 1).flatten(1)
    return act_BNKA, policy.critic.target_value(states, chunks).view(-1, number)


def best_of(number: int) -> Any:
    """A method `sample_actions` that takes the best of so many actions of the model."""
    @torch.no_grad()
    def sample_actions(self: Any, state_BS: torch.Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> torch.Tensor:
        self.act_once(options)
        act_BNKA, value_BN = candidate_values(self, state_BS, number, seeds)
        return act_BNKA[torch.arange(len(state_BS)), value_BN.argmax(1)]

    return sample_actions


if __name__ == "__main__":
    main(sys.argv[1:])
