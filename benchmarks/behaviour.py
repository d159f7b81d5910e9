"""Checks that a change of the code keeps behaviour: hashes of the weights and the scores of one run of each kind.

    python -m benchmarks.behaviour write before.json      # before a change
    python -m benchmarks.behaviour check before.json      # after it: prints what differs, then exits with 1
    python -m benchmarks.behaviour write before.json gan  # of some kinds only, in 20 s of one core each

Data, training and evaluation use one thread and are deterministic on one machine. The hash of the weights does not
depend on the names of tensors, so that a module may be renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import gymnasium
import numpy as np
import safetensors.numpy
import tyro
from tyro.conf import Positional

from gentraj.data import Episodes, save_npz

STEPS = 200
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


def fingerprint(folder: Path, data: Path, preset: str, options: tuple[str, ...]) -> dict[str, str]:
    """Returns hashes of the weights and of the mean return. Raises RuntimeError with what a failed command printed."""
    gentraj("train", preset, *options, "--dataset", str(data), "--env-id", "InvertedPendulum-v5", "--steps", str(STEPS),
            "--training.threads", "1", "--run-dir", str(folder))
    gentraj("evaluate", str(folder), "--episodes", "4", "--no-baselines")
    step = max(folder.glob("step-*"))
    tensors = sorted(_digest(f"{array.dtype}{array.shape}".encode() + array.tobytes())
                     for file in step.glob("*.safetensors") if not file.name.endswith(".optimizer.safetensors")
                     for array in safetensors.numpy.load(file.read_bytes()).values())
    evaluated = json.loads((folder / "evaluation.json").read_text())
    return {"weights": _digest("".join(tensors).encode()), "return_mean": repr(evaluated["return_mean"])}


def gentraj(*words: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "gentraj", *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"gentraj {' '.join(words)}: {done.stderr}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main(verb: Positional[Literal["write", "check"]], path: Positional[Path],
         kinds: Positional[tuple[Literal[tuple(RUNS)], ...]] = ()) -> int:  # type: ignore[valid-type]
    expected = json.loads(path.read_text()) if verb == "check" else {}
    with tempfile.TemporaryDirectory() as place:
        record(data := Path(place) / "pendulum.npz")
        found = {name: fingerprint(Path(place) / name, data, *RUNS[name]) for name in kinds or expected or RUNS}
    if verb == "write":
        path.write_text(json.dumps(found, indent=1))
        return 0
    for name, hashes in found.items():
        print(f"{name:12} {'the same' if hashes == expected[name] else f'{expected[name]} -> {hashes}'}")
    return int(any(hashes != expected[name] for name, hashes in found.items()))


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
