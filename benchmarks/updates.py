"""Measures updates of small policies: beside d3rlpy, in bfloat16, compiled, and with several seeds as one computation.

    python -m benchmarks.updates --cases iql td3bc --compile
    python -m benchmarks.updates --cases seeds

d3rlpy (`pip install d3rlpy`) has to be installed for a comparison with it. All variants of a case run in turns in one
process; the table has the median over the rounds of the first variant's CPU time over each other's (above 1, it is
faster than the first), with the quartiles. The data are random numbers with the sizes of Hopper: 11 observations and 3
actions. Batches of 256 transitions are drawn within the measured time.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.generators import DETERMINISTIC, GAUSSIAN
from gentraj.agents.policies.policy import Scales
from gentraj.data import ContextConfig, Episodes, Windows
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.residual_mlp import ResidualMLP
from gentraj.randomness import generator
from gentraj.training.compilation import compile_graph
from gentraj.training.optimization import checked_later, read_finite
from gentraj.training.recording import RecordedUpdate

Variants = dict[str, Callable[[], Any]]
BATCH, WIDTH, OBS, ACT = 256, 256, 11, 3
ACTOR = ResidualMLPConfig(width=128, depth=1, frequencies=0)  # as many weights as two hidden layers of 256 units
EQUAL: dict[str, dict[str, Any]] = {"iql": {"model": replace(GAUSSIAN, network=ACTOR)},
                                    "td3bc": {"model": replace(DETERMINISTIC, network=ACTOR)}}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    cases: tuple[str, ...] = ("iql", "td3bc", "fql", "diffusion-ql", "swift", "seeds")
    """Policies, of which iql and td3bc are compared with d3rlpy, or seeds: three seeds as one computation."""
    compile: bool = False
    """Also measure updates compiled in float32, each of which takes a minute or more to compile."""
    rounds: int = 12
    """Rounds of each case, of eight updates each, after one that is not counted."""


def episodes() -> Episodes:
    """200 episodes of 100 steps, half of which terminate."""
    rng, count, length = np.random.default_rng(0), 200, 100
    steps, last = count * length, np.arange(length - 1, count * length, length)
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    terminated[last[::2]], truncated[last[1::2]] = True, True
    return Episodes(rng.normal(size=(steps + count, OBS)), rng.uniform(-1, 1, (steps, ACT)), rng.normal(size=steps),
                    terminated, truncated, np.full(count, length))


def ours(kind: str, data: Episodes, *, compile: bool = False, bf16: bool = False) -> Callable[[], None]:
    """An update as the training loop does it. iql and td3bc have networks of the widths that d3rlpy is given."""
    config, policy_class = POLICIES[kind]
    torch.manual_seed(0)
    policy = policy_class(OBS, ACT, config(**EQUAL.get(kind, {})), Scales.fit(data, ContextConfig())).train()
    windows, optimizers, steps = Windows(data, policy.spec), policy.optimizers(), iter(range(10**9))
    update = RecordedUpdate(policy.update, policy, compile_graph) if compile else policy.update

    def step() -> None:
        i = next(steps)
        batch = windows.batch(i, 0, BATCH)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), checked_later() as checked:
            metrics = update(batch, optimizers, generator(0, i))
        read_finite([*checked, *metrics.items()])

    return step


def peer(kind: str, data: Episodes) -> Callable[[], None]:
    """An update of d3rlpy, with the actor of TD3+BC updated in each as it is here."""
    d3rlpy: Any = importlib.import_module("d3rlpy")  # no dependency of gentraj, not even of its tests
    ends = np.cumsum(data.lengths + 1) - 1  # observations without an action
    dataset = d3rlpy.dataset.MDPDataset(np.delete(data.obs, ends, 0), data.act, data.reward,
                                        data.terminated.astype(np.float32), data.truncated.astype(np.float32))
    encoder = d3rlpy.models.VectorEncoderFactory([WIDTH, WIDTH])
    shared: dict[str, Any] = {"batch_size": BATCH, "actor_encoder_factory": encoder, "critic_encoder_factory": encoder}
    config = (d3rlpy.algos.IQLConfig(**shared, value_encoder_factory=encoder) if kind == "iql"
              else d3rlpy.algos.TD3PlusBCConfig(**shared, update_actor_interval=1))
    algorithm = config.create(device="cpu")
    algorithm.build_with_dataset(dataset)
    return lambda: algorithm.update(dataset.sample_transition_batch(BATCH))


def updates(kind: str, *, compile: bool = False) -> Variants:
    """The variants of a policy's update; the first is d3rlpy's where it has the policy."""
    data, variants = episodes(), Variants()
    if kind in EQUAL:
        if importlib.util.find_spec("d3rlpy") is None:
            print(f"{kind}: d3rlpy is not installed, so that it is left out; pip install d3rlpy")
        else:
            variants["d3rlpy"] = peer(kind, data)
    variants |= {"eager": ours(kind, data), "bf16": ours(kind, data, bf16=True)}
    if compile:
        variants["compiled"] = ours(kind, data, compile=True)  # inductor of torch 2.13 fails in bfloat16 on a CPU
    return variants


def seeds() -> Variants:
    """A gradient and an optimiser step of an actor for each of three seeds, one after the other and by `vmap`."""
    networks = [ResidualMLP(OBS + ACT, 1, 0, ResidualMLPConfig(width=128, depth=2, frequencies=0)) for _ in range(3)]
    x_SBHD, known = torch.randn(3, BATCH, 1, OBS + ACT), torch.ones(BATCH, 1, OBS + ACT, dtype=torch.bool)
    t, (weights, buffers) = torch.zeros(1), stack_module_state(networks)
    each = [torch.optim.AdamW(network.parameters(), 1e-3, fused=True) for network in networks]
    joint = torch.optim.AdamW(weights.values(), 1e-3, fused=True)

    def learn(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def apart() -> None:
        for network, x, optimizer in zip(networks, x_SBHD, each, strict=True):
            learn((network(x, x, known, t) ** 2).mean(), optimizer)

    def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return (functional_call(networks[0], (weights, buffers), (x, x, known, t)) ** 2).mean()

    return {"three seeds apart": apart,
            "three seeds at once": lambda: learn(vmap(loss)(weights, buffers, x_SBHD).sum(), joint)}


def cases(names: tuple[str, ...], *, compile: bool = False) -> dict[str, Callable[[], Variants]]:
    """What makes the variants of each case, by the name update/NAME; see `Options.cases` for the names."""
    return {f"update/{name}": seeds if name == "seeds" else lambda name=name: updates(name, compile=compile)
            for name in names}


def measure(variants: Variants, rounds: int, repeats: int = 8) -> dict[str, list[float]]:
    """Seconds of CPU of one call of each variant, in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(rounds + 1):
        for name, run in variants.items():
            start = time.process_time()
            for _ in range(repeats):
                run()
            if i:
                seconds[name].append((time.process_time() - start) / repeats)
    return seconds


def main(options: Options) -> None:
    torch.set_num_threads(1)
    print(f"{'':20}{'':26}{'ms':>9}{'speed-up':>10}  quartiles")
    for case, make in cases(options.cases, compile=options.compile).items():
        seconds = measure(make(), options.rounds)
        first = np.array(next(iter(seconds.values())))
        for name, own in seconds.items():
            low, middle, high = np.percentile(first / np.array(own), [25, 50, 75])
            print(f"{case:20}{name:26}{1000 * np.median(own):9.1f}{middle:10.2f}  {low:.2f}-{high:.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
