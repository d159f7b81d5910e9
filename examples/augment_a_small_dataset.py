"""Does an agent learn more if a world model adds synthetic steps to a small dataset?

    python examples/augment_a_small_dataset.py DATASET ENV_ID    # a file or a Minari id, and the environment
    python examples/augment_a_small_dataset.py demo              # random actions in InvertedPendulum
"""

import sys
from pathlib import Path

import gentraj


def main(dataset, env_id, folder="runs/augmented", added=20_000, updates=3_000):
    """Returns the mean returns of two agents: one that is trained on the dataset, and one that is also trained on
    synthetic steps, in which the first agent acts in the world model."""
    def train(preset, data, name):
        return gentraj.train(preset, data, env=env_id, steps=int(updates), folder=f"{folder}/{name}")

    world, small = train("world-ensemble", dataset, "world"), train("td3bc", dataset, "small")
    both = f"examples/{Path(folder).name}-v0"
    gentraj.augment(gentraj.AugmentConfig(str(dataset), world.folder, int(added), both, policy=small.folder, branch=32))
    returns = [run.evaluate(episodes=20, baselines=False)["return_mean"]
               for run in (small, train("td3bc", both, "both"))]
    print(f"mean return of the agent of the small data {returns[0]:.1f}, of both {returns[1]:.1f}")
    return returns


def demo(folder="runs/augmented", added="3000", updates="300"):
    from mpc_in_a_world_model import ENV_ID, random_actions

    return main(random_actions(folder), ENV_ID, folder, added, updates)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    demo(*sys.argv[2:]) if sys.argv[1:2] == ["demo"] else main(*sys.argv[1:])
