"""Do models of trajectories find every mode, with its share in the data? Sets with known modes.

    python -m benchmarks.modes --out runs/modes

trains every model of MODELS on every set of `mode_sets.SETS`: 25 Gaussians on a grid; the paths round a block,
conditioned on start and goal; and several goals, conditioned on the start. Each line of OUT/results.jsonl is one model;
models that are there are not trained again, so that a second call goes on where the first one stopped. OUT/table.md and
OUT/SET.png are rewritten at the end. Another maze is given by `--maze 11111/10001/10101/10001/11111 --start 3 2
--goal 1 2`.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import trange

from benchmarks.lines import whole_lines
from benchmarks.mode_sets import RING, SETS, ModeSet, ways
from gentraj.diffusion import Diffusion, DiffusionConfig, FlowConfig
from gentraj.families import MODELS as CLASSES
from gentraj.gan import ConditionalGAN, GANConfig
from gentraj.gan.discrimination import SideConfig, logits, value
from gentraj.gan.health import GANWarning
from gentraj.gan.model import generate
from gentraj.gan.objectives import Game, interpolate_gradient_norm
from gentraj.metrics import modes_covered
from gentraj.models.microbatch import Microbatch
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.discriminator import DiscriminatorConfig
from gentraj.plots.style import BLUE, INK, POSITIONS, VERMILION, draw_floor, head, panels, save
from gentraj.randomness import fold, generator
from gentraj.training.loop import learning_rate_factor

NETWORK = ResidualMLPConfig(width=192, depth=3, frequencies=4, activation="mish")  # as docs/notebook/gan.md says
GENERATOR = replace(NETWORK, frequencies=0)  # a smoother map of the noise, so that fewer samples lie between modes
JUDGE = DiscriminatorConfig(width=64, multipliers=(1,), kernel=3, frequencies=4, patches=False)
PLAIN = replace(JUDGE, minibatch_std=False)
LIGHT = {"r1": 1e-3, "r2": 1e-3}  # modes are close to their surroundings, so the discriminator must be steep
SIDE = SideConfig(learning_rate=2e-3)
DIFFUSION = DiffusionConfig(NETWORK, prediction="v", levels=None, steps=50)


def gan(objective: str, judge: DiscriminatorConfig = PLAIN, **changes: Any) -> GANConfig:
    """Returns a GAN without an energy score or penalties, in which only the adversary trains the generator."""
    return GANConfig(**{"network": GENERATOR, "discriminator": judge, "objective": objective,
                        "energy_score": 0.0, "ema": 0.998, "generator_learning": SIDE, "discriminator_learning": SIDE,
                        **changes})


MODELS: dict[str, DiffusionConfig | GANConfig] = {
    "diffusion": DIFFUSION,
    "flow": FlowConfig(NETWORK, prediction="v", steps=50),
    "gan": gan("relativistic", JUDGE, penalties=LIGHT, energy_score=1.0),
    "relativistic, r1, r2": gan("relativistic", JUDGE, penalties=LIGHT),
    "minimax": gan("minimax"),
    "non-saturating": gan("non-saturating"),
    "hinge, spectral norm": gan("hinge", replace(PLAIN, spectral_norm=True)),
    "wasserstein-gp": gan("wasserstein-gp", discriminator_steps=3),
}


@dataclass(frozen=True)
class Args:
    out: Path
    """Folder of the results, samples and figures."""
    models: tuple[str, ...] = tuple(MODELS)
    sets: tuple[str, ...] = tuple(SETS)
    seeds: int = 5
    steps: int = 10_000
    samples: int = 12_800
    """Number of sampled trajectories."""
    maze: str = "/".join(RING)
    """Rows of a maze with several shortest paths; 1 is a wall."""
    start: tuple[int, int] = (3, 2)
    """Row and column of the start."""
    goal: tuple[int, int] = (1, 2)
    shares: tuple[float, ...] = (0.7, 0.3)
    """Share of each path."""
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    makers = SETS | {"ways": lambda seed: ways(seed, args.maze.split("/"), args.start, args.goal, args.shares)}
    log = args.out / "results.jsonl"
    done = {(row["set"], row["model"], row["seed"]) for row in whole_lines(log)}
    for seed, of, name in ((s, of, n) for s in range(args.seeds) for of in args.sets for n in args.models):
        if (of, name, seed) not in done:
            row, x = measured(makers[of](seed), MODELS[name], seed, args, f"{of}, {name}, seed {seed}")
            np.save(args.out / f"{of}-{name}-{seed}.npy", x[:: max(1, len(x) // 1000)].numpy(), allow_pickle=False)
            with log.open("a") as file:
                file.write(json.dumps({"set": of, "model": name, "seed": seed} | row) + "\n")
    rows = [row for row in whole_lines(log) if row["set"] in args.sets and row["model"] in args.models]
    (args.out / "table.md").write_text(table := as_table(rows))
    print(table)
    for of in args.sets:
        draw(makers[of](0), of, [row for row in rows if row["set"] == of], args.out)


def measured(data: ModeSet, config: DiffusionConfig | GANConfig, seed: int, args: Args,
             title: str) -> tuple[dict[str, Any], Tensor]:
    """Trains a model and returns its measurements and samples."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GANWarning)
        model = make(data, config, seed)
        began = time.perf_counter()
        train(model, data, args.steps, seed, title)
        seconds = time.perf_counter() - began
        x = sample(model, data, args.samples)
    row = judged(data, x) | {"seconds": seconds, "warnings": [str(w.message) for w in caught
                                                              if issubclass(w.category, GANWarning)]}
    if isinstance(model, ConditionalGAN):
        row["gradient_norm"] = gradient_norm(model, data.x_RHD[:1000])
    return row, x


def make(data: ModeSet, config: DiffusionConfig | GANConfig, seed: int) -> Diffusion | ConditionalGAN:
    with torch.random.fork_rng(devices=()):  # torch draws initial weights from its global generator, left as it was
        torch.default_generator.manual_seed(fold(seed, 3))
        batch = 128 if isinstance(config, GANConfig) else 256
        made = CLASSES.made_of(config)
        return cast(Any, made)(data.spec, config, data.normalizer("limits"), conditioning=data.conditioning,
                               batch_size=batch)


def train(model: Diffusion | ConditionalGAN, data: ModeSet, steps: int, seed: int, title: str = "") -> None:
    optimizers = model.optimizers()
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    for step in trange(steps, desc=title, disable=not title, mininterval=1):
        rng = generator(seed, 4, step)
        for name, optimizer in optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name] * learning_rate_factor(step, 100, steps)
        model.update(data.batch(model.batch_size, rng), optimizers, rng)


def sample(model: Diffusion | ConditionalGAN, data: ModeSet, number: int, conditions: int = 64) -> Tensor:
    """Returns samples (number, H, D), the same number for each condition."""
    condition = data.conditions(conditions if data.conditioned else 1)
    return model.sample(condition, number // condition.batch, seed=5).flatten(0, 1)


def judged(data: ModeSet, x_RHD: Tensor) -> dict[str, Any]:
    """Returns the shares of the modes, the share of samples that belong to a mode, and the modes' coverage."""
    share = data.shares(x_RHD)
    coverage = modes_covered(share, data.true_K)
    return {"shares": share.tolist(), "of_a_mode": share.sum().item(), **coverage._asdict()}


def gradient_norm(model: ConditionalGAN, x_RHD: Tensor) -> float:
    """Returns the mean norm of the critic's gradient at interpolates of data and samples."""
    real, rng = torch.ones_like(x_RHD, dtype=torch.bool), generator(6)
    condition = model.conditioning.sample(model.spec, real, rng)
    microbatch = Microbatch(model.normalizer.normalize(x_RHD), real, condition, None, torch.ones(1), 0.0, rng)
    with torch.no_grad():
        fake = generate(model.network, microbatch.normal(), microbatch.x0, condition, None)

    def critic(x: Tensor) -> Tensor:
        return value(logits(model.discriminator, x, microbatch, microbatch.levels()), microbatch)

    return interpolate_gradient_norm(Game(critic, microbatch.x0, fake, critic(microbatch.x0), critic(fake),
                                          microbatch.free, rng)).mean().item()


def as_table(rows: list[dict[str, Any]]) -> str:
    """Returns a table with a line for each set and model: means over seeds, and the worst seed."""
    titles = ("set", "model", "seeds", "modes found", "within 30 %", "of a mode", "total variation", "gradient norm",
              "seconds", "seeds warned of")
    lines = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    for of, name in dict.fromkeys((row["set"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["set"], row["model"]) == (of, name)]
        values = {key: [row[key] for row in mine if key in row]
                  for key in ("found", "close", "of_a_mode", "total_variation", "gradient_norm", "seconds")}
        norms, number = values["gradient_norm"], len(mine[0]["shares"])
        warned = sum(bool(row["warnings"]) for row in mine)
        lines.append(f"| {of} | {name} | {len(mine)} | {mean(values['found']):.1f} (least {min(values['found'])}) of "
                     f"{number} | {mean(values['close']):.1f} (least {min(values['close'])}) | "
                     f"{mean(values['of_a_mode']):.3f} | {mean(values['total_variation']):.3f} | "
                     f"{f'{mean(norms):.2f}' if norms else '-'} | {mean(values['seconds']):.0f} | {warned} |")
    return "\n".join(lines) + "\n"


def draw(data: ModeSet, of: str, rows: list[dict[str, Any]], out: Path) -> None:
    """Draws OUT/SET.png: data, samples of each model's first seed, and the mean shares of its modes over all seeds."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = panels(2 * (len(names) + 1), columns=len(names) + 1, width=2.3, height=2.3)
    upper, lower = axes[: len(names) + 1], axes[len(names) + 1 :]
    points = data.x_RHD[:1000].numpy()
    for ax, name in zip(upper, ["data", *names], strict=True):
        first = next((row["seed"] for row in rows if row["model"] == name), None)
        x = points if first is None else np.load(out / f"{of}-{name}-{first}.npy", allow_pickle=False)
        draw_floor(ax, None, points.reshape(-1, 2) * 1.1, POSITIONS)
        if data.conditioned:
            for x_HD in x[:200]:
                ax.plot(*x_HD.T, color=INK, lw=0.5, alpha=0.3)
        ax.plot(*x[:, -1].T, ".", color=BLUE, ms=2, alpha=0.5)
        ax.set_title(name, loc="left", fontsize=9)
        ax.set(xlabel="", ylabel="")
    true = data.true_K.numpy()
    for ax, name in zip(lower, ["data", *names], strict=True):
        shares = [row["shares"] for row in rows if row["model"] == name] or [data.shares(data.x_RHD).tolist()]
        low, high = np.min(shares, 0), np.max(shares, 0)
        ax.bar(range(len(true)), np.mean(shares, 0), color=BLUE)
        ax.vlines(range(len(true)), low, high, color=INK, lw=1)
        ax.step(np.arange(len(true) + 1) - 0.5, [*true, true[-1]], where="post", color=VERMILION, lw=1)
        ax.set(ylim=(0, 2.5 * true.max() if len(true) > 9 else 1), xticks=[])
        ax.set_xlabel(f"{len(true)} modes", fontsize=8)
    head(figure, axes, f"{of}: samples, and shares of the modes (red: the data's)")
    print(save(figure, out / f"{of}.png"))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
