"""Which path, parameterisation, sampler and number of steps plan best? Closed-loop returns at equal training time.

    python -m benchmarks.diffusion_table --out runs/table

trains every model of MODELS on PointMaze-UMaze for the time in which the preset's U-Net trains for `--steps` steps,
plans with each model, sampler and number of steps, and writes OUT/table.md and OUT/table.png. All planners share the
inverse dynamics and the arrival network of one run of the preset, OUT/base, so that they differ in their generators
only. Results are kept: a second call goes on where the first one stopped, and once OUT/base exists several calls may
run at once on different models (`--only`). The number of training steps of each model is measured in its first call and
kept in OUT/MODEL.steps.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.lines import whole_lines
from gentraj import runs
from gentraj.agents.planning.planner import Planner, PlannerConfig
from gentraj.agents.planning.trust import Trust
from gentraj.data import Windows, load_episodes
from gentraj.diffusion import DiffusionConfig, LatentDiffusionConfig
from gentraj.diffusion.paths import PATHS
from gentraj.diffusion.samplers import SAMPLERS
from gentraj.envs.evaluation.evaluate import EvaluationConfig, evaluate
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.recipes import make_missing
from gentraj.networks import DiTConfig, ResidualMLPConfig
from gentraj.randomness import generator
from gentraj.runs.presets import PRESETS
from gentraj.training.checkpoint import has_checkpoints
from gentraj.trajectory import Condition, SamplingOptions

PRESET = PRESETS["pointmaze-umaze"]
STEPS = (1, 2, 5, 10, 20)

# With sigma_data = 1, "edm" is "v" up to its sign, "score" is "eps"; "velocity" is "v" where variance is preserved and
# "eps" where alpha is constant (tests/diffusion/test_denoiser.py): each is trained once.
MODELS: dict[str, DiffusionConfig | LatentDiffusionConfig] = {
    "preset": PRESET.model,
    **{f"{path}, {prediction}": DiffusionConfig(path=path, prediction=prediction, levels=None)
       for path in PATHS for prediction in ("eps", "x0", "v") if (path, prediction) != ("flow", "eps")},
    "flow, velocity": DiffusionConfig(path="flow", prediction="velocity", levels=None),
    "flow, velocity, logit-normal": DiffusionConfig(path="flow", prediction="velocity", levels=None,
                                                    density="logit-normal"),
    "edm, as published": DiffusionConfig(path="edm", prediction="edm", weight="edm", density="log-normal",
                                         sigma_data=0.5, levels=None),
    "vp-cosine, x0, min-snr": DiffusionConfig(weight="min-snr", levels=None),
    "preset, attention": DiffusionConfig(replace(PRESET.model.network, attention=True)),
    "preset, DiT": DiffusionConfig(DiTConfig()),
    "preset, residual MLP": DiffusionConfig(ResidualMLPConfig()),
    "latent": LatentDiffusionConfig(),
}
# At one step every sampler returns denoise(x, 1), and euler is ddim: each is run once.
DISTINCT = [name for name in SAMPLERS if name != "euler"]


@dataclass(frozen=True)
class Args:
    out: Path
    """Folder of the runs and of the table."""
    steps: int = 1000
    """Training steps of the preset's U-Net; the other models train for the same time. They are few, so that the models
    differ."""
    base_steps: int = 1500
    """Training steps of the inverse dynamics and the arrival network."""
    episodes: int = 40
    only: tuple[str, ...] = ()
    """Names of models; all by default."""
    samplers: tuple[str, ...] = tuple(DISTINCT)
    threads: int = 1


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    base = trained("base", args)
    for name in args.only or MODELS:
        rows = args.out / f"{name}.jsonl"
        done = {(row["sampler"], row["steps"]) for row in whole_lines(rows)}
        todo = [c for c in combinations(args.samplers) if c not in done]
        if not todo:
            continue
        planners = Planners(trained(name, args), base)
        for sampler, steps in todo:
            row = {"model": name, "sampler": sampler, "steps": steps} | planners.score(sampler, steps, args.episodes)
            with rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    rows = [row for path in sorted(args.out.glob("*.jsonl")) for row in whole_lines(path)]
    write_table(rows, args.out / "table.md")
    write_figure(rows, args.out / "table.png")


def combinations(samplers: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    yield "ddim", 1
    yield from ((sampler, steps) for sampler in samplers for steps in STEPS if steps > 1)


def trained(name: str, args: Args) -> runs.Run:
    """Returns the run of a model, and trains it if it is not trained yet."""
    folder, settings, model = args.out / name, args.out / f"{name}.steps", MODELS.get(name, PRESET.model)
    if name == "base":
        settings.write_text(str(args.base_steps))
    elif not settings.exists():
        settings.write_text(str(round(args.steps * step_time(MODELS["preset"]) / step_time(model))))
    training = replace(PRESET.training, steps=int(settings.read_text()), threads=args.threads)
    if has_checkpoints(folder) and (run := runs.load(folder)).step == training.steps:
        return run
    config = replace(PRESET, model=model, training=training)
    return runs.train(config, folder, resume=has_checkpoints(folder))


def step_time(model: DiffusionConfig | LatentDiffusionConfig, steps: int = 12) -> float:
    """Returns the minimal time of a training step of the generator, in seconds."""
    config = replace(PRESET, model=model)
    episodes = load_episodes(make_missing(config.dataset))
    config, facts = config.resolve(episodes), runs.DataFacts.of(episodes, config.context)
    component = runs.build(config, facts, episodes)["model"]
    windows, optimizers, times = Windows(episodes, component.spec), component.optimizers(), []
    for step in range(steps):
        batch, start = windows.batch(step, 0, component.batch_size), time.perf_counter()
        component.update(batch, optimizers, generator(step))
        times.append(time.perf_counter() - start)
    return min(times)


class Planners:
    """Planners with one model and any sampler, whose trust in the model is calibrated once."""

    def __init__(self, run: runs.Run, base: runs.Run):
        self.run, self.base = run, base
        env = environment_factory(run.data.env)()
        self.space = env.action_space
        env.close()
        self.trust = Trust(run.model, run.reference, run.config.planner.trust)

    def score(self, sampler: str, steps: int, episodes: int) -> dict[str, Any]:
        options = SamplingOptions(sampler=sampler)
        config: PlannerConfig = replace(self.run.config.planner, steps=steps)
        planner = Planner(self.run.model, config, self.space.low, self.space.high, trust=self.trust,
                          inverse=self.base.components["inverse"], arrival=self.base.components["arrival"],
                          options=options)
        scores, _ = evaluate(planner, self.run.data.env, EvaluationConfig(episodes=episodes, baselines=False),
                             obs_keys=self.run.data.obs_keys, goal_dims=self.run.data.goal_dims, progress=False)
        found = {key: scores[key] for key in ("return_mean", "return_ci95", "success_rate")}
        return found | self.cost(replace(options, steps=steps))

    def cost(self, options: SamplingOptions, repeats: int = 7) -> dict[str, float]:
        """Returns the time in milliseconds and the network calls of sampling six candidates for one environment."""
        model, times = self.run.model, []
        start = Condition.empty(model.spec, 6).with_obs(0, self.run.reference.x_BHD[0, 0, : model.spec.obs_dim])
        calls = model.network_calls
        for _ in range(repeats):
            began = time.perf_counter()
            model.sample(start, options=options)
            times.append(time.perf_counter() - began)
        return {"sample_ms": 1000 * statistics.median(times), "calls": (model.network_calls - calls) / repeats}


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    head = ("model", "sampler", "steps", "return", "95 % interval", "success", "ms", "network calls")
    cells = [(r["model"], r["sampler"] if r["steps"] > 1 else "any", r["steps"], f"{r['return_mean']:.0f}",
              "{:.0f} to {:.0f}".format(*r["return_ci95"]), f"{r['success_rate']:.2f}", f"{r['sample_ms']:.0f}",
              f"{r['calls']:.0f}") for r in rows]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *cells))
    path.write_text(table + "\n")
    print(f"{len(rows)} rows in {path}")


def write_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the returns of each model with the preset's sampler: a point per number of steps, the interval at 5."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = {(r["model"], r["steps"]): r for r in rows if r["sampler"] == "ddim"}
    models = sorted({model for model, steps in found if steps == 5}, key=lambda m: found[m, 5]["return_mean"])
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(models) + 1.2), layout="constrained")
    for steps, colour in zip(STEPS, plt.get_cmap("viridis_r")([0.1, 0.3, 0.55, 0.75, 0.95]), strict=True):
        there = [(found[m, steps]["return_mean"], i) for i, m in enumerate(models) if (m, steps) in found]
        axes.scatter(*zip(*there, strict=True), color=colour, s=24, label=f"{steps}", zorder=3)
    for i, model in enumerate(models):
        axes.plot(found[model, 5]["return_ci95"], [i, i], color="0.75", linewidth=5, zorder=1, solid_capstyle="round")
    axes.set_yticks(range(len(models)), models)
    axes.set_xlabel("return per episode, mean; bars: 95 % interval at 5 steps")
    axes.legend(title="DDIM steps", loc="upper left", fontsize=8)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
