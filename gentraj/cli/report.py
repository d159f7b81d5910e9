"""`gentraj report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envs.evaluation.evaluate import EvaluationConfig

from ..device import pick_device
from ..experiments.world_judgement import judge
from ..plots.page import Picture
from ..runs import report
from ..runs.folder import Run, load
from .common import RunFolder, check_output
from .options import parse


@dataclass(frozen=True)
class Report:
    """Draw a run: its loss, scores, an episode as a film, executed paths, of a planner samples and plans too; and write
    report.html with all of it.

    Example: gentraj report runs/demo
    """

    run: RunFolder
    """A run folder."""
    out: Path | None = None
    """The page; RUN/report.html by default. Figures go into the folder `figures` beside it."""
    seed: int = 0
    """Seed of the episodes and samples that are drawn."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = parse(Report, argv, "gentraj report")
    check_output(args.out or args.run / report.PAGE, "--out")
    print(make_report(load(args.run, device=pick_device(args.device)), args.out, args.seed))


def make_report(run: Run, out: Path | None = None, seed: int = 0) -> Path:
    """The page of any run; its path."""
    judged = ({} if run.config.world_model(run.components) is None else {"World model": lambda of: judgement(run, of,
                                                                                                             seed)})
    return report.make_report(run, out, seed, judged)


def judgement(run: Run, folder: Path, seed: int) -> list[Picture]:
    """How far a world model can be trusted, by data held out of its training, where they are still there."""
    judge(run, (), folder, EvaluationConfig(seed=seed))
    return [Picture("Open loop", "Root mean square error of held-out data: of the mean, of one draw, and of saying "
                    "that nothing changes.", folder / "open-loop.png"),
            Picture("Calibration", "The error that was expected of a step and the one that was found, in bins of "
                    "equally many held-out steps.", folder / "calibration.png"),
            Picture("True and imagined", "A held-out window of median error: by the same actions, what happened, what "
                    "the model expects and eight draws.", folder / "imagined.png")]
