"""The closed-loop score of a run in its environment, as `gentraj evaluate` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gentraj.agents.imagination import Imagination, ImaginationConfig, PolicyValue
from gentraj.agents.planning.planner import PlanFollower
from gentraj.agents.realtime.background import Deadline
from gentraj.agents.wrappers import ConfidenceSwitch
from gentraj.envs.evaluation.rollout import RolloutFn, rollout
from gentraj.envs.evaluation.scores import score_behaviour
from gentraj.envs.evaluation.scoring import EvaluationConfig, evaluate
from gentraj.envs.making import environment_factory
from gentraj.envs.rendering import Watch, videos

from ...acceleration import backend_of
from ...config import JsonObject, write_json
from ...data import Episodes, save_minari
from ...data.minari_io import check_new_id
from ...files import check_folder, check_output
from ...plots.page import show
from ...progress import busy, counted, say
from ...trajectory import DEFAULT_OPTIONS, Agent, SamplingOptions
from ..kinds.folder import RunFolder, last_evaluations
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun
from ..kinds.run import ActingConfig, Run, check_widths, environment_of
from ..kinds.world_run import WorldModelRun
from .saved_scores import MEASURES, YARDSTICKS, episodes_scored, read_scores

LEAP = 4.0  # times the longest step in the data; the medians of the zoo's planners are 1.2 to 2.4
FEW_EPISODES = 10  # fewer give bootstrap intervals that are too narrow
FILMED = 3  # number of episodes that are filmed
NOT_IN_TABLE = {*YARDSTICKS, "env_id", "episodes", "seeds", "protocol", "agent", "step", "steps", "sampling",
                "networks", "returns", "successes", "last_evaluations", "failures", "deadline"}


@dataclass(frozen=True)
class Acting:
    """How a run acts in an evaluation; by default as its own settings say."""

    settings: ActingConfig | None = None
    """Settings by which the agent acts, in the place of the run's own."""
    options: SamplingOptions = DEFAULT_OPTIONS
    """How the agent samples."""
    fallback: Run | None = None
    """The run that acts while an agent with a deadline has no plan or chunk to carry out, such as its student."""
    teacher: Run | None = None
    """The run that acts where this run, its student, is unsure (`agents.ConfidenceSwitch`)."""
    min_confidence: float = 0.5
    """The confidence, in [0, 1], below which a student is unsure."""
    world: WorldModelRun | None = None
    """The world model in which the agent's decisions are tried before one is carried out (`agents.Imagination`)."""
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    """How they are tried there."""

    def agent(self, run: Run, config: EvaluationConfig) -> Agent:
        """The agent for the environment of an evaluation.

        Raises ValueError for settings of another agent, if there is a fallback where no agent acts by a deadline, for a
        teacher of a run that is no student, and for runs of other observations or actions than the agent's.
        """
        deadline, teacher = None, self.teacher
        for other in (self.fallback, self.world):
            if other is not None:
                check_widths(other, run)
        if teacher is not None:
            check_widths(teacher, run, "the run that the student was distilled from")
        space = run.action_space(config.env_id)
        if config.deadline_ms is not None and isinstance(run, PlannerRun | PolicyRun) and teacher is None:
            deadline = Deadline(config.deadline_ms / 1000, self.fallback and self.fallback.agent(space))
        elif self.fallback is not None:
            raise ValueError(f"{run.description}, and a fallback is for a planner or a policy with a deadline and no "
                             "teacher; give such a run and a deadline, or leave the fallback out")
        elif config.deadline_ms is not None:
            say("a deadline only counts late decisions here: an agent with a teacher, or of a world model, makes "
                "nothing in advance")
        with busy("making the agent"):  # a planner's trust is calibrated on the windows that the run keeps
            agent = run.agent(space, self.settings, options=self.options, deadline=deadline)
        if self.world is not None:
            if deadline is not None or teacher is not None:
                raise ValueError("an agent with a deadline or a teacher imagines nothing; leave the world model out")
            if isinstance(run, WorldModelRun):
                raise ValueError(f"{run.description}, whose agent plans in it already; give a policy or a planner, or "
                                 "leave the world model out")
            value = PolicyValue.of(run.policy) if isinstance(run, PolicyRun) else None
            return Imagination(agent, self.world.world_model, self.imagination, value=value)
        if teacher is None:
            return agent
        return ConfidenceSwitch(agent, teacher.agent(space), self.min_confidence)


OWN_ACTING = Acting()


def evaluate_run(run: Run, config: EvaluationConfig, acting: Acting = OWN_ACTING, *, play: RolloutFn = rollout,
                 watch: Watch | None = None, progress: bool = True) -> tuple[JsonObject, Episodes]:
    """Lets the run's agent act in its environment; returns what evaluation.json holds, and the recorded episodes.

    `play` and `watch` are those of `gentraj.envs.evaluation.scoring.evaluate`. If episodes do not finish because the
    environment is faulty, the scores are those of the others and say so. Raises what `Acting.agent` raises, and
    `EnvironmentFault` if no episode finishes.
    """
    env = environment_of(run, config.env_id)
    agent = acting.agent(run, config)
    factory = environment_factory(env, protocol=config.protocol)
    behaviour, why_none = score_behaviour(run.data.returns, run.data.recorded or run.data.env, factory)
    scores, episodes = evaluate(agent, env, config, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                                progress=progress, watch=watch, play=play)
    if isinstance(agent, PlanFollower):
        say_leaps(agent.last_plan.leaps(run.reference))
    if behaviour is None and scores["controller"] is None:
        say(f"there is no score of the data to compare with: {why_none}")
    about = {"behaviour": behaviour, "agent": run.summary, "step": run.step, "steps": run.config.training.steps,
             "sampling": run.sampling(acting.settings, acting.options), "networks": backend_of(run),
             "last_evaluations": last_evaluations(RunFolder(run.folder).curve(), run.step)}
    return scores | about, episodes


def say_leaps(leap_P: Tensor) -> None:
    """Says that plans leap, if the median of their longest steps, in units of the data's longest, is too large."""
    if not len(leap_P):
        return
    leap = float(leap_P.median())
    if leap > LEAP:
        say(f"the plans leap: half of the last ones take a step at least {leap:.3g} times as long as the data's "
            "longest; train for longer, or give goals that the data reach within a plan (see docs/troubleshooting.md, "
            "My score is bad)")


def evaluate_and_save(run: Run, config: EvaluationConfig, acting: Acting = OWN_ACTING, *, out: Path | None = None,
                      rollout_id: str | None = None, video: Path | None = None,
                      play: RolloutFn = rollout) -> JsonObject:
    """Evaluates a run as `evaluate_run` does, writes the scores as JSON and returns them.

    The scores are written to `out`, by default RUN/evaluation.json; scores of fewer episodes than those there, of the
    same checkpoint, are written to a file of their own. The episodes are saved as the Minari dataset `rollout_id`, and
    videos of the first three in the folder `video`, if given. Raises ValueError if something cannot be written, before
    any episode is run, and what `evaluate_run` raises.
    """
    check_output(out or run.folder / RunFolder.EVALUATION, "--out")
    if rollout_id is not None:
        check_new_id(rollout_id)
    if video is not None:
        check_folder(video, "--video")
    with videos(video, FILMED) if video else nullcontext() as watch:
        scores, episodes = evaluate_run(run, config, acting, play=play, watch=watch)
    path = write_json(out or own_file(run, scores), scores)
    say(f"scores in {path}" + (f", videos in {video}" if video else ""))
    if rollout_id is not None:
        save_minari(episodes, rollout_id, description=f"rollout of {run.summary} of {run.folder.absolute().name}")
        say(f"episodes in {rollout_id}")
    return scores


def own_file(run: Run, scores: Mapping[str, Any]) -> Path:
    """The file in the run's folder for these scores: one of their own beside those of a longer evaluation."""
    path = run.folder / RunFolder.EVALUATION
    before, _ = read_scores(run.folder, run.step, run.step)
    longer = before.get("episodes", 0)
    if longer > scores["episodes"]:
        say(f"{path} keeps the scores of {counted(longer, 'episodes')}; those of {scores['episodes']} are beside it")
        return path.with_name(f"evaluation-of-{scores['episodes']}.json")
    return path


def table(scores: JsonObject) -> str:
    """The scores that are defined, beside those of the data, the controller and a random agent, as a text table."""
    columns = {scores["agent"]: scores} | {name: scores[name] for name in YARDSTICKS if scores.get(name)}
    rows = {"": list(columns)}
    for key in scores:
        if key not in NOT_IN_TABLE and any(column.get(key) is not None for column in columns.values()):
            rows[MEASURES.get(key, key)] = [show(column.get(key)) for column in columns.values()]
    width = max(18, *(len(cell) + 2 for cells in rows.values() for cell in cells))
    goals = "" if scores["success_rate"] is None else f", {scores.get('protocol', 'random-goal')} protocol"
    lines = [f"{scores['env_id']}{goals}, {episodes_scored(scores)}, networks: {scores['networks']}"]
    names = max(map(len, rows))
    lines += [f"{name:{names}}" + "".join(f"{cell:>{width}}" for cell in cells) for name, cells in rows.items()]
    if scores["episodes"] < FEW_EPISODES:
        lines.append(f"the interval cannot be relied on, as it is of too few episodes ({scores['episodes']}); give "
                     f"--episodes {FEW_EPISODES} or more")
    if scores["step"] < scores["steps"]:
        lines.append(f"of a training that is not finished: step {scores['step']:,} of {scores['steps']:,}")
    if (last := scores["last_evaluations"]) is not None:
        means = ", ".join(f"{MEASURES.get(key, key)} {show(value)}" for key, value in last.items() if key != "steps")
        lines.append(f"means over the last evaluations of the training (steps {', '.join(map(str, last['steps']))}): "
                     f"{means}")
    if (deadline := scores.get("deadline")) is not None:
        lines.append(f"deadline of {deadline['ms']:g} ms: {deadline['misses']} of {deadline['acts']} decisions missed "
                     f"it ({100 * deadline['miss_rate']:.3g} %); p50 {deadline['act_ms_p50']:.3g}, p99 "
                     f"{deadline['act_ms_p99']:.3g}, worst {deadline['act_ms_worst']:.3g} ms")
        for key, what in (("acted_by", "steps by"), ("plans", "plans of"), ("chunks", "chunks with a delay of")):
            if counts := deadline.get(key):
                lines.append(f"{what} " + ", ".join(f"{name}: {count}" for name, count in counts.items()))
    return "\n".join(lines)
