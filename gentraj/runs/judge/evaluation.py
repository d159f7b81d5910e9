"""The closed-loop score of a run in its environment, as `gentraj evaluate` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gentraj.agents.planning.planner import PlanFollower
from gentraj.agents.realtime.background import Deadline
from gentraj.envs.evaluation.scores import score_behaviour
from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.envs.making import EnvironmentFactory, environment_factory, imported
from gentraj.envs.rendering import Watch, videos

from ...acceleration import backend_of
from ...config import with_settings, write_json
from ...data import Episodes
from ...files import check_folder, check_output
from ...plots.page import show, text_table
from ...progress import busy, counted, say
from ...trajectory import DEFAULT_OPTIONS, Agent, SamplingOptions
from ..kinds.folder import RunFolder, last_evaluations
from ..kinds.loading import load
from ..kinds.planner_run import PlannerRun
from ..kinds.policy_run import PolicyRun
from ..kinds.presets import short_training
from ..kinds.run import ActingConfig, Run, check_widths, environment_of
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

    def agent(self, run: Run, env: str, deadline_ms: float | None = None) -> Agent:
        """The agent for an environment, with a deadline if there is one.

        Raises ValueError for settings of another agent, if there is a fallback where no agent acts by a deadline, and
        for one of other observations or actions than the agent's.
        """
        deadline = None
        if self.fallback is not None:
            check_widths(self.fallback, run)
        space = run.action_space(env)
        if deadline_ms is not None and isinstance(run, PlannerRun | PolicyRun):
            deadline = Deadline(deadline_ms / 1000, self.fallback and self.fallback.agent(space))
        elif self.fallback is not None:
            raise ValueError(f"{run.description}, and a fallback is for a planner or a policy with a deadline; give "
                             "such a run and a deadline, or leave the fallback out")
        elif deadline_ms is not None:
            say("a deadline only counts late decisions here: an agent of a world model makes nothing in advance")
        with busy("making the agent"):  # a planner's trust is calibrated on the windows that the run keeps
            return run.agent(space, self.settings, options=self.options, deadline=deadline)


OWN_ACTING = Acting()


class Scores(dict[str, Any]):
    """What evaluation.json holds. Printed, it is the table of `gentraj evaluate`: the scores that are defined, beside
    those of the data, the controller and a random agent."""

    recorded: Episodes
    """The agent's episodes."""

    def __init__(self, scores: Mapping[str, Any], recorded: Episodes):
        super().__init__(scores)
        self.recorded = recorded

    def __repr__(self) -> str:
        columns = {self["agent"]: self} | {name: self[name] for name in YARDSTICKS if self.get(name)}
        rows: list[list[object]] = [["", *columns]]
        for key in self:
            if key not in NOT_IN_TABLE and any(column.get(key) is not None for column in columns.values()):
                rows.append([MEASURES.get(key, key), *(column.get(key) for column in columns.values())])
        about = [self["env_id"], episodes_scored(self)]
        if self["success_rate"] is not None:
            about.insert(1, f"{self.get('protocol', 'random-goal')} protocol")
        if "networks" in self:
            about.append(f"networks: {self['networks']}")
        return "\n".join([", ".join(about), text_table(rows), *self._notes()])

    def _notes(self) -> Iterator[str]:
        """Yields what is to be known of the scores, in lines."""
        if self["episodes"] < FEW_EPISODES:
            yield (f"the interval cannot be relied on, as it is of too few episodes ({self['episodes']}); play "
                   f"{FEW_EPISODES} or more")
        low, high = self["return_ci95"]
        if low == high and self["episodes"] > 1:
            yield "the interval has no width, as all episodes return the same; other episodes may not"
        if self.get("step", 0) < self.get("steps", 0):
            yield f"of a training that is not finished: step {self['step']:,} of {self['steps']:,}"
        if last := self.get("last_evaluations"):
            means = ", ".join(f"{MEASURES.get(key, key)} {show(value)}" for key, value in last.items()
                              if key != "steps")
            steps = ", ".join(map(str, last["steps"]))
            yield f"means over the last evaluations of the training (steps {steps}): {means}"
        if deadline := self.get("deadline"):
            yield (f"deadline of {deadline['ms']:g} ms: {deadline['misses']} of {deadline['acts']} decisions missed "
                   f"it ({100 * deadline['miss_rate']:.3g} %); p50 {deadline['act_ms_p50']:.3g}, p99 "
                   f"{deadline['act_ms_p99']:.3g}, worst {deadline['act_ms_worst']:.3g} ms")
            for key, what in (("acted_by", "steps by"), ("plans", "plans of"), ("chunks", "chunks with a delay of")):
                if counts := deadline.get(key):
                    yield f"{what} " + ", ".join(f"{name}: {count}" for name, count in counts.items())


def evaluate(what: Run | Path | str | Agent | Any, env: str | EnvironmentFactory | None = None, episodes: int = 50, *,
             acting: Acting | None = None, out: Path | str | None = None, video: Path | str | None = None,
             obs_keys: Sequence[str] = (), progress: bool = True, **settings: Any) -> Scores:
    """Lets an agent act in an environment, and returns its scores and its episodes.

        print(gentraj.evaluate("runs/iql", episodes=20))
        print(gentraj.evaluate(lambda obs_BO: -obs_BO[:, :1], "Pendulum-v1", 5, seed=3).recorded)

    `what` is a run, the folder of one, or any agent that `gentraj.envs.rollout` takes: that of a run, an object of
    yours with a method `act`, or a function. `env` is a Gymnasium id, MODULE:ID, a task name or the factory of an
    environment, by default that of a run's data. `acting` says how a run acts. `settings` are those of
    `EvaluationConfig`: seed, num_envs, batch_invariant, protocol, baselines, deadline_ms, workers and time_limit. Of
    dict observations, an agent that is no run sees the parts `obs_keys`.

    The scores are written to the file `out`; those of a run by default to evaluation.json in its folder, or to a file
    of their own beside it if those there are of more episodes of the same checkpoint. Videos of the first three
    episodes are written into the folder `video`.

    If episodes do not finish because the environment is faulty, the scores are those of the others and say so. Raises
    ValueError for unknown settings, for an agent without an environment, for files that cannot be written, before any
    episode is run, and what `Acting.agent` raises; and `EnvironmentFault` if no episode finishes.
    """
    env_id = None if env is None else imported(env)
    config = with_settings(EvaluationConfig(), settings | {"episodes": episodes}, "evaluate", also=("env",))
    if isinstance(what, str | Path):
        what = load(what)
    path = None if out is None else Path(out)
    if isinstance(what, Run):
        check_output(path or what.folder / RunFolder.EVALUATION, "out=")
    elif path is not None:
        check_output(path, "out=")
    if video is not None:
        check_folder(Path(video), "video=")
    with videos(Path(video), FILMED) if video else nullcontext() as watch:
        if isinstance(what, Run):
            scores = score_run(what, config, env_id, acting or OWN_ACTING, watch=watch, progress=progress)
            path = path or own_file(what, scores)
        else:
            scores = score_own(what, config, env_id, acting, obs_keys, watch=watch, progress=progress)
    if path is not None:
        write_json(path, scores)
        say(f"scores in {path}" + (f", videos in {video}" if video else ""))
    return scores


def score_run(run: Run, config: EvaluationConfig, env: str | None = None, acting: Acting = OWN_ACTING, *,
              watch: Watch | None = None, progress: bool = True) -> Scores:
    """The scores of a run, which are not written anywhere; see `evaluate`."""
    env = environment_of(run, env)
    agent = acting.agent(run, env, config.deadline_ms)
    factory = environment_factory(env, protocol=config.protocol)
    behaviour, why_none = score_behaviour(run.data.returns, run.data.recorded or run.data.env, factory)
    scores, episodes = score_agent(agent, env, config, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                                   progress=progress, watch=watch)
    if isinstance(agent, PlanFollower):
        say_leaps(agent.last_plan.leaps(run.reference))
    if why_none and scores["controller"] is None:
        say(f"there is no return of the data to compare with: {why_none}"
            + ("; compare the mean reward of a step" if behaviour else ""))
    if short := short_training(run.config):
        say(f"{run.description}: {short}, and more may score higher")
    about = {"behaviour": behaviour, "agent": run.summary, "step": run.step, "steps": run.config.training.steps,
             "sampling": run.sampling(acting.settings, acting.options), "networks": backend_of(run),
             "last_evaluations": last_evaluations(RunFolder(run.folder).curve(), run.step)}
    return Scores(scores | about, episodes)


def score_own(agent: Agent | Any, config: EvaluationConfig, env: str | None, acting: Acting | None,
              obs_keys: Sequence[str], *, watch: Watch | None, progress: bool) -> Scores:
    """The scores of an agent that is no run, under its name. Raises ValueError without an environment, and for a way of
    acting, which only a run has."""
    if env is None:
        raise ValueError("an agent does not say which environment it acts in; give env=, a Gymnasium id or a task name")
    if acting is not None:
        raise ValueError("acting= says how a run acts, and this is an agent; leave it out")
    scores, episodes = score_agent(agent, env, config, obs_keys=obs_keys, watch=watch, progress=progress)
    return Scores({"agent": getattr(agent, "__name__", type(agent).__name__)} | scores, episodes)


def say_leaps(leap_P: Tensor) -> None:
    """Says that plans leap, if the median of their longest steps, in units of the data's longest, is too large."""
    if not len(leap_P):
        return
    leap = float(leap_P.median())
    if leap > LEAP:
        say(f"the plans leap: half of the last ones take a step at least {leap:.3g} times as long as the data's "
            "longest; train for longer, or give goals that the data reach within a plan (see docs/troubleshooting.md, "
            "My score is bad)")


def own_file(run: Run, scores: Mapping[str, Any]) -> Path:
    """The file in the run's folder for these scores: one of their own beside those of a longer evaluation."""
    path = run.folder / RunFolder.EVALUATION
    before, _ = read_scores(run.folder, run.step, run.step)
    longer = before.get("episodes", 0)
    if longer > scores["episodes"]:
        say(f"{path} keeps the scores of {counted(longer, 'episodes')}; those of {scores['episodes']} are beside it")
        return path.with_name(f"evaluation-of-{scores['episodes']}.json")
    return path
