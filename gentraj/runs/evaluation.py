"""The closed-loop score of a run in its environment, as `gentraj evaluate` writes it."""

from __future__ import annotations

from typing import Any

from agents.planning.planner import PlannerConfig
from envs.evaluation.evaluate import EvaluationConfig, evaluate
from envs.evaluation.scores import score_behaviour
from envs.making import environment_factory
from envs.rendering.film import Watch

from ..data import Episodes
from ..progress import busy, say
from ..trajectory import DEFAULT_OPTIONS, SamplingOptions
from .folder import Run


def evaluate_run(run: Run, config: EvaluationConfig, planner: PlannerConfig | None = None,
                 options: SamplingOptions = DEFAULT_OPTIONS, *, progress: bool = True,
                 watch: Watch | None = None) -> tuple[dict[str, Any], Episodes]:
    """Lets the run's agent act in its environment; returns what evaluation.json holds, and the recorded episodes.

    `planner` replaces the settings of a planner's run, `options` say how the agent samples, and `watch` is called as in
    `envs.evaluation.evaluate.evaluate`. Raises ValueError if `planner` is given for a run that is no planner.
    """
    env = run.environment(config.env_id)
    with busy("making the agent"):  # a planner's trust is calibrated on the windows that the run keeps
        agent = run.agent(run.action_space(env), planner, options=options)
    factory = environment_factory(env, protocol=config.protocol)
    behaviour, why_none = score_behaviour(run.data.returns, run.data.recorded or run.data.env, factory)
    scores, episodes = evaluate(agent, env, config, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                                progress=progress, watch=watch)
    if behaviour is None:
        say(f"no score of the data's behaviour: {why_none}")
    sampling = run.config.sampling(run.components, planner, options)  # options may override the run's settings
    about = {"behaviour": behaviour, "agent": run.config.summary, "step": run.step, "sampling": sampling}
    return scores | about, episodes
