"""FAULTS 27: training holds the arrays once; windows are gathered, never stored."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gentraj.data import Episodes, save_minari

CHILD = """
import sys
from pathlib import Path
from gentraj.data import load_episodes
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks import TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.trajectory import TrajectorySpec

def trained(source):
    e, spec = load_episodes(source), TrajectorySpec(10, 2, 16, stride=4)
    config = DiffusionConfig(network=TemporalUNetConfig(8, (1, 2)))
    model = Diffusion(spec, config, Normalizer.fit("gaussian", [e.obs, e.act]))
    store = RunStore(Path(sys.argv[1]) / e.name)
    Trainer({"model": model}, TrainingData(e), TrainingConfig(steps=5), store, progress=False).fit()
    return e

def memory(kind):  # not getrusage's: that begins with what the parent held
    return next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(kind))

small = trained(sys.argv[2])  # so that what the libraries and the model take is there already
before = memory("VmRSS")
large = trained(sys.argv[3])
arrays = sum(a.nbytes for a in (large.obs, large.act, large.reward, large.terminated, large.truncated))
print(*((memory(kind) - before) / arrays for kind in ("VmRSS", "VmHWM")))
"""


def recording(steps: int) -> Episodes:
    rng, end = np.random.default_rng(0), np.isin(np.arange(steps), [steps // 2 - 1, steps - 1])
    obs, act = rng.random((steps + 2, 10), np.float32), rng.random((steps, 2), np.float32)
    return Episodes(obs, act, np.zeros(steps), np.zeros(steps, bool), end, [steps // 2] * 2)


def test_training_holds_the_arrays_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    sources = []
    for name, steps in (("small-v0", 1000), ("large-v0", 1_500_000)):
        save_minari(recording(steps), name, description=name)
        sources.append(name)
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), *sources], capture_output=True, text=True,
                           env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, check=False)
    assert child.returncode == 0, child.stderr
    after, most = map(float, child.stdout.split())
    assert after < 1.2 and most < 1.2
