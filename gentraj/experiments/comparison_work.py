"""What the processes do: prepare a group, train and measure a run, time it; they leave what came of it in files."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from envs.evaluation.evaluate import EvaluationConfig, score_baselines
from envs.making import environment_factory

from ..config import read_json
from ..data import Windows
from ..data.episodes import episodes_hash
from ..device import pick_device
from ..randomness import generator
from ..runs import folder as runs
from ..training.checkpoint import has_checkpoints
from ..training.interrupts import Interrupted
from .entries import Entry, is_kept, kept, write_json
from .groups import Group, draw_windows, plane
from .measures import MEASURES, Options, key, speed
from .processes import trained

FAILURE, WARNINGS, SPEED, BASELINES = "failure.json", "warnings.txt", "speed.json", "baselines.json"
DATA = "data.json"


def prepare(entry: Entry, device: str | None) -> Group:
    """Seconds of a training step of that entry's family, and the group's windows of data, if they are not there yet.

    To run with nothing beside it. A task's own dataset is recorded if it is missing.
    """
    config = cast(runs.RunConfig, entry.config)
    episodes, returns = runs.read_data(config)
    config = config.resolve(episodes)
    data = runs.DataFacts.of(episodes, config.context, config.env_id, returns)
    parts = runs.build(config, data, episodes)
    group = Group(entry.group, entry.results.parent, plane(data))
    about = {"dataset": config.dataset, "episodes": episodes_hash(episodes)}
    if not group.path.exists():
        write_json(group.folder / DATA, about)
        group.keep(draw_windows(Windows(episodes, parts["model"].spec)))
    elif read_json(group.folder / DATA) != about:
        raise ValueError(f"{group.folder} compares models of {read_json(group.folder / DATA)['dataset']}, and these "
                         f"options are about {config.dataset}; give another --out")
    with warnings.catch_warnings(action="ignore"):  # the training itself will tell them
        kept(step_time_path(entry), {}, lambda: _step_seconds(list(parts.values()), episodes, config, device))
    return group


def step_time_path(entry: Entry) -> Path:
    return entry.results.parent / f"{entry.family}-step-seconds.json"


def _step_seconds(parts: Sequence[runs.Part], episodes: Any, config: runs.RunConfig, device: str | None,
                  blocks: int = 3, steps: int = 8) -> float:
    """What a training step of all parts costs: the median over blocks of the mean, as not all steps cost the same."""
    at, means = pick_device(device), []
    trained = [(part.to(at).train(), part.optimizers(), Windows(episodes, part.spec, config.context)) for part in parts]
    for block in range(blocks + 1):
        began = time.perf_counter()
        for step in range(block * steps, (block + 1) * steps):
            for part, optimizers, windows in trained:
                batch = windows.batch(step, 0, part.batch_size).to(at)
                sum(value.item() for value in part.update(batch, optimizers, generator(step)).values())
        means.append((time.perf_counter() - began) / steps)
    return statistics.median(means[1:])  # the first one warms up


def train_and_measure(entry: Entry, group: Group, options: Options) -> None:
    """As much as is not done yet. A failure is a result too, and is written down."""
    failure = entry.results / FAILURE
    failure.unlink(missing_ok=True)
    try:
        run = _trained(entry, options.device)
        for name, measure in MEASURES.items():
            try:
                kept(entry.results / f"{name}.json", key(run, group, options), lambda m=measure: m(run, group, options))
            except ValueError as error:  # a number that is not finite among them
                raise ValueError(f"{name} cannot be measured: {error}") from error
    except Interrupted as error:
        raise SystemExit(error.exit_code) from error
    except (RuntimeError, ValueError, OSError) as error:
        write_json(failure, {"reason": " ".join(str(error).split())})


def is_measured(entry: Entry, group: Group, options: Options) -> bool:
    """Whether `train_and_measure` would find nothing to do."""
    if not has_checkpoints(entry.folder) or (entry.results / FAILURE).exists():
        return False
    run = runs.load(entry.folder)
    whole = entry.config is None or run.step == entry.config.training.steps
    return whole and all(is_kept(entry.results / f"{name}.json", key(run, group, options)) for name in MEASURES)


def is_timed(entries: Sequence[Entry], group: Group, options: Options) -> bool:
    """Whether `time_group` would find nothing to do."""
    env = runs.read_config(entries[0].folder)[1].env
    return (env is None or is_kept(group.folder / BASELINES, _baselines_key(env, options))) and all(
        is_kept(entry.results / SPEED, _speed_key(runs.load(entry.folder), group, options)) for entry in entries)


def time_group(entries: Sequence[Entry], group: Group, options: Options) -> None:
    """How fast each run samples, with nothing beside it; and what the controller and a random agent score."""
    for entry in entries:
        run = runs.load(entry.folder, device=pick_device(options.device))
        kept(entry.results / SPEED, _speed_key(run, group, options), lambda r=run: speed(r, group))
    env = runs.read_config(entries[0].folder)[1].env
    if env is not None:
        kept(group.folder / BASELINES, _baselines_key(env, options), lambda: score_baselines(
            environment_factory(env), EvaluationConfig(episodes=options.episodes), progress=False))


def _speed_key(run: runs.Run, group: Group, options: Options) -> dict[str, Any]:
    return {k: v for k, v in key(run, group, options).items() if k not in ("episodes", "num")}


def _baselines_key(env: str, options: Options) -> dict[str, Any]:
    return {"env": env, "episodes": options.episodes}


def _trained(entry: Entry, device: str | None) -> runs.Run:
    folder, config, at = entry.folder, entry.config, pick_device(device)
    if config is None or (has_checkpoints(folder) and runs.load(folder).step == config.training.steps):
        return runs.load(folder, device=at)
    with _written_warnings(entry.results / WARNINGS):
        return trained(config, folder, at)


@contextmanager
def _written_warnings(path: Path) -> Iterator[None]:
    """Each warning that comes in the block is a line of the file, once; a training that was killed has left its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    def note(message: Warning | str, *_: Any) -> None:
        line = " ".join(str(message).split())
        if line not in path.read_text().splitlines():
            with path.open("a") as file:
                file.write(f"{line}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield
