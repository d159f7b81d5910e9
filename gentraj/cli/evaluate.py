"""`gentraj evaluate`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.planning.planner import PlannerConfig
from envs.evaluation.evaluate import EvaluationConfig
from envs.rendering.film import videos

from ..data import save_minari
from ..data.minari_writer import check_new_id
from ..device import pick_device
from ..experiments import world_judgement as world
from ..files import write_file
from ..plots.page import show
from ..progress import say
from ..runs.evaluation import play
from ..runs.folder import CONFIG, Run, load, read_config
from ..runs.model_card import EVALUATION, WORLD, YARDSTICKS
from ..trajectory import DEFAULT_OPTIONS, SamplingOptions
from .common import RunFolder, check_folder, check_output
from .options import parse
from .sampling import SamplerOptions

FILMED = 3  # episodes of a video


@dataclass(frozen=True)
class Evaluate:
    """Run a trained planner, policy or world model in its environment, closed loop, and write an honest score.

    Examples: gentraj evaluate runs/demo --episodes 100; gentraj evaluate runs/demo --protocol d4rl-single-goal;
    gentraj evaluate runs/iql --episodes 20; gentraj evaluate runs/world-model --as world-model --policies runs/bc
    runs/iql runs/swift
    """

    run: RunFolder
    """A run folder."""
    config: Annotated[EvaluationConfig, tyro.conf.arg(name="")] = field(default_factory=EvaluationConfig)
    planner: Annotated[PlannerConfig | None, tyro.conf.AvoidSubcommands] = None
    """Of a planner's run only."""
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)
    judged_as: Annotated[Literal["agent", "world-model"], tyro.conf.arg(name="as")] = "agent"
    """What it is judged as. A world model's run acts by trying actions on itself; as world-model its predictions are
    compared with data that it was not trained on."""
    policies: tuple[Path, ...] = ()
    """With --as world-model: runs of policies whose returns in the model are compared with the true ones."""
    out: Path | None = None
    """File for the scores; RUN/evaluation.json by default, RUN/world.json with --as world-model."""
    save_rollout: str | None = None
    """Also save the episodes as a Minari dataset of this id."""
    video: Path | None = None
    """Also write the first three episodes as MP4 files into this folder."""
    device: str | None = None


def main(argv: list[str]) -> None:
    guess = next((Path(word) for word in argv if (Path(word) / CONFIG).is_file()), None)  # enough for --help
    which = parse(Evaluate, argv, "gentraj evaluate", default=_defaults(guess))
    # Once more, now that it is known whose planner's settings are the defaults: options may stand before the run.
    args = parse(Evaluate, argv, "gentraj evaluate", default=_defaults(which.run))
    run = load(args.run, device=pick_device(args.device))
    if args.judged_as == "agent" and not run.config.ACTS_BY_SAMPLING and args.sampling != SamplerOptions():
        raise ValueError("planning in a world model is by the ensemble's mean, which draws nothing; leave --sampler, "
                         "--grid and --eta out, or give --as world-model")
    if args.judged_as == "world-model":
        if (options := args.sampling.options()).changed():
            run.world_model.calibrate(run.reference, options)
        print(world.table(_judge(run, args)))
        return
    if args.policies:
        raise ValueError("--policies are compared with a world model's predictions; give --as world-model too")
    scores = score(run, args.config, args.planner, args.out, args.save_rollout, args.video, args.sampling.options())
    print(table(scores))


def _defaults(folder: Path | None) -> Evaluate:
    """With the planner's settings of that run, where it is a planner's."""
    planner = getattr(read_config(folder)[0], "planner", None) if folder else PlannerConfig()
    return Evaluate(tyro.MISSING, planner=planner)


def _judge(run: Run, args: Evaluate) -> dict[str, Any]:
    path = args.out or run.folder / WORLD
    check_output(path, "--out")
    if (args.planner, args.save_rollout, args.video) != (None, None, None):
        raise ValueError("--as world-model plans and records nothing; leave --planner.*, --save-rollout and --video "
                         "out")
    judged = world.judge(run, args.policies, path.parent / "figures", args.config)
    write_file(path, json.dumps(judged, indent=2, allow_nan=False).encode())
    say(f"judgement in {path}, figures in {path.parent / 'figures'}")
    return judged


def score(run: Run, config: EvaluationConfig, planner: PlannerConfig | None = None, out: Path | None = None,
          save_rollout: str | None = None, video: Path | None = None,
          options: SamplingOptions = DEFAULT_OPTIONS) -> dict[str, Any]:
    """Plays and writes the scores; returns them."""
    path = out or run.folder / EVALUATION
    check_output(path, "--out")  # before the work, as all that follows
    if save_rollout is not None:
        check_new_id(save_rollout)
    if video is not None:
        check_folder(video, "--video")
    with videos(video, FILMED) if video else nullcontext() as watch:
        scores, played = play(run, config, planner, options, watch=watch)
    write_file(path, json.dumps(scores, indent=2, allow_nan=False).encode())
    say(f"scores in {path}" + (f", videos in {video}" if video else ""))
    if save_rollout is not None:
        save_minari(played, save_rollout, description=f"rollout of {run.config.kind} of {run.folder.name}")
        say(f"episodes in {save_rollout}")
    return scores


def table(scores: dict[str, Any]) -> str:
    """What is defined of the scores, beside those of the data, the controller and a random agent, as text."""
    columns = {scores["agent"]: scores} | {name: scores[name] for name in YARDSTICKS if scores.get(name)}
    named = (*YARDSTICKS, "env_id", "episodes", "seeds", "protocol", "agent", "step", "sampling", "returns")
    keys = [key for key in scores if key not in named and any(c.get(key) is not None for c in columns.values())]
    width = max(18, len(scores["agent"]) + 2)
    goals = f", {scores.get('protocol', 'random-goal')} protocol" if scores["success_rate"] is not None else ""
    lines = [f"{scores['env_id']}{goals}, {scores['episodes']} episodes",
             f"{'':28}" + "".join(f"{name:>{width}}" for name in columns)]
    for key in keys:
        lines.append(f"{key:28}" + "".join(f"{show(column.get(key)):>{width}}" for column in columns.values()))
    return "\n".join(lines)
