"""`gentraj report`: one self-contained HTML page about a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envs.evaluation.evaluate import EvaluationConfig

from ..device import pick_device
from ..plots.page import Picture
from ..runs import report
from ..runs.folder import Run, load
from ..runs.world_evaluation import evaluate_world_model
from .common import RunFolder, check_output
from .options import parse


@dataclass(frozen=True)
class Report:
    """Draw figures of a run and write them, with its scores and settings, as one self-contained HTML page.

    The figures show the loss, a film of an episode and the executed paths; for a planner also samples and plans, and
    for a world model its errors on held-out data.

    Examples: gentraj report runs/demo
              gentraj report runs/demo --seed 3 --out pages/demo.html
    """

    run: RunFolder
    """The folder of a run, as `gentraj train` writes it."""
    out: Path | None = None
    """The HTML file to write; by default RUN/report.html. The figures are written to the folder `figures` beside it."""
    seed: int = 0
    """Seed of the episodes and samples in the figures."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""


def main(argv: list[str]) -> None:
    args = parse(Report, argv, "gentraj report")
    check_output(args.out or args.run / report.PAGE, "--out")
    print(make_report(load(args.run, device=pick_device(args.device)), args.out, args.seed))


def make_report(run: Run, out: Path | None = None, seed: int = 0) -> Path:
    """Writes the page of a run of any kind, with figures beside it, and returns the path of the page."""
    is_world_model = run.config.world_model(run.components) is not None
    sections = {"World model": lambda folder: judgement(run, folder, seed)} if is_world_model else {}
    return report.make_report(run, out, seed, sections)


def judgement(run: Run, folder: Path, seed: int) -> list[Picture]:
    """Figures, drawn into `folder`, of how far a world model can be trusted on data that were held out of its
    training."""
    evaluate_world_model(run, (), folder, EvaluationConfig(seed=seed))
    return [Picture("Open loop", "Root mean square error on held-out data: of the mean prediction, of one sample, "
                    "and of predicting no change.", folder / "open-loop.png"),
            Picture("Calibration", "The expected and the measured error of a step, in bins with equal numbers of "
                    "held-out steps.", folder / "calibration.png"),
            Picture("True and imagined", "A held-out window of median error: what happened, what the model expects "
                    "after the same actions, and eight samples.", folder / "imagined.png")]
