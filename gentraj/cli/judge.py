"""`gentraj judge`: how far a world model's predictions can be trusted."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

from ..config import settings, write_json
from ..files import check_output
from ..progress import print_saved, say
from ..runs.judge.world_evaluation import JudgeConfig, evaluate_world_model, table
from ..runs.kinds.folder import RunFolder
from ..runs.kinds.run import of_kind
from ..runs.kinds.world_run import WorldModelRun
from ..trajectory import SAMPLER_SETTINGS
from .options import GROUP, CheckpointStep, Command, Device, RunPath, SamplerOptions, load_trained


@settings
class Judge(Command):
    """Compare the predictions of a world model with data that it was not trained on, and write figures and world.json.

    Example: gentraj judge runs/world-model --policies runs/bc runs/iql runs/swift
    """

    run: RunPath
    """The folder of a world model's run."""
    step: CheckpointStep = None
    config: Annotated[JudgeConfig, GROUP] = field(default_factory=JudgeConfig)
    sampling: Annotated[SamplerOptions, GROUP] = field(default_factory=SamplerOptions)
    out: Path | None = None
    """The JSON file for the judgement, beside which the figures are written; by default RUN/world.json."""
    device: Device = None

    def __call__(self) -> None:
        run = of_kind(load_trained(self.run, self.device, self.step), WorldModelRun)
        options = self.sampling.options()
        if any(getattr(options, name) is not None for name in SAMPLER_SETTINGS):
            run.world_model.calibrate(run.reference, options)
        path = self.out or run.folder / RunFolder.WORLD
        check_output(path, "--out")
        judged = evaluate_world_model(run, path.parent / "figures", self.config)
        write_json(path, judged)
        say(f"judgement in {path}, figures in {path.parent / 'figures'}")
        print_saved(table(judged))
