"""Checks that a change of the code keeps behaviour: hashes of the weights and the scores of one run of each kind.

    python -m benchmarks.behaviour write before.json      # before a change
    python -m benchmarks.behaviour check before.json      # after it: prints what differs, then exits with 1
    python -m benchmarks.behaviour write before.json gan  # of some kinds only, in 20 s of one core each
    python -m benchmarks.behaviour write before.json presets  # of every preset, after a few updates of each

Data, training and evaluation use one thread and are deterministic on one machine. The hash of the weights does not
depend on the names of tensors, so that a module may be renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import gymnasium
import numpy as np
import safetensors.numpy
import tyro
from tyro.conf import Positional

from gentraj.data import Episodes, save_npz
from gentraj.envs.recording.pointmaze import record as record_maze
from gentraj.runs.kinds.presets import PRESETS

ROOT = Path(__file__).parents[1]
STEPS, FEW_STEPS = 200, 5
IN_MAZES = re.compile("maze|goals")  # presets that plan for goals
RUNS = {
    "diffusion": ("diffuser", ()),
    "gan": ("diffuser", ("--model", "gan")),
    "latent": ("veteran", ("--model", "latent", "--horizon", "8")),
    "iql": ("iql", ()),
    "fql": ("fql", ()),
    "swift": ("swift", ()),
    "world-model": ("world-model", ()),
}


def record(path: Path) -> None:
    """Saves episodes of random actions in InvertedPendulum."""
    env = gymnasium.make("InvertedPendulum-v5")
    rng = np.random.default_rng(0)
    obs, act, reward, terminated, truncated, lengths = [], [], [], [], [], []
    for episode in range(60):
        obs.append(env.reset(seed=episode)[0])
        for step in range(50):
            act.append(rng.uniform(-1, 1, 1))
            seen, earned, ended, *_ = env.step(act[-1])
            obs.append(seen)
            reward.append(earned)
            terminated.append(ended)
            truncated.append(step == 49 and not ended)
            if ended or truncated[-1]:
                lengths.append(step + 1)
                break
    save_npz(Episodes(np.array(obs), np.array(act), np.array(reward), np.array(terminated), np.array(truncated),
                      np.array(lengths)), path)


def runs_of(kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The words after `gentraj train` of each kind; a kind may be the name of a preset with preset/ before it."""
    names = [f"preset/{preset}" for preset in PRESETS] if "presets" in kinds else kinds or [*RUNS]
    found = {}
    for name in names:
        preset, options = RUNS.get(name, (name.removeprefix("preset/"), ()))
        steps = FEW_STEPS if name.startswith("preset/") else STEPS
        data = ("maze.npz",) if IN_MAZES.search(name) else ("pendulum.npz", "--env-id", "InvertedPendulum-v5")
        found[name] = (preset, *options, "--steps", str(steps), "--dataset", *data)
    return found


def fingerprint(folder: Path, words: tuple[str, ...], episodes: int) -> dict[str, str]:
    """Returns hashes of the weights and of the mean return. Raises RuntimeError with what a failed command printed."""
    gentraj("train", *words, "--training.threads", "1", "--run-dir", str(folder), place=folder.parent)
    gentraj("evaluate", str(folder), "--episodes", str(episodes), "--no-baselines", place=folder.parent)
    step = max(folder.glob("step-*"))
    tensors = sorted(_digest(f"{array.dtype}{array.shape}".encode() + array.tobytes())
                     for file in step.glob("*.safetensors") if not file.name.endswith(".optimizer.safetensors")
                     for array in safetensors.numpy.load(file.read_bytes()).values())
    evaluated = json.loads((folder / "evaluation.json").read_text())
    return {"weights": _digest("".join(tensors).encode()), "return_mean": repr(evaluated["return_mean"])}


def gentraj(*words: str, place: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "gentraj", *words], capture_output=True, text=True, env=environment,
                          cwd=place)
    if done.returncode:
        raise RuntimeError(f"gentraj {' '.join(words)}: {done.stderr}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main(verb: Positional[Literal["write", "check"]], path: Positional[Path],
         kinds: Positional[tuple[Literal[(*RUNS, "presets")], ...]] = ()) -> int:  # type: ignore[valid-type]
    expected = json.loads(path.read_text()) if verb == "check" else {}
    found = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        record(place / "pendulum.npz")
        save_npz(record_maze("pointmaze-umaze", 2_000, progress=False), place / "maze.npz")
        for kind, words in runs_of(kinds or [*expected]).items():
            episodes = 1 if kind.startswith("preset/") else 4
            found[kind] = fingerprint(place / kind.replace("/", "-"), words, episodes)
            print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
    if verb == "write":
        path.write_text(json.dumps(found, indent=1))
        return 0
    for name, hashes in found.items():
        print(f"{name:12} {'the same' if hashes == expected[name] else f'{expected[name]} -> {hashes}'}")
    return int(any(hashes != expected[name] for name, hashes in found.items()))


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
