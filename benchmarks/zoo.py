"""Trains the runs of the zoo with small networks, packs them into gentraj/zoo, and scores what was packed.

    python -m benchmarks.zoo --out build/zoo
    python -m benchmarks.zoo --out build/zoo --only pointmaze-large pointmaze-large-student

Data that are missing are recorded. Each run is trained by one command, which its card names, in the folder OUT: a run
that the same command has trained there is taken as it is, and an unfinished one goes on. All in all this takes about
three hours on one core.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import join, split

import tyro

from gentraj.config import check_known, read_json, write_json
from gentraj.data.minari_io import local_ids
from gentraj.runs import RunFolder, load
from gentraj.runs.kinds.world_run import WorldModelRun
from gentraj.runs.kinds.zoo import COMMANDS_FILE, PACKED, PREFIX, pack
from gentraj.training.checkpoint import saved_step

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = {"planner": 64, "policy": 8, "world model": 256}  # of the data, which are packed with a run
NARROW = "--arrival.width 128 --inverse.width 128"
MOST_BYTES = 5_000_000  # of the whole zoo
OF_MACHINE = {"latency_ms_p50", "latency_ms_p99"}  # measures that are no card's, as another machine has others
STUDENT = "--method decision --episodes 100 --rounds 3 --steps 15000 --policy.width 128"


def maze(name: str) -> str:
    return f"train pointmaze-{name} --model.network.width 16 {NARROW}"


def policy(preset: str, robot: str, options: str) -> str:
    return f"train {preset} --dataset gentraj/mujoco/{robot}-medium-v0 {options}"


def student(teacher: str) -> str:
    return f"distill runs/{teacher} {STUDENT}"


# Both were trained when Swift's labels were signs, its expectile 0.9 and its guidance 1.5 by default. The Hopper's data
# are of one policy, whose actions differ by noise alone. Guided by advantages over the expectile of 0.9, the hopper
# falls (882; without guidance 2,934). Those over the mean do no harm (2,856).
MEAN = "--policy.expectile 0.5"
SWIFT = "--steps 20000 --policy.model.network.width 64 --policy.critic.width 64"
DIFFUSION = "--steps 10000 --policy.model.network.width 64 --policy.temperature 0"  # not the noise of the data
COMMANDS = {
    "pointmaze-umaze": maze("umaze"),
    "pointmaze-medium": maze("medium"),
    "pointmaze-large": maze("large"),
    "pointmaze-fragments": ("train far-goals --dataset large-fragments.npz --horizon 24 --stride 4 "
                            f"--model.network.width 12 {NARROW} --roadmap.ahead 50 --roadmap.places 500"),
    "pointmaze-umaze-student": student("pointmaze-umaze"),
    "pointmaze-medium-student": student("pointmaze-medium"),
    "pointmaze-large-student": student("pointmaze-large"),
    "pointmaze-fragments-student": student("pointmaze-fragments"),
    "pointmaze-umaze-gan": ("train pointmaze-umaze --model gan --steps 4000 --model.network.width 8 "
                            f"--model.discriminator.width 8 {NARROW}"),
    "hopper-swift": policy("swift", "hopper", f"{SWIFT} {MEAN}"),
    "halfcheetah-swift": policy("swift", "halfcheetah", f"{SWIFT} --policy.guidance 3"),
    "hopper-diffusion-policy": policy("diffusion-policy", "hopper", DIFFUSION),
    "halfcheetah-diffusion-policy": policy("diffusion-policy", "halfcheetah", DIFFUSION),
    "hopper-world-model": policy("world-model", "hopper",
                                 "--steps 10000 --world.model.network.width 32 --world.width 64"),
}
"""The command that trains each run, without --run-dir. A student comes after its teacher."""
# Pieces of 100 steps that do not continue each other; the way to a goal of PointMaze-Large takes 190 on average.
FRAGMENTS = ("from gentraj.data import load_episodes, save_npz; from gentraj.data.splitting import take; "
             "from gentraj.envs.recording.recipes import make_missing; "
             "e = load_episodes(make_missing('gentraj/pointmaze/large-v0')); "
             "save_npz(take(e, [(i, t, t + 100) for i, n in enumerate(e.lengths) for t in range(0, n - 99, 200)]), "
             "'large-fragments.npz')")
DATA = {
    "gentraj/mujoco/halfcheetah-medium-v0": "gentraj data make mujoco/halfcheetah-medium --train-steps 1000000",
    "large-fragments.npz": f'python -c "{FRAGMENTS}"',
}
"""The command that makes the data, where the training would not record them itself."""
PROGRAMS = {"gentraj": [sys.executable, "-m", "gentraj"], "python": [sys.executable]}


@dataclass(frozen=True)
class Args:
    """Train, pack and score the runs of the zoo."""

    out: Path
    """The folder for the trained runs, in its subfolder `runs`."""
    only: tuple[str, ...] = ()
    """Names of runs; by default all."""


def main(args: Args) -> None:
    names = args.only or tuple(COMMANDS)
    check_known(names, COMMANDS, "run of the zoo")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        for command in missing_data(COMMANDS[name], {*local_ids(), *os.listdir(args.out)}):
            execute(split(command), args.out)
        train(name, args.out)
        pack_and_score(name, args.out)
    size = sum(path.stat().st_size for path in PACKED.rglob("*") if path.is_file())
    print(f"the zoo: {size:,} bytes")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES:,} bytes; give some runs narrower networks")


def execute(words: list[str], out: Path) -> None:
    """Runs a command of this gentraj, or of this Python, in the folder `out`."""
    subprocess.run([*PROGRAMS[words[0]], *words[1:]], cwd=out, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def gentraj(words: list[str], out: Path) -> None:
    execute(["gentraj", *words], out)


def missing_data(command: str, made: set[str]) -> list[str]:
    """The commands that make the data of a training, but for those that are `made`."""
    return [make for dataset, make in DATA.items() if f" {dataset} " in command and dataset not in made]


def as_typed(name: str) -> list[str]:
    """The commands that make the data of a run and train it, as one types them in any folder."""
    command = COMMANDS[name].replace("runs/", PREFIX)
    return [*missing_data(command, set()), f"gentraj {command} --run-dir runs/{name}"]


def train(name: str, out: Path) -> None:
    """Trains a run, or goes on with its training."""
    run_dir = f"runs/{name}"
    words = [*split(COMMANDS[name]), "--run-dir", run_dir]
    folder = RunFolder(out / run_dir)
    if not folder.path.exists():
        gentraj(words, out)
        return
    starts = folder.starts()
    if starts and starts[0]["command"] != join(["gentraj", *words]):
        raise SystemExit(f"{folder.path} was trained by `{starts[0]['command']}`; delete it, or give another --out")
    if not starts or saved_step(folder.path) < folder.read().run.training.steps:
        gentraj(["train", "--resume", run_dir] if words[0] == "train" else [*words, "--resume"], out)


def pack_and_score(name: str, out: Path) -> None:
    """Packs a run, and evaluates what was packed."""
    packed, unpacked = PACKED / name, out / "runs" / "zoo" / name
    for folder in (packed, unpacked):
        shutil.rmtree(folder, ignore_errors=True)
    run = load(out / "runs" / name)
    pack(run, packed, WINDOWS[run.NAME])
    (packed / COMMANDS_FILE).write_text("\n".join(as_typed(name)))
    gentraj(["evaluate", f"{PREFIX}{name}"], out)
    scores = read_json(unpacked / RunFolder.EVALUATION)
    write_json(packed / RunFolder.EVALUATION, {key: value for key, value in scores.items() if key not in OF_MACHINE})
    if isinstance(run, WorldModelRun):
        gentraj(["judge", f"{PREFIX}{name}"], out)
        shutil.copy(unpacked / RunFolder.WORLD, packed)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
