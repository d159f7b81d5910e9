"""The closed-loop score of a run in its environment, as `gentraj evaluate` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentraj.agents.fallback import ConfidenceSwitch
from gentraj.agents.planning.deadline import Deadline
from gentraj.envs.evaluation.evaluate import EvaluationConfig, evaluate
from gentraj.envs.evaluation.rollout import RolloutFn, rollout
from gentraj.envs.evaluation.scores import score_behaviour
from gentraj.envs.making import environment_factory
from gentraj.envs.rendering.film import Watch, videos

from ..acceleration import backend_of
from ..config import write_json
from ..data import Episodes, save_minari
from ..data.minari_writer import check_new_id
from ..files import check_folder, check_output
from ..plots.page import show
from ..progress import busy, say
from ..trajectory import DEFAULT_OPTIONS, Agent, SamplingOptions
from .folder import RunFolder, last_evaluations
from .model_card import YARDSTICKS, episodes_scored, read_scores
from .planner import PlannerRun
from .run import ActingConfig, Run, environment_of

FILMED = 3  # number of episodes that are filmed


@dataclass(frozen=True)
class Acting:
    """How a run acts in an evaluation; by default as its own settings say."""

    settings: ActingConfig | None = None
    """Settings by which the agent acts, in the place of the run's own."""
    options: SamplingOptions = DEFAULT_OPTIONS
    """How the agent samples."""
    fallback: Run | None = None
    """The run that acts while a planner with a deadline has no plan yet, such as the planner's student."""
    teacher: Run | None = None
    """The run that acts where this run, its student, is unsure (`agents.ConfidenceSwitch`)."""
    min_confidence: float = 0.5
    """The confidence, in [0, 1], below which a student is unsure."""

    def agent(self, run: Run, config: EvaluationConfig) -> Agent:
        """The agent for the environment of an evaluation.

        Raises ValueError for settings of another agent, if there is a fallback where no planner has a deadline, and for
        a teacher of a run that is no student.
        """
        env, deadline = environment_of(run, config.env_id), None
        space = run.action_space(env)
        if config.deadline is not None and isinstance(run, PlannerRun):
            deadline = Deadline(config.deadline, self.fallback and self.fallback.agent(space))
        elif self.fallback is not None:
            raise ValueError(f"{run.description}, and a fallback is for a planner with a deadline; give such a run "
                             "with --deadline-ms or --hz, or leave the fallback out")
        with busy("making the agent"):  # a planner's trust is calibrated on the windows that the run keeps
            agent = run.agent(space, self.settings, options=self.options, deadline=deadline)
            if self.teacher is not None:
                agent = ConfidenceSwitch(agent, _teacher(self.teacher, run, env), self.min_confidence)
        return agent


OWN_ACTING = Acting()


@dataclass(frozen=True)
class Outputs:
    """What an evaluation writes beside printing a table."""

    scores: Path | None = None
    """The JSON file for the scores; RUN/evaluation.json by default."""
    rollout: str | None = None
    """The id of a Minari dataset to save the episodes as."""
    video: Path | None = None
    """A folder for videos of the first three episodes."""

    def check(self, run: Run) -> None:
        """Raises ValueError if something cannot be written."""
        check_output(self.scores or run.folder / RunFolder.EVALUATION, "--out")
        if self.rollout is not None:
            check_new_id(self.rollout)
        if self.video is not None:
            check_folder(self.video, "--video")


def evaluate_run(run: Run, config: EvaluationConfig, acting: Acting = OWN_ACTING, *, play: RolloutFn = rollout,
                 watch: Watch | None = None, progress: bool = True) -> tuple[dict[str, Any], Episodes]:
    """Lets the run's agent act in its environment; returns what evaluation.json holds, and the recorded episodes.

    `play` and `watch` are those of `gentraj.envs.evaluation.evaluate.evaluate`. If episodes do not finish because the
    environment is faulty, the scores are those of the others and say so. Raises what `Acting.agent` raises, and
    `EnvironmentFault` if no episode finishes.
    """
    env = environment_of(run, config.env_id)
    agent = acting.agent(run, config)
    factory = environment_factory(env, protocol=config.protocol)
    behaviour, why_none = score_behaviour(run.data.returns, run.data.recorded or run.data.env, factory)
    scores, episodes = evaluate(agent, env, config, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                                progress=progress, watch=watch, play=play)
    if behaviour is None:
        say(f"there is no score of the data to compare with: {why_none}")
    about = {"behaviour": behaviour, "agent": run.summary, "step": run.step, "steps": run.config.training.steps,
             "sampling": run.sampling(acting.settings, acting.options), "networks": backend_of(run),
             "last_evaluations": last_evaluations(RunFolder(run.folder).curve(), run.step)}
    return scores | about, episodes


def evaluate_and_save(run: Run, config: EvaluationConfig, acting: Acting = OWN_ACTING, outputs: Outputs | None = None,
                      *, play: RolloutFn = rollout) -> dict[str, Any]:
    """Evaluates a run as `evaluate_run` does, writes the scores as JSON and returns them.

    Scores of fewer episodes than those in evaluation.json, of the same checkpoint, are written to a file of their own.
    Raises ValueError if something cannot be written, before any episode is run, and what `evaluate_run` raises.
    """
    outputs = outputs or Outputs()
    outputs.check(run)
    with videos(outputs.video, FILMED) if outputs.video else nullcontext() as watch:
        scores, episodes = evaluate_run(run, config, acting, play=play, watch=watch)
    path = write_json(outputs.scores or own_file(run, scores), scores)
    say(f"scores in {path}" + (f", videos in {outputs.video}" if outputs.video else ""))
    if outputs.rollout is not None:
        description = f"rollout of {run.summary} of {run.folder.absolute().name}"
        save_minari(episodes, outputs.rollout, description=description)
        say(f"episodes in {outputs.rollout}")
    return scores


def own_file(run: Run, scores: Mapping[str, Any]) -> Path:
    """The file in the run's folder for these scores. Says what is kept, or replaced by others of another kind."""
    path = run.folder / RunFolder.EVALUATION
    before, _ = read_scores(run.folder, run.step, run.step)
    longer = before.get("episodes", 0)
    if longer > scores["episodes"]:
        say(f"{path} keeps the scores of {longer} episodes; those of {scores['episodes']} are beside it")
        return path.with_name(f"evaluation-of-{scores['episodes']}.json")
    changed = [key for key in ("env_id", "protocol", "sampling") if before and before.get(key) != scores.get(key)]
    if changed:
        say(f"these scores replace others in {path}, which differ in: {', '.join(changed)}")
    return path


def _teacher(teacher: Run, student: Run, env: str) -> Agent:
    """The teacher as an agent. Raises ValueError if it does not see what the student sees."""
    seen, sees = ((data.obs_keys, data.obs_dim, data.act_dim) for data in (student.data, teacher.data))
    if seen != sees:
        raise ValueError(f"the teacher in {teacher.folder} was trained on other observations or actions (keys and "
                         f"widths: {sees}) than the student ({seen}); give the run that the student was distilled from")
    return teacher.agent(teacher.action_space(env))


def table(scores: dict[str, Any]) -> str:
    """The scores that are defined, beside those of the data, the controller and a random agent, as a text table."""
    columns = {scores["agent"]: scores} | {name: scores[name] for name in YARDSTICKS if scores.get(name)}
    omitted = (*YARDSTICKS, "env_id", "episodes", "seeds", "protocol", "agent", "step", "steps", "sampling", "networks",
               "returns", "successes", "last_evaluations", "failures", "deadline")
    keys = [key for key in scores if key not in omitted and any(c.get(key) is not None for c in columns.values())]
    rows = {"": list(columns)} | {key: [show(column.get(key)) for column in columns.values()] for key in keys}
    width = max(18, *(len(cell) + 2 for cells in rows.values() for cell in cells))
    goals = f", {scores.get('protocol', 'random-goal')} protocol" if scores["success_rate"] is not None else ""
    lines = [f"{scores['env_id']}{goals}, {episodes_scored(scores)} episodes, "
             f"networks: {scores.get('networks', 'eager')}",
             *(f"{key:28}" + "".join(f"{cell:>{width}}" for cell in cells) for key, cells in rows.items())]
    if (step := scores.get("step", 0)) < (steps := scores.get("steps", 0)):
        lines.append(f"of a training that is not finished: step {step:,} of {steps:,}")
    return "\n".join([*lines, *_while_training(scores.get("last_evaluations")), *_in_time(scores.get("deadline"))])


def _while_training(last: dict[str, Any] | None) -> list[str]:
    """The line of a table about the last evaluations during the training, if there are enough of them."""
    if last is None:
        return []
    *others, end = last["steps"]
    means = ", ".join(f"{key} {show(value)}" for key, value in last.items() if key != "steps")
    return [f"means over the last evaluations of the training (steps {', '.join(map(str, others))} and {end}): {means}"]


def _in_time(deadline: dict[str, Any] | None) -> list[str]:
    """The lines of a table about the deadline, if there is one."""
    if deadline is None:
        return []
    p50, p99, worst = (deadline[f"act_ms_{which}"] for which in ("p50", "p99", "worst"))
    lines = [f"deadline of {deadline['ms']:g} ms: {deadline['misses']} of {deadline['acts']} decisions missed it "
             f"({100 * deadline['miss_rate']:.2g} %); p50 {p50:.2g}, p99 {p99:.2g}, worst {worst:.3g} ms"]
    for key, what in (("acted_by", "steps by"), ("plans", "plans of")):
        if counts := deadline.get(key):
            lines.append(f"{what} " + ", ".join(f"{name}: {count}" for name, count in counts.items()))
    return lines
