"""A policy of your own: advantage-weighted regression (AWR, Peng et al. 2019), registered beside gentraj's policies.

    python examples/add_a_policy.py demo                    # AWR learns from random actions
    python examples/add_a_policy.py train awr --help        # the gentraj command, with AWR as one more policy
"""

import sys
from dataclasses import dataclass, replace

import torch

from gentraj import PRESETS
from gentraj.agents import POLICIES, Policy, PolicyConfig, advantage_weights
from gentraj.cli import main
from gentraj.data import save_npz
from gentraj.envs import RandomAgent, environment_factory, rollout
from gentraj.families import ACTION_MODELS
from gentraj.networks import ValueEnsemble
from gentraj.runs import PolicyRunConfig
from gentraj.training import LearningConfig, adamw
from gentraj.trajectory import DEFAULT_OPTIONS


@dataclass(frozen=True)
class AWRConfig(PolicyConfig):
    beta: float = 1.0
    """How strongly the weight of an action grows with its advantage."""
    n_step: int = 50
    """Number of rewards that an n-step return sums before it bootstraps from the value."""
    discount: float = 0.98
    learning_rate: float = 1e-3


class AWR(Policy):
    def __init__(self, config, scales):
        super().__init__(config, scales, config.n_step)
        self.model = self.build_model(ACTION_MODELS["gaussian"])
        start = scales.initial_value(config.discount)
        self.value = ValueEnsemble([self.state_dim, 64, 64, 1], 1, start)

    def optimizers(self):
        learning = LearningConfig(learning_rate=self.config.learning_rate, weight_decay=0.0)
        return super().optimizers() | {"value": adamw(self.value, learning)}

    def update(self, step):
        t = self.transition(step.batch, self.config.discount)
        with torch.no_grad():
            return_B = t.reward_B + t.discount_B * self.value(t.next_BS)[0]
        advantage_B = return_B - self.value(t.state_BS)[0]
        loss = (advantage_B**2).mean()
        step.descend(loss, "value", 10.0)
        weight_B = advantage_weights(advantage_B.detach(), self.config.beta)
        return {"value_loss": loss.detach()} | self.model.update(t, step, weight_B)

    def sample_actions(self, state_BS, seeds, options=DEFAULT_OPTIONS):
        return self.model.sample(state_BS, seeds, replace(options, temperature=0.0))[:, 0]


POLICIES["awr"] = AWRConfig, AWR
PRESETS["awr"] = PolicyRunConfig(policy=AWRConfig())


def demo(folder="runs/awr", steps="300"):
    """Random actions let the pole fall in 5 steps; from 300 such episodes AWR learns to hold it for more than 50."""
    agent, factory = RandomAgent([-3.0], [3.0]), environment_factory("InvertedPendulum-v5")
    episodes = rollout(agent, factory, 300, seed=1, record=True).recorded
    data = save_npz(episodes, f"{folder}-data.npz")
    return (main(["train", "awr", "--dataset", str(data), "--run-dir", folder, "--steps", steps])
            or main(["evaluate", folder, "--episodes", "20"]))


if __name__ == "__main__":
    sys.exit(demo(*sys.argv[2:]) if sys.argv[1:2] == ["demo"] else main())
