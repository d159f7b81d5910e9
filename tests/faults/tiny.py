"""The smallest training that has everything: windows, noise, AdamW, an EMA. As a process, the one that is killed.

Exit codes are those of the command: 0, 1 (it could not be saved), 2 (the folder is in use).
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gentraj.data.episodes import Episodes
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.checkpoint import CheckpointError, RunLocked
from gentraj.training.loop import TrainingResult
from gentraj.training.step import TrainingStep
from gentraj.trajectory import TrajectorySpec


def tiny_episodes() -> Episodes:
    """3 episodes of a noisy circle; obs (2), act (1)."""
    rng, lengths = np.random.default_rng(0), np.array([40, 25, 60])
    phase = 0.1 * np.arange(lengths.sum() + 3)
    obs = np.stack([np.sin(phase), np.cos(phase)], 1) + 0.01 * rng.normal(size=(len(phase), 2))
    ends = np.isin(np.arange(lengths.sum()), np.cumsum(lengths) - 1)
    act = rng.uniform(-1, 1, (len(ends), 1))
    return Episodes(obs, act, np.zeros(len(ends)), np.zeros(len(ends), bool), ends, lengths)


class Tiny(nn.Module):
    """Tells the noise added to a window from the window: 16 rows, 2 layers."""

    def __init__(self, horizon: int = 16, width: int = 32):
        super().__init__()
        self.spec, self.batch_size = TrajectorySpec(2, 1, horizon), 8
        self.net = nn.Sequential(nn.Linear(3, width), nn.Mish(), nn.Linear(width, 3))
        for index, p in enumerate(self.net.parameters()):
            nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(index))
        self.ema = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.99))
        self.before_step: Callable[[], object] = lambda: None  # where a test does its harm

    def optimizers(self) -> dict[str, Optimizer]:
        return {"net": AdamW(self.net.parameters(), lr=1e-2, fused=True)}

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        self.before_step()
        batch = step.batch
        eps = torch.randn(batch.x_BHD.shape, generator=step.generator)
        loss = ((self.net(batch.x_BHD + eps) - eps) ** 2)[batch.mask_BHD].mean()
        norm = step.descend(loss, "net", 1.0)
        self.ema.update_parameters(self.net)
        return {"loss": loss.detach(), "grad_norm": norm}


def run_tiny(folder: Path, *, component: Tiny | None = None, episodes: Episodes | None = None, steps: int = 60,
             save_every: int = 20, log_every: int = 15, seed: int = 0, keep: int = 3, resume: bool = False,
             meta: dict | None = None, on_log: Callable[[dict], None] | None = None) -> TrainingResult:
    config = TrainingConfig(steps=steps, warmup=10, save_every=save_every, log_every=log_every, seed=seed, keep=keep)
    trainer = Trainer({"tiny": component or Tiny()}, TrainingData(episodes or tiny_episodes()), config,
                      RunStore(folder, meta or {}), on_row=on_log, progress=False)
    return trainer.fit(resume)


def main(folder: Path, steps: int, pause: float, largest_file: int = -1) -> int:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, -1))
    component = Tiny()
    component.before_step = lambda: time.sleep(pause)
    try:
        run_tiny(folder, component=component, steps=steps, on_log=lambda row: print(row["step"], flush=True))
    except (RunLocked, CheckpointError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, RunLocked) else 1
    return 0
