"""A run with a history: what its agent remembers is in its folder, its exports, its students and its fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import following  # noqa: F401 (registers the environment)
import numpy as np
import pytest
import torch
from test_dagger import CONFIG
from test_policy_runs import tiny

from gentraj import runs
from gentraj.data import Windows, load_episodes
from gentraj.randomness import fold
from gentraj.runs.kinds.policy_run import PolicyRun
from gentraj.runs.kinds.run import of_kind
from gentraj.runs.learn.distillation import distill
from gentraj.runs.learn.finetuning import PLAYED, finetune
from gentraj.runs.show.export import examples, export_run, noise_of


@pytest.fixture(scope="module")
def run(follow: Path, tmp_path_factory: pytest.TempPathFactory) -> PolicyRun:
    config = replace(tiny("iql", follow), history=3, past_actions=2)
    return of_kind(runs.train(config, folder=tmp_path_factory.mktemp("memory") / "run", progress=False), PolicyRun)


def test_an_export_acts_as_the_agent_does_along_an_episode(run: PolicyRun, follow: Path) -> None:
    loaded = of_kind(runs.load(run.folder), PolicyRun)
    seen_RW, _ = examples(loaded)
    width = 3 * loaded.data.obs_dim + 2 * loaded.data.act_dim
    assert seen_RW.shape == (512, width) and not torch.equal(seen_RW[:, :1], seen_RW[:, 1:2])
    program, agent = export_run(loaded).module(), loaded.agent(loaded.action_space())
    agent.reset([7])
    for step, obs_O in enumerate(load_episodes(follow)[0].obs[:-1]):
        seen_1W = agent.observations.seen(torch.from_numpy(obs_O[None]))
        noise = noise_of(agent.decide, seen_1W, seeds=[fold(7, step)])
        torch.testing.assert_close(program(seen_1W, *noise)[:, 0], agent.act(torch.from_numpy(obs_O[None])))


def test_what_was_played_with_noise_is_what_the_agent_remembered(run: PolicyRun, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[torch.Tensor] = []
    decide = type(run.agent(run.action_space())).decide

    def noted(agent: object, obs_BO: torch.Tensor, *rest: object) -> torch.Tensor:
        decided.append(obs_BO[:1])
        return decide(agent, obs_BO, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("gentraj.agents.policies.actor.Actor.decide", noted)
    settings = {"noise": 0.3, "episodes": 1, "checks": 2, "updates": 0.1, "policy.critic.width": 8}
    tuned = finetune(run, folder=tmp_path, steps=50, settings=settings, progress=False)
    played = load_episodes(tmp_path / PLAYED / "00000001.npz")  # after a round of ten decisions of the start
    windows = Windows(played, tuned.policy.spec).gather(np.arange(played.num_steps))
    expected = tuned.policy.spec.seen(windows.x_BHD[:, 0, : played.obs_dim], windows.past_BPD)
    torch.testing.assert_close(torch.cat(decided)[10 : 10 + played.num_steps], expected)


def test_a_student_remembers_what_its_teacher_does(run: PolicyRun, tmp_path: Path) -> None:
    student = of_kind(distill(run, CONFIG, tmp_path, progress=False), PolicyRun)
    assert (student.policy.spec.history, student.policy.spec.past_actions) == (3, 2)
    agent = student.agent(student.action_space())
    assert torch.isfinite(agent.act(torch.zeros(2, student.data.obs_dim))).all()
