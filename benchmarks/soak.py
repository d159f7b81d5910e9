"""The soak: what must hold many times over, run by hand before a release. `make soak` runs all of it.

    python -m benchmarks.soak                       # all parts, one after the other, in about half an hour
    python -m benchmarks.soak kills --minutes 5 --seed 3

kills: trainings of every kind are killed at random moments and resumed, and end with the bits of an uninterrupted one.
damage: files of runs and data with flipped bits, cut ends and changed values are read as they were saved, or refused in
one line. memory: the memory of long evaluations and trainings does not grow. A part that loses something ends in an
AssertionError that says what.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import numpy as np
import torch
import tyro

from gentraj import runs
from gentraj.agents.policies.student import StudentConfig
from gentraj.cli import main as gentraj
from gentraj.config import from_json, to_json
from gentraj.data import Episodes, save_npz
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.envs.recording.pointmaze import record
from gentraj.families import FAMILIES
from gentraj.runs.kinds.presets import PLANNERS, PRESETS, with_model
from gentraj.runs.learn.dagger import SETTINGS, DecisionConfig
from gentraj.runs.learn.distillation import METHODS, FewStepRunConfig, distill
from gentraj.runs.learn.finetuning import FinetuneConfig, finetune
from gentraj.training import TrainingConfig, checkpoint
from gentraj.training.log import read_metrics

T = TypeVar("T")
Part = Literal["kills", "damage", "memory"]
SMALL = {"width": 8, "depth": 1, "batch_size": 8, "model_batch": 8, "members": 2, "candidates": 2}
TRAINING = TrainingConfig(steps=40, warmup=5, save_every=4, log_every=3, keep=2, threads=1)
SCORED = "td3bc"  # is evaluated while it is trained, as every agent can be
TEACHERS = {"decision": "td3bc", "value-aware": "diffuser", "finetune": "td3bc"}  # of the other students it is veteran
SECONDS_OF_A_TRAINING = 300.0  # that the tiny ones take at most
SECONDS_OF_READING = 60.0
MIB_PER_MINUTE = 2.0  # by which memory may grow


@dataclass(frozen=True)
class Args:
    parts: Annotated[tuple[Part, ...], tyro.conf.Positional] = ("kills", "damage", "memory")
    minutes: float = 10.0
    """The longest of each part."""
    seed: int = 0


def in_child(function: Callable[..., object], *args: Any) -> BaseProcess:
    """Starts a call in a fork of this process with one thread."""
    child = multiprocessing.get_context("fork").Process(target=_single_threaded, args=(function, *args))
    child.start()
    return child


def _single_threaded(function: Callable[..., object], *args: Any) -> None:
    torch.set_num_threads(1)
    code = function(*args)
    sys.exit(code if isinstance(code, int) else 0)


def finish(child: BaseProcess, seconds: float, what: str) -> int:
    """Waits for a child and returns its exit code. Raises AssertionError if it takes longer."""
    child.join(seconds)
    hung = child.is_alive()
    child.kill()
    child.join()
    assert not hung, f"{what} took longer than {seconds:.0f} s"
    return cast(int, child.exitcode)


# -- trainings of every kind


def narrow(config: T) -> T:
    """The settings with the smallest networks and batches."""

    def smaller(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: min(one, SMALL[key]) if key in SMALL and type(one) is int else smaller(one)
                for key, one in value.items()}

    return from_json(type(config), smaller(to_json(config)), "narrow settings")


def tiny(preset: str, data: Path, family: str | None = None, training: TrainingConfig = TRAINING) -> runs.RunConfig:
    """The preset, perhaps with another family of models, with the smallest networks, on a dataset in `data`."""
    config: Any = PRESETS[preset]
    if family is not None:
        config = with_model(config, FAMILIES[family])
    maze = "goals" in preset or (preset in PLANNERS and "maze" in preset)
    return replace(narrow(config), dataset=str(data / f"{'maze' if maze else 'hopper'}.npz"), training=training)


def prepare(data: Path) -> None:
    """Writes the datasets and trains the teachers into the folder that all trainings read."""
    factory = environment_factory("Hopper-v5")
    space = factory().action_space
    hopper = rollout(RandomAgent(space.low, space.high), factory, 12,
                     settings=RolloutSettings(6), record=True, progress=False)
    save_npz(cast(Episodes, hopper.recorded), data / "hopper.npz")
    save_npz(record("pointmaze-umaze", 2_000, progress=False), data / "maze.npz")
    for teacher in {"veteran", *TEACHERS.values()}:
        runs.train(tiny(teacher, data, training=replace(TRAINING, steps=4)), data / teacher, progress=False)


def train(preset: str, family: str | None, data: Path, folder: Path) -> None:
    training = replace(TRAINING, eval_every=20 * (preset == SCORED), eval_episodes=2)
    runs.train(tiny(preset, data, family, training), folder, resume=checkpoint.has_checkpoints(folder), progress=False)


def teach(method: str, data: Path, folder: Path) -> None:
    """Distils a teacher into a student."""
    teacher, config = runs.load(data / TEACHERS.get(method, "veteran")), METHODS[method].config
    if isinstance(config, FewStepRunConfig):
        config, resume = replace(config, training=TRAINING), checkpoint.has_checkpoints(folder)
    else:
        config = DecisionConfig(episodes=2, rounds=1, num_envs=2, policy=narrow(StudentConfig()), training=TRAINING)
        resume = (folder / SETTINGS).exists()
    distill(teacher, config, folder, resume=resume, progress=False)


def tune(data: Path, folder: Path) -> None:
    """Fine-tunes a policy in its environment."""
    config = FinetuneConfig(steps=60, updates=0.5, episodes=1)
    finetune(runs.load(data / TEACHERS["finetune"]), config, folder, resume=checkpoint.has_checkpoints(folder),
             progress=False)


def kinds() -> dict[str, Callable[[Path, Path], None]]:
    """What can be trained: a function (data, folder) that trains it into the folder, or resumes it to its end."""
    presets = [name for name in PRESETS if not name.startswith(("pointmaze-", "diffuser-pointmaze-"))]
    found: dict[str, Callable[[Path, Path], None]] = {name: partial(train, name, None) for name in presets}
    found |= {f"planner-{family}": partial(train, "pointmaze", family) for family in FAMILIES}
    found |= {f"student-{method}": partial(teach, method) for method in METHODS}
    return found | {"finetune": tune}


def fingerprint(folder: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What a training leaves: hashes of the newest checkpoint's tensors (weights and states of the optimisers), and the
    rows of metrics and of the learning curve without their seconds."""
    files = checkpoint.load(folder).folder.glob("*.safetensors")
    curve = folder / "scores.jsonl"
    scores = [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []
    rows = [{key: value for key, value in row.items() if key not in ("seconds", "cpu_seconds")}
            for row in [*read_metrics(folder), *scores]]
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in files}, rows


# -- the parts


def kills(args: Args, folder: Path) -> dict[str, Any]:
    """Kills a training of each kind in turn once or twice, and brings it to its end."""
    rng, deadline = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    assert finish(in_child(prepare, folder), SECONDS_OF_A_TRAINING, "preparing") == 0
    known = kinds()
    order = rng.sample(list(known), len(known))
    whole: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    count, trial = Counter[str](), 0
    while time.monotonic() < deadline:
        kind = order[trial % len(order)]
        if kind not in whole:
            began = time.monotonic()
            place = folder / f"{kind}-whole"
            assert finish(in_child(known[kind], folder, place), SECONDS_OF_A_TRAINING, kind) == 0, kind
            seconds[kind], whole[kind] = time.monotonic() - began, fingerprint(place)
        moments = [rng.uniform(0, seconds[kind]) for _ in range(rng.choice((1, 1, 2)))]
        count[kind] += killed_and_resumed(known[kind], folder, folder / f"{kind}-{trial}", moments)
        found = fingerprint(folder / f"{kind}-{trial}")
        assert found == whole[kind], f"{kind}, seed {args.seed}, killed after {moments} s, ends with other bits"
        shutil.rmtree(folder / f"{kind}-{trial}")
        trial += 1
    return {"kills": count.total(), "kinds": len(count), "of_kinds": len(known), "differ": 0}


def killed_and_resumed(training: Callable[[Path, Path], None], data: Path, folder: Path, moments: list[float]) -> int:
    """Kills the training at each moment, in seconds after its start, and brings it to its end. Returns the kills."""
    done = 0
    for moment in moments:
        child = in_child(training, data, folder)
        child.join(moment)
        child.kill()
        child.join()
        done += child.exitcode == -signal.SIGKILL
        assert child.exitcode in (0, -signal.SIGKILL), f"{folder.name} cannot be resumed"
    assert finish(in_child(training, data, folder), SECONDS_OF_A_TRAINING, folder.name) == 0, folder.name
    return done


def damage(args: Args, folder: Path) -> dict[str, Any]:
    """Damages files at random and reads them by the command that does."""
    rng, deadline = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    assert finish(in_child(prepare, folder), SECONDS_OF_A_TRAINING, "preparing") == 0
    targets = damaged_files(folder)
    outcomes = Counter[str]()
    while time.monotonic() < deadline:
        path, words = rng.choice(targets)
        outcomes[read_damaged(path, words, rng)] += 1
    return dict(outcomes)


def damaged_files(folder: Path) -> list[tuple[Path, list[str]]]:
    """Files of a run and of data, each with the command that reads it."""
    run = folder / "td3bc"
    evaluate = ["evaluate", str(run), "--episodes", "1", "--no-baselines"]
    files = [*checkpoint.load(run).folder.iterdir(), run / "config.json"]
    data = folder / "hopper.npz"
    return [*((path, evaluate) for path in files), (data, ["data", "inspect", str(data)])]


def read_damaged(path: Path, words: list[str], rng: random.Random) -> str:
    """Damages the file, runs the command in a fork, and restores the file. Returns "read" or "refused".

    Raises AssertionError for a bug, a hang, a refusal without a reason, and for a damaged checkpoint that is used
    without a word.
    """
    data = path.read_bytes()
    what = f"{path.name} damaged"
    with tempfile.NamedTemporaryFile("r", errors="replace") as output:
        path.write_bytes(damaged(data, rng))
        try:
            code = finish(in_child(_command, words, output.name), SECONDS_OF_READING, what)
        finally:
            path.write_bytes(data)
        said = output.read()
    assert code in (0, 1, 2) and "bug" not in said and "Traceback" not in said, f"{what}: {code}: {said[-1000:]}"
    assert code == 0 or "gentraj: error: " in said, f"{what}: refused without a reason: {said[-1000:]}"
    assert code != 0 or path.suffix != ".safetensors" or path.parent.name in said, f"{what}: its weights are used"
    return "read" if code == 0 else "refused"


def _command(words: list[str], output: str) -> int:
    with open(output, "w", buffering=1) as said, redirect_stdout(said), redirect_stderr(said):
        return gentraj(words)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a bit flipped, an end or a hole cut, a part twice, or a number of a text changed."""
    how, place = rng.randrange(5), rng.randrange(len(data))
    if how == 0:
        return data[:place]
    if how == 1:
        return data[:place] + data[place + 64 :]
    if how == 2:
        return data[:place] + data[place : place + 64] + data[place:]
    numbers = list(re.finditer(rb"\d+", data))
    if how == 3 and numbers and data[:1] == b"{":
        match = rng.choice(numbers)
        return data[: match.start()] + rng.choice((b"-1", b"1e999", b"NaN", b"null", b"9" * 400)) + data[match.end() :]
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def memory(args: Args, folder: Path) -> dict[str, Any]:
    """Evaluates a planner and trains for long, each for half of the minutes, while this process reads their memory."""
    assert finish(in_child(prepare, folder), SECONDS_OF_A_TRAINING, "preparing") == 0
    growths = {}
    for name, work in {"decisions": decide, "updates": update}.items():
        child, began = in_child(work, folder), time.monotonic()
        readings = []
        while time.monotonic() - began < 30 * args.minutes:
            time.sleep(min(1.0, args.minutes))
            assert child.is_alive(), f"{name} stopped early with exit code {child.exitcode}"
            readings.append((time.monotonic() - began, resident_mib(cast(int, child.pid))))
        child.kill()
        child.join()
        seconds, mib = np.array(readings[len(readings) // 3 :]).T
        growths[f"{name}_mib_per_minute"] = round(60 * float(np.polyfit(seconds, mib, 1)[0]), 2)
    assert all(growth < MIB_PER_MINUTE for growth in growths.values()), f"memory grows: {growths}"
    return growths


def decide(folder: Path) -> None:
    """Plans in episode after episode, until it is killed."""
    run = runs.load(folder / "veteran")
    factory, first = environment_factory("Hopper-v5"), 0
    agent = run.agent(factory().action_space)
    while True:
        rollout(agent, factory, 4, settings=RolloutSettings(first=first), progress=False)
        first += 4


def update(folder: Path) -> None:
    """Trains until it is killed."""
    training = replace(TRAINING, steps=10**8, log_every=100, save_every=1_000)
    runs.train(tiny("td3bc", folder, training=training), folder / "long", progress=False)


def resident_mib(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


PARTS: dict[Part, Callable[[Args, Path], dict[str, Any]]] = {"kills": kills, "damage": damage, "memory": memory}


def main(args: Args) -> None:
    for part in args.parts:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            print(f"{part}: {json.dumps(PARTS[part](args, Path(folder)))}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
