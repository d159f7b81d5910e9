"""Return against delay: what a policy of chunks loses where a chunk takes several environment steps to be made.

    python -m benchmarks.delays runs/chunks-0 runs/chunks-1 --figure docs/figures/delays.png

A simulated clock lets each chunk take so many steps, so that the results are the same on every machine; an episode
begins when its first chunk is ready. Runs of the same data and `max_delay` are the seeds of one line. A policy with a
`max_delay` acts twice: its chunks continue what is carried out meanwhile, or they do not, as those of any other policy.
Then a chunk takes over when it is ready, without its actions for the steps that have passed. A *jump* is the root mean
square change of the action where a chunk takes over, divided by that within chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

from gentraj import runs
from gentraj.agents.policies.actor import Actor
from gentraj.agents.realtime.background import Deadline, SimulatedTime
from gentraj.agents.realtime.policy import ChunkJob, RealTimeActor
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.evaluation.scoring import bootstrap_interval
from gentraj.envs.making import environment_factory
from gentraj.plots.comparison import Curve, plot_learning_curves
from gentraj.plots.page import markdown_table
from gentraj.progress import say
from gentraj.runs.kinds.policy_run import PolicyRun
from gentraj.runs.kinds.run import environment_of, of_kind

SLACK = 1e-3  # of a step, by which a chunk takes longer than its delay


@dataclass(frozen=True)
class Args:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The folders of the runs of policies."""
    delays: tuple[int, ...] = tuple(range(9))
    """Environment steps that a chunk takes to be made."""
    execute: int | None = None
    """Steps between the beginnings of two chunks; that of the runs by default."""
    episodes: int = 20
    """Episodes of each run at each delay."""
    seed: int = 0
    threads: int = 1
    figure: Path | None = None
    """An image of the returns."""


class Line(NamedTuple):
    """Runs that differ in their seeds alone."""

    data: str
    max_delay: int
    """That of their training."""
    continues: bool
    """Whether chunks continue what is carried out while they are made."""

    def __str__(self) -> str:
        how = "continued" if self.continues else "not continued"
        return f"trained with max_delay {self.max_delay}, {how}"


class SlowActor(RealTimeActor):
    """An agent each of whose chunks takes some steps of a simulated clock, and whose `act` is a step of it."""

    def __init__(self, actor: Actor, delay: int, *, continues: bool):
        self.time, self.delay = SimulatedTime(), delay
        self.last_act_BA = torch.zeros(1, actor.spec.act_dim)
        self.changes: dict[str, list[float]] = {"between": [], "within": []}
        super().__init__(actor, Deadline(1.0, clock=self.time, executor=self.time))
        if not continues:
            self.max_delay = 0

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        start, before = self.time.now, self.began
        act_BA = super()._act(obs_BO, goal_BG)
        if before is not None:
            where = "within" if self.began == before else "between"
            self.changes[where].append(float((act_BA - self.last_act_BA).square().mean()))
        self.last_act_BA = act_BA
        self.time.now = start + self.background.deadline.seconds
        return act_BA

    def _make(self, job: ChunkJob) -> None:
        if self.began is not None:
            self.time.now += self.delay + SLACK
        super()._make(job)

    @property
    def jump(self) -> float:
        """How much the action changes where a chunk takes over, in units of how much it does within chunks."""
        between, within = (np.mean(self.changes[where] or [np.nan]) for where in ("between", "within"))
        return float(np.sqrt(between / within))


def played(run: PolicyRun, line: Line, delay: int, args: Args) -> tuple[list[float], float]:
    """The returns of the episodes of a run whose chunks take `delay` steps, and its jump."""
    actor = run.agent(run.action_space(), replace(run.config.policy, execute=args.execute or run.policy.execute))
    assert isinstance(actor, Actor)  # as there is no deadline
    agent = SlowActor(actor, delay, continues=line.continues)
    agent.background.relative.append(delay + SLACK)
    agent.background.cold = False
    how = RolloutSettings(1, batch_invariant=False, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims)
    found = rollout(agent, environment_factory(environment_of(run)), args.episodes, args.seed, how, progress=False)
    say(f"{run.folder.name}, {line}, delay {delay}: return {found.returns.mean():.1f}, jump {agent.jump:.2f}")
    return found.returns.tolist(), agent.jump


Scores = dict[Line, dict[int, list[tuple[list[float], float]]]]  # by delay, a pair of returns and jump for each seed


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    scores: Scores = {}
    for folder in args.runs:
        run = of_kind(runs.load(folder, device=torch.device("cpu")), PolicyRun)
        max_delay = run.config.policy.max_delay
        for continues in (True, False) if max_delay else (False,):
            line = Line(Path(run.config.dataset).stem, max_delay, continues)
            for delay in args.delays:
                if delay == 0 and max_delay and not continues:  # there is nothing to continue
                    found = scores[line._replace(continues=True)][delay][-1]
                else:
                    found = played(run, line, delay, args)
                scores.setdefault(line, {}).setdefault(delay, []).append(found)
    report(scores, args)


def report(scores: Scores, args: Args) -> None:
    """Prints the table, and writes the figure."""
    curves: dict[str, dict[str, Curve]] = {}
    rows = []
    for line, of_delay in scores.items():
        returns = {delay: [value for seed in seeds for value in seed[0]] for delay, seeds in of_delay.items()}
        mean_P = np.array([np.mean(each) for each in returns.values()])
        low_P, high_P = np.array([bootstrap_interval(each, args.seed) for each in returns.values()]).T
        curves.setdefault(line.data, {})[str(line)] = Curve(np.array([*returns]), mean_P, low_P, high_P)
        rows.append([line.data, str(line), *(f"{mean:.0f} ({low:.0f} to {high:.0f})"
                                             for mean, low, high in zip(mean_P, low_P, high_P, strict=True))])
        rows.append([line.data, f"{line}: jump", *(f"{np.mean([jump for _, jump in seeds]):.2f}"
                                                   for seeds in of_delay.values())])
    print(markdown_table(["data", "policy", *map(str, args.delays)], rows))
    if args.figure is not None:
        title, along = "Return against delay", "delay (environment steps)"
        say(f"figure: {plot_learning_curves(curves, args.figure, 'return', title, along)}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
