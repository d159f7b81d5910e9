"""`gentraj evaluate`: the closed-loop score of a run, or how far a world model's predictions can be trusted."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gentraj.agents.imagination import ImaginationConfig
from gentraj.envs.evaluation.rollout import RolloutFn, rollout
from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.envs.evaluation.stepping import EnvironmentFault

from ..acceleration import BackendName, accelerate
from ..config import write_json
from ..device import pick_device
from ..experiments.pools import ray_rollout
from ..files import check_output
from ..progress import print_saved, say
from ..runs.judge import world_evaluation
from ..runs.judge.evaluation import Acting, evaluate_and_save, table
from ..runs.judge.world_evaluation import JudgeConfig
from ..runs.kinds.folder import RunFolder
from ..runs.kinds.loading import load
from ..runs.kinds.run import Run, of_kind
from ..runs.kinds.world_run import WorldModelRun
from ..trajectory import SAMPLER_SETTINGS
from .jobs import RayAddress, ray_tasks
from .options import (
    HELP,
    Device,
    RunPath,
    SamplerOptions,
    Step,
    is_run,
    load_trained,
    parse,
    print_help,
    split,
    with_options,
)


@dataclass(frozen=True)
class Evaluate:
    """Run a trained planner, policy or world model in closed loop in its environment, and write its scores.

    The scores are printed next to those of the data, of a random agent and, in a maze, of the controller that collected
    the data. With --as world-model, the predictions of a world model are compared with held-out data instead;
    `gentraj evaluate --as world-model --help` lists the options of that.

    The settings by which the agent acts are options too, --planner.*, --policy.* or --control.*; `gentraj evaluate RUN
    --help` lists them.

    Examples: gentraj evaluate runs/demo --episodes 100 --video runs/demo/videos
              gentraj evaluate runs/demo --protocol d4rl-single-goal
              gentraj evaluate runs/demo --deadline-ms 50 --fallback runs/demo-student
              gentraj evaluate runs/demo-student --teacher runs/demo
              gentraj evaluate runs/iql --episodes 20 --env-id Hopper-v5
              gentraj evaluate runs/idql --policy.candidates 32 --out best-of-32.json
              gentraj evaluate runs/bc --imagine runs/world-model --imagination.horizon 8 --out imagined.json
              gentraj evaluate runs/world-model --as world-model --policies runs/bc runs/iql runs/swift
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    step: Step = None
    config: Annotated[EvaluationConfig, tyro.conf.arg(name="")] = field(default_factory=EvaluationConfig)
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)
    fallback: Path | None = None
    """With --deadline-ms: a run, such as a planner's student, that acts while no plan or chunk is ready. Without it, a
    planner stands still then, and a policy holds its last action."""
    teacher: Path | None = None
    """For a student of `gentraj distill --method decision`: the run that acts for 12 steps where the student is unsure,
    such as the planner that it was distilled from. In the scores, `by_teacher` is the fraction of the actions that the
    teacher took."""
    min_confidence: float = 0.5
    """With --teacher: the student is unsure where its mixture of actions has less than this probability near its mode,
    and where it clamps an observation; 0 never asks the teacher."""
    imagine: Path | None = None
    """The run of a world model, in which several decisions of the agent are tried each time; the best one is carried
    out. Then --imagination.candidates, --imagination.horizon, --imagination.discount and --imagination.penalty are
    options, too. The decisions of an agent without noise are all the same; give it some, as by --policy.temperature
    1."""
    out: Path | None = None
    """The JSON file for the scores; by default RUN/evaluation.json."""
    save_rollout: str | None = None
    """Also save the episodes as a Minari dataset with this id, such as mine/rollout-v0."""
    video: Path | None = None
    """Also write videos (MP4) of the first three episodes into this folder."""
    accelerate: BackendName = "eager"
    """What runs the networks of RUN. compile: torch.compile, which takes a minute or more at first; openvino and
    openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    ray: RayAddress = None
    """Split the episodes over the tasks of Ray (extra scale): at an address such as auto or host:6379, or without one
    on this machine. All machines must share the run's folder. The scores are the same; times are not comparable."""
    device: Device = None


@dataclass(frozen=True)
class Judge:
    """Compare the predictions of a world model with data that it was not trained on, and write figures and world.json.

    Example: gentraj evaluate runs/world-model --as world-model --policies runs/bc runs/iql runs/swift
    """

    run: RunPath
    """The folder of a world model's run."""
    step: Step = None
    config: Annotated[JudgeConfig, tyro.conf.arg(name="")] = field(default_factory=JudgeConfig)
    sampling: Annotated[SamplerOptions, tyro.conf.arg(name="")] = field(default_factory=SamplerOptions)
    out: Path | None = None
    """The JSON file for the judgement, beside which the figures are written; by default RUN/world.json."""
    device: Device = None


def main(argv: list[str]) -> None:
    chosen = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chosen.add_argument("--as", choices=("agent", "world-model"), default="agent", dest="kind")
    try:
        kind, argv = chosen.parse_known_args(argv)
    except ArgumentError as error:
        raise ValueError(str(error)) from error
    if kind.kind == "world-model":
        _judge(parse(Judge, argv, "gentraj evaluate --as world-model"))
        return
    words, given = split(argv, (), is_run)
    if HELP & set(words):
        _help(words, given)
    args = parse(Evaluate, words, "gentraj evaluate")
    run = accelerate(load_trained(args.run, args.device, args.step), args.accelerate)
    fallback = args.fallback and load(args.fallback, device=pick_device(args.device))
    teacher = args.teacher and load(args.teacher, device=pick_device(args.device))
    if args.teacher is None and args.min_confidence != Evaluate.min_confidence:
        raise ValueError("--min-confidence says where a student asks its teacher, and there is none; give --teacher "
                         "too, or leave --min-confidence out")
    if args.imagine is None and (imagined := [key for key in given if key.split(".")[0] == "imagination"]):
        raise ValueError(f"--{imagined[0]} says how decisions are tried in a world model, and there is none; give the "
                         "run of one by --imagine, too, or leave it out")
    world = args.imagine and of_kind(load(args.imagine, device=pick_device(args.device)), WorldModelRun)
    settings = with_options(_acting(run, imagines=world is not None), given)
    acting = Acting(getattr(settings, run.ACTING), args.sampling.options(), fallback, teacher, args.min_confidence,
                    world, getattr(settings, "imagination", ImaginationConfig()))
    scores = evaluate_and_save(run, args.config, acting, out=args.out, rollout_id=args.save_rollout, video=args.video,
                               play=_play(args, run.folder))
    print_saved(table(scores))
    if failures := scores["failures"]:
        raise EnvironmentFault(f"{len(failures)} of {len(failures) + scores['episodes']} episodes did not finish, and "
                               f"the scores are those of the others; the first: {failures[0]}")


def _help(words: list[str], given: dict[str, list[str]]) -> None:
    """Prints the options, and the settings by which the agent of the run that is named acts."""
    runs = [word for word in words if is_run(word)]
    settings = with_options(_acting(load(runs[0]), imagines="--imagine" in words), given) if runs else None
    print_help(Evaluate, "gentraj evaluate", settings)


def _acting(run: Run, *, imagines: bool = False) -> object:
    """Settings with a group by which the agent of the run acts, and one by which it `imagines` if it does."""
    groups = {run.ACTING: run.acting} | ({"imagination": ImaginationConfig()} if imagines else {})
    return make_dataclass("Settings", [(name, type(group)) for name, group in groups.items()])(**groups)


def _play(args: Evaluate, folder: Path) -> RolloutFn:
    """What plays the episodes of the run in this folder. Raises ValueError for options that cannot be had on Ray."""
    if args.ray is None:
        return rollout
    if args.config.deadline_ms is not None or args.video is not None or args.accelerate != "eager" or args.imagine:
        raise ValueError("--ray plays the episodes in other processes, where --deadline-ms, --video, --accelerate and "
                         "--imagine cannot be had; leave them out")
    return ray_rollout(ray_tasks(folder, args.ray))


def _judge(args: Judge) -> None:
    run = of_kind(load_trained(args.run, args.device, args.step), WorldModelRun)
    options = args.sampling.options()
    if any(getattr(options, name) is not None for name in SAMPLER_SETTINGS):
        run.world_model.calibrate(run.reference, options)
    path = args.out or run.folder / RunFolder.WORLD
    check_output(path, "--out")
    judged = world_evaluation.evaluate_world_model(run, path.parent / "figures", args.config)
    write_json(path, judged)
    say(f"judgement in {path}, figures in {path.parent / 'figures'}")
    print_saved(world_evaluation.table(judged))
