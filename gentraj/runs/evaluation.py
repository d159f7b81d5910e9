"""The score of a run in its environment, closed loop: what `gentraj evaluate` writes."""

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


def play(run: Run, config: EvaluationConfig, planner: PlannerConfig | None = None,
         options: SamplingOptions = DEFAULT_OPTIONS, *, progress: bool = True,
         watch: Watch | None = None) -> tuple[dict[str, Any], Episodes]:
    """What evaluation.json holds, and the episodes.

    `planner` are settings for a planner's run alone, `options` say how what acts samples, and `watch` sees the
    episodes, as in `evaluate`.
    """
    env = run.environment(config.env_id)
    with busy("making the agent"):  # a planner's trust is calibrated by the windows that the run keeps
        agent = run.agent(run.action_space(env), planner, options=options)
    factory = environment_factory(env, protocol=config.protocol)
    behaviour, why_none = score_behaviour(run.data.returns, run.data.recorded or run.data.env, factory)
    scores, played = evaluate(agent, env, config, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims,
                              progress=progress, watch=watch)
    if behaviour is None:
        say(f"no score of the data's behaviour: {why_none}")
    sampling = run.config.sampling(run.components, planner, options)  # may differ from what the run's settings say
    return scores | {"behaviour": behaviour, "agent": run.config.kind, "step": run.step, "sampling": sampling}, played
