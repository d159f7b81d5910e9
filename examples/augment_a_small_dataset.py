"""Does an agent learn more where a world model adds what it imagines to a small dataset?

    python examples/augment_a_small_dataset.py DATASET ENV_ID    # a file or an id, and where its agent is scored
    python examples/augment_a_small_dataset.py demo              # random actions in InvertedPendulum
"""

import sys
from dataclasses import replace
from pathlib import Path

import gentraj
from envs import EvaluationConfig
from gentraj.cli.augment import Augment, augment
from gentraj.runs.evaluation import play


def main(dataset, env_id, folder="runs/augmented", added=20_000, updates=3_000):
    """Mean returns of the agent that learnt of the dataset, and of the one that learnt also of what comes of the
    first one's actions."""
    def train(preset, data, name):
        usual = gentraj.PRESETS[preset]
        training = replace(usual.training, steps=int(updates))
        return gentraj.train(replace(usual, dataset=str(data), env_id=env_id, training=training), f"{folder}/{name}")

    world, small = train("world-ensemble", dataset, "world"), train("td3bc", dataset, "small")
    both = f"examples/{Path(folder).name}-v0"
    augment(Augment(str(dataset), world.folder, int(added), both, policy=small.folder, branch=32))
    config = EvaluationConfig(episodes=20, baselines=False)
    earned = [play(agent, config)[0]["return_mean"] for agent in (small, train("td3bc", both, "both"))]
    print(f"the agent of the small data earns {earned[0]:.1f}, of both {earned[1]:.1f}")
    return earned


def demo(folder="runs/augmented", added="3000", updates="300"):
    from mpc_in_a_world_model import ENV_ID, random_actions

    return main(random_actions(folder), ENV_ID, folder, added, updates)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    demo(*sys.argv[2:]) if sys.argv[1:2] == ["demo"] else main(*sys.argv[1:])
