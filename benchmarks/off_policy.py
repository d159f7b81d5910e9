"""Does a world model rank policies by their true returns? It is tried on actors that other libraries trained.

    gentraj train world-model --dataset halfcheetah-medium.hdf5+halfcheetah-mixed.hdf5+halfcheetah-expert.hdf5 \\
        --env-id HalfCheetah-v5 --steps 8000 --run-dir runs/world
    python -m benchmarks.off_policy runs/world --actors POLICIES --out halfcheetah

POLICIES holds index.json (env, activation, squash and time_feature of each actor) and NAME.safetensors with its layers
`layers.N` and, if it normalises observations, obs_norm.mean and obs_norm.var. The actors act without noise. Writes
OUT.json and OUT.png.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import load_file
from torch import Tensor

from gentraj import runs
from gentraj.envs.evaluation.off_policy import Returns, both_returns, compared
from gentraj.envs.making import environment_factory
from gentraj.plots.figures import plot_off_policy
from gentraj.trajectory import Agent

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "none": lambda x: x}
BOUNDS = {"tanh": torch.tanh, "clip": lambda x: x.clamp(-1, 1)}


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of a world model."""
    actors: Path
    """Folder of the actors; those of the run's environment are used."""
    out: Path = Path("off_policy")
    """The results are written to OUT.json and OUT.png."""
    episodes: int = 16
    """Number of synthetic and of real episodes of each actor."""
    seed: int = 0
    threads: int = 1


class Perceptron(Agent):
    """An `Agent`: a deterministic perceptron."""

    def __init__(self, path: Path, about: dict[str, str]):
        tensors = load_file(path)
        count = sum(name.startswith("layers.") and name.endswith(".bias") for name in tensors)
        self.layers = [(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count)]
        self.mean, self.var = tensors.get("obs_norm.mean"), tensors.get("obs_norm.var")
        self.activation, self.bound = ACTIVATIONS[about["activation"]], BOUNDS[about["squash"]]

    def reset(self, mask_B: Tensor | None = None, seeds_B: object = None) -> None:
        """Does nothing, as the agent has no state."""

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        x = obs_BO.float()
        if self.mean is not None and self.var is not None:
            x = ((x - self.mean) / (self.var + 1e-8).sqrt()).clamp(-10, 10).float()
        for weight, bias in self.layers[:-1]:
            x = self.activation(x @ weight.T + bias)
        weight, bias = self.layers[-1]
        return self.bound(x @ weight.T + bias)


def actors(folder: Path, env_id: str) -> dict[str, Perceptron]:
    """Returns the actors of an environment that act on its observation only."""
    index = json.loads((folder / "index.json").read_text())
    return {name: Perceptron(folder / f"{name}.safetensors", about) for name, about in sorted(index.items())
            if about["env"] == env_id and about["time_feature"] == "none"}


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    run = runs.load(args.run)
    factory = environment_factory(str(run.data.env))
    returns: dict[str, Returns] = {}
    for name, actor in actors(args.actors, factory.env_id).items():
        returns[name] = both_returns(actor, run.world_model, factory, args.episodes, args.seed)
        imagined, true, truncated = returns[name]
        print(f"{name}: synthetic {imagined.mean():.0f} +- {imagined.std():.0f} ({truncated.sum()} truncated), true "
              f"{true.mean():.0f}", flush=True)
    result = compared(returns, args.seed)
    args.out.with_suffix(".json").write_text(json.dumps({"run": str(args.run)} | result, indent=2))
    plot_off_policy({name: each[:2] for name, each in returns.items()}, args.out.with_suffix(".png"),
                    f"{factory.env_id}: rank correlation {result['spearman']:.2f}")
    print({name: value for name, value in result.items() if name != "returns"})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
