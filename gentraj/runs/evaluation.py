"""The closed-loop score of a run in its environment, as `gentraj evaluate` writes it."""

from __future__ import annotations

from contextlib import nullcontext
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
from .model_card import YARDSTICKS, episodes_scored
from .planner import PlannerRun
from .run import ActingConfig, Run, environment_of

FILMED = 3  # number of episodes that are filmed


def evaluate_run(run: Run, config: EvaluationConfig, acting: ActingConfig | None = None,
                 options: SamplingOptions = DEFAULT_OPTIONS, *, progress: bool = True,
                 watch: Watch | None = None, fallback: Run | None = None, teacher: Run | None = None,
                 min_confidence: float = 0.5, play: RolloutFn = rollout) -> tuple[dict[str, Any], Episodes]:
    """Lets the run's agent act in its environment; returns what evaluation.json holds, and the recorded episodes.

    `acting` replaces the settings by which the agent acts, as `config` in `Run.agent`, `options` say how it samples,
    and `watch` and `play` are those of `gentraj.envs.evaluation.evaluate.evaluate`. `fallback` is a run
    that acts where a planner with a deadline has no plan yet, and `teacher` one that acts where the run, a
    student, is unsure (`agents.ConfidenceSwitch`).

    Raises ValueError for settings of another agent, if `fallback` is given where no planner has a deadline, or
    `teacher` for a run that is no student, and `EnvironmentFault` for a faulty environment.
    """
    env, deadline = environment_of(run, config.env_id), None
    if config.deadline is not None and isinstance(run, PlannerRun):
        deadline = Deadline(config.deadline, fallback and fallback.agent(run.action_space(env)))
    elif fallback is not None:
        raise ValueError(f"{run.description}, and a fallback is for a planner with a deadline; give such a run with "
                         "--deadline-ms or --hz, or leave the fallback out")
    with busy("making the agent"):  # a planner's trust is calibrated on the windows that the run keeps
        agent = run.agent(run.action_space(env), acting, options=options, deadline=deadline)
        if teacher is not None:
            agent = ConfidenceSwitch(agent, _teacher(teacher, run, env), min_confidence)
    factory = environment_factory(env, protocol=config.protocol)
    behaviour, why_none = score_behaviour(run.data.returns, run.data.recorded or run.data.env, factory)
    scores, episodes = evaluate(agent, env, config, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                                progress=progress, watch=watch, play=play)
    if behaviour is None:
        say(f"there is no score of the data to compare with: {why_none}")
    sampling = run.sampling(acting, options)  # options may override the run's settings
    about = {"behaviour": behaviour, "agent": run.summary, "step": run.step, "sampling": sampling,
             "networks": backend_of(run),
             "last_evaluations": last_evaluations(RunFolder(run.folder).curve(), run.step)}
    return scores | about, episodes


def _teacher(teacher: Run, student: Run, env: str) -> Agent:
    """The teacher as an agent. Raises ValueError if it does not see what the student sees."""
    seen, sees = ((data.obs_keys, data.obs_dim, data.act_dim) for data in (student.data, teacher.data))
    if seen != sees:
        raise ValueError(f"the teacher in {teacher.folder} was trained on other observations or actions (keys and "
                         f"widths: {sees}) than the student ({seen}); give the run that the student was distilled from")
    return teacher.agent(teacher.action_space(env))


def evaluate_and_save(run: Run, config: EvaluationConfig, acting: ActingConfig | None = None,
                      out: Path | None = None, save_rollout: str | None = None, video: Path | None = None,
                      options: SamplingOptions = DEFAULT_OPTIONS, fallback: Run | None = None,
                      teacher: Run | None = None, min_confidence: float = 0.5,
                      play: RolloutFn = rollout) -> dict[str, Any]:
    """Runs episodes of a run in its environment, writes the scores as JSON and returns them.

    If episodes do not finish because the environment is faulty, the scores are those of the others and say so.

    Args:
        config: Which environment, how many episodes and which seed.
        acting: Settings by which the agent acts, in the place of the run's own.
        out: The file for the scores; RUN/evaluation.json by default.
        save_rollout: The id of a Minari dataset to save the episodes as.
        video: A folder for videos of the first three episodes.
        options: How the agent samples.
        fallback: The run that acts while a planner with a deadline has no plan yet, such as the planner's student.
        teacher: The run that acts where this run, its student, is unsure.
        min_confidence: The confidence, in [0, 1], below which a student is unsure.
        play: What plays the episodes, as `rollout` does; see `gentraj.experiments.jobs`.

    Raises ValueError if something cannot be written, before any episode is run, and `EnvironmentFault` if no episode
    finishes.
    """
    path = out or run.folder / RunFolder.EVALUATION
    check_output(path, "--out")  # all outputs are checked before the work
    if save_rollout is not None:
        check_new_id(save_rollout)
    if video is not None:
        check_folder(video, "--video")
    with videos(video, FILMED) if video else nullcontext() as watch:
        scores, episodes = evaluate_run(run, config, acting, options, watch=watch, fallback=fallback,
                                        teacher=teacher, min_confidence=min_confidence, play=play)
    write_json(path, scores)
    say(f"scores in {path}" + (f", videos in {video}" if video else ""))
    if save_rollout is not None:
        save_minari(episodes, save_rollout,
                    description=f"rollout of {run.summary} of {run.folder.absolute().name}")
        say(f"episodes in {save_rollout}")
    return scores


def table(scores: dict[str, Any]) -> str:
    """The scores that are defined, beside those of the data, the controller and a random agent, as a text table."""
    columns = {scores["agent"]: scores} | {name: scores[name] for name in YARDSTICKS if scores.get(name)}
    omitted = (*YARDSTICKS, "env_id", "episodes", "seeds", "protocol", "agent", "step", "sampling", "networks",
               "returns", "successes", "last_evaluations", "failures", "deadline")
    keys = [key for key in scores if key not in omitted and any(c.get(key) is not None for c in columns.values())]
    rows = {"": list(columns)} | {key: [show(column.get(key)) for column in columns.values()] for key in keys}
    width = max(18, *(len(cell) + 2 for cells in rows.values() for cell in cells))
    goals = f", {scores.get('protocol', 'random-goal')} protocol" if scores["success_rate"] is not None else ""
    lines = [f"{scores['env_id']}{goals}, {episodes_scored(scores)} episodes, "
             f"networks: {scores.get('networks', 'eager')}",
             *(f"{key:28}" + "".join(f"{cell:>{width}}" for cell in cells) for key, cells in rows.items())]
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
