"""Learning online: half of a batch is of the data; checks are episodes of their own; killed and resumed, same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import following  # noqa: F401 (registers the environment, in the processes that are killed, too)
import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from small import changed, gentraj, killed
from test_policy_runs import act, tiny

from gentraj import runs
from gentraj.agents.wrappers import NoisyAgent
from gentraj.config import ConfigError
from gentraj.data import ContextConfig, Episodes, HindsightConfig, load_episodes
from gentraj.data.windows import GoalContext
from gentraj.networks import ResidualMLPConfig
from gentraj.randomness import fold, for_choosing
from gentraj.runs.kinds.folder import RunFolder
from gentraj.runs.kinds.policy_run import PolicyRun
from gentraj.runs.learn.finetuning import (
    COMPARED,
    ERROR,
    PLAYED,
    PROPOSALS,
    Halves,
    finetune,
    finetune_settings,
    gain,
    p_value,
    some,
)
from gentraj.training.checkpoint import saved_step
from gentraj.trajectory import Agent, TrajectorySpec


def flat(value: float, steps: int = 5, number: int = 2) -> Episodes:
    """Episodes of one observation and one action, with two proposals in each state, the number of its row."""
    size, ends = number * steps, np.arange(number * steps) % steps == steps - 1
    proposals = np.repeat(np.arange(size + number)[:, None], 2, 1)
    return Episodes(np.full((size + number, 2), value), np.full((size, 1), value), np.full(size, value), ~ends & False,
                    ends, np.full(number, steps), extras={PROPOSALS: proposals})


# -- batches


def halves(data: Episodes) -> Halves:
    return Halves(data, TrajectorySpec(2, 1, 3), ContextConfig())


@pytest.mark.parametrize("size", [8, 7])
def test_half_of_a_batch_is_of_the_data_and_half_of_what_was_played(size: int) -> None:
    source = halves(flat(0.0))
    source.add(flat(1.0))
    for step in (0, 3, 14):
        batch = source.batch(step, 7, size)
        assert batch.x_BHD.shape == (size, 3, 3)
        assert batch.reward_BH is not None and batch.terminal_BH is not None and len(batch.terminal_BH) == size
        assert batch.reward_BH[:, 0].tolist() == [0.0] * (size - size // 2) + [1.0] * (size // 2)
        again = source.batch(step, 7, size)
        assert torch.equal(batch.x_BHD, again.x_BHD) and torch.equal(batch.mask_BHD, again.mask_BHD)


def test_a_batch_is_of_all_rounds_that_were_added() -> None:
    source = halves(flat(0.0))
    for number in (1, 2, 3):
        source.add(flat(number, steps=3))
        played_B = source.batch(40, 0, 500).x_BHD[250:, 0, 0]
        assert set(played_B.tolist()) == set(range(1, number + 1)) and source.num_steps == 6 * number


def test_proposals_are_those_of_the_first_and_the_last_state_of_a_window() -> None:
    """An episode of five steps has six states; a window of three timesteps ends two states on, or with the episode."""
    proposals_B2Y = halves(flat(0.0)).old.gather(np.array([0, 3, 4, 5, 9])).proposals_B2Y
    assert proposals_B2Y is not None and proposals_B2Y.shape == (5, 2, 2)
    assert proposals_B2Y[..., 0].tolist() == [[0, 2], [3, 5], [4, 5], [6, 8], [10, 11]]


def test_some_of_the_data_are_whole_episodes_that_the_seed_draws() -> None:
    data = flat(0.0, steps=5, number=20)
    drawn = [some(data, 23, seed) for seed in (0, 0, 1)]
    assert [len(each) for each in drawn] == [5, 5, 5] and drawn[0] == drawn[1] != drawn[2]
    assert some(data, 10**6, 0) == data


# -- checks


def steady(draw: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Returns with a mean of 1,500."""
    return draw.normal(1500, 100, size)


def of_falls(draw: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Returns with a mean of 1,500 of a walker that falls in four of five episodes."""
    return draw.normal(np.where(draw.random(size) < 0.2, 3500, 1000), 100)


def skewed(draw: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Returns with a mean of 1,500, of which many are near 0."""
    return draw.exponential(1500, size)


@pytest.mark.parametrize("newest", [steady, of_falls, skewed])
@pytest.mark.parametrize("start", [steady, of_falls, skewed])
def test_all_checks_of_a_training_together_accept_what_is_no_better_in_one_of_twenty_at_most(
        start: Callable, newest: Callable) -> None:
    """Ten checks of 20 episodes against the same 20 of the start, in 400 trainings; 6.6 % is 5 % in all but 5 % of
    such samples."""
    draw = np.random.default_rng(0)
    start_TE, newest_TCE = start(draw, (400, 20)), newest(draw, (4000, 20)).reshape(400, 10, 20)
    accepted_T = [any(p_value(check_E, start_E) <= ERROR / 10 for check_E in checks_CE)
                  for start_E, checks_CE in zip(start_TE, newest_TCE, strict=True)]
    assert np.mean(accepted_T) <= 0.066


def test_what_is_surely_better_is_accepted() -> None:
    draw = np.random.default_rng(0)
    assert np.mean([p_value(2 * of_falls(draw, (20,)), of_falls(draw, (20,))) <= ERROR / 10 for _ in range(200)]) > 0.6
    assert p_value(np.array([2.0, 2.0]), np.array([1.0, 1.0])) == 0
    assert p_value(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 1


def test_the_test_is_that_of_welch() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(1, 2, 20), draw.normal(0, 5, 13)
    expected: Any = ttest_ind(one, other, equal_var=False, alternative="greater")
    assert p_value(one, other) == pytest.approx(expected.pvalue)


# -- noise


class Still(Agent):
    """Acts by 0.5 always."""

    def _reset(self, seeds_B: list[int], mask_B: torch.Tensor) -> None:
        self.seeds = list(seeds_B)

    def _act(self, obs_BO: torch.Tensor, goal_BG: torch.Tensor | None) -> torch.Tensor:
        return torch.full((len(obs_BO), 2), 0.5)


def noisy(seeds: list[int], noise: float = 0.1, steps: int = 1) -> torch.Tensor:
    """(T, B, A)."""
    agent = NoisyAgent(Still(), np.array([-1.0, -4.0]), np.array([1.0, 4.0]), noise)
    agent.reset(seeds)
    return torch.stack([agent.act(torch.zeros(len(seeds), 1)) for _ in range(steps)])


def test_noise_has_the_size_that_it_is_given_and_stays_inside_the_bounds() -> None:
    acts = noisy(list(range(200)), steps=20).flatten(0, 1)
    torch.testing.assert_close(acts.mean(0), torch.full((2,), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(acts.std(0), torch.tensor([0.1, 0.4]), rtol=0.05, atol=0)
    assert torch.equal(noisy([1, 2], noise=0.0), torch.full((1, 2, 2), 0.5))
    assert (noisy([1, 2], noise=10.0, steps=50).abs() <= torch.tensor([1.0, 4.0])).all()


def test_the_noise_of_an_episode_depends_on_its_own_seed_only() -> None:
    assert torch.equal(noisy([5, 6, 7], steps=3)[:, 1:2], noisy([6], steps=3))
    agent = NoisyAgent(Still(), -np.ones(2), np.ones(2), 0.1)
    agent.reset([1, 2])
    first = agent.act(torch.zeros(2, 1))
    agent.reset([1, 2], torch.tensor([True, False]))  # the second goes on
    again = agent.act(torch.zeros(2, 1))
    assert torch.equal(again[0], first[0]) and not torch.equal(again[1], first[1])
    with pytest.raises(ValueError, match=r"1 observations were given to an agent that was reset for 2 environments"):
        agent.act(torch.zeros(1, 1))


# -- a run


SMALL = {"updates": 0.5, "episodes": 1, "checks": 4, "check_every": 20, "policy.batch_size": 8,
         "policy.critic.width": 8, "policy.critic.members": 3, "policy.edit.width": 8}
SEED, STEPS = 1, 60  # an episode has 10 steps: the first round 40, the other two 10
LAST = Path(PLAYED, "00000002.npz")


@pytest.fixture(scope="module")
def flow(follow: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    return runs.train(tiny("bc-flow", follow), folder=tmp_path_factory.mktemp("flow") / "run", progress=False)


def tuned(run: runs.Run, folder: Path, env: str | None = None, settings: Mapping[str, Any] = SMALL,
          **options: Any) -> PolicyRun:
    given: dict[str, Any] = {"steps": STEPS, "seed": SEED} | options
    return finetune(runs.load(run.folder), env, folder=folder, settings=settings, progress=False, **given)


@pytest.fixture(scope="module")
def fine(flow: runs.Run, tmp_path_factory: pytest.TempPathFactory) -> PolicyRun:
    """To be read; copy it to change it."""
    return tuned(flow, tmp_path_factory.mktemp("fine") / "run")


def tuned_of(folder: Path, to: Path) -> None:
    tuned(runs.load(folder), to)


def weights(run: runs.Run, prefix: str = "") -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in run.main.state_dict().items() if key.startswith(prefix)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("last", ["there", "anew"])
def test_killed_and_resumed_it_is_the_uninterrupted_run(last: str, flow: runs.Run, fine: PolicyRun,
                                                        tmp_path: Path) -> None:
    """Killed as soon as the last round is played, which is then read again or played anew."""
    cut = tmp_path / "run"
    killed(cut / LAST, tuned_of, flow.folder, cut)
    assert sorted((cut / PLAYED).iterdir())[-1] == cut / LAST and runs.load(cut).step == 25 < fine.step == 30
    if last == "anew":
        (cut / LAST).unlink()
    again = tuned(flow, cut, resume=True)
    assert load_episodes(cut / LAST) == load_episodes(fine.folder / LAST)
    assert same(weights(again), weights(fine)) and RunFolder(cut).curve() == RunFolder(fine.folder).curve()


def test_time_ends_it_between_two_rounds_and_it_goes_on_later(flow: runs.Run, fine: PolicyRun, tmp_path: Path) -> None:
    early = tuned(flow, tmp_path / "run", minutes=1e-9)
    assert early.step == 0 and [path.name for path in (tmp_path / "run" / PLAYED).iterdir()] == ["00000000.npz"]
    obs = flow.reference.x_BHD[:5, 0, :2]
    assert torch.equal(act(early, obs), act(flow, obs))
    assert same(weights(tuned(flow, tmp_path / "run", resume=True)), weights(fine))


def test_the_run_holds_its_prior_whose_weights_stay(flow: runs.Run, fine: PolicyRun) -> None:
    loaded = runs.load(fine.folder)
    assert loaded.summary == "edited BC, flow" and same(weights(loaded, "frozen."), weights(flow))
    assert (fine.config.training.steps, fine.config.training.seed) == (30, SEED)
    played = load_episodes(fine.folder / LAST)
    assert played.num_steps == 10 and played.extras[PROPOSALS].shape == (11, 4)


def test_what_proved_better_in_a_check_acts_and_nothing_else(flow: runs.Run, fine: PolicyRun) -> None:
    rows = RunFolder(fine.folder).curve()
    assert [row["step"] for row in rows] == [10, 20, 30]
    start = load_episodes(fine.folder / PLAYED / "00000000.npz").returns
    standing, accepted = float(start.mean()), 0
    for row in rows:
        assert row["start_mean"] == pytest.approx(start.mean())
        if row["p_value"] <= ERROR / 3 and row["newest_mean"] > standing:
            standing, accepted = row["newest_mean"], row["step"]
        assert row["return_mean"] == pytest.approx(standing) and row["accepted"] == accepted
    policy: Any = fine.policy
    assert policy.accepted.done == accepted
    obs = flow.reference.x_BHD[:5, 0, :2]
    assert torch.equal(act(fine, obs), act(flow, obs)) == (accepted == 0)


def test_no_episode_of_a_check_is_learned_from_or_reported(flow: runs.Run, tmp_path: Path, begun: list[int]) -> None:
    made = tuned(flow, tmp_path / "run")
    choosing = for_choosing(SEED)
    rounds = [fold(fold(choosing, number), i) for number, episodes in ((0, 4), (1, 1), (2, 1)) for i in range(episodes)]
    checks = [fold(fold(choosing, step, 1), i) for step in (10, 20, 30) for i in range(4)]
    assert sorted(begun) == sorted(rounds + checks)
    begun.clear()
    before_E, after_E = gain(flow, made, SEED)
    reported = [fold(SEED, i) for i in range(COMPARED)]
    assert begun == 2 * reported and not {*reported} & {*rounds, *checks} and len(before_E) == len(after_E) == COMPARED


def test_a_prior_gets_better_by_playing(follow: Path, tmp_path: Path) -> None:
    config = tiny("bc-flow", follow, steps=30)
    policy: Any = config.policy
    model = policy.model.with_network(ResidualMLPConfig(width=32, depth=1, frequencies=0))
    run = runs.train(replace(config, policy=replace(policy, model=model, batch_size=64)), folder=tmp_path / "run",
                     progress=False)
    settings = {"updates": 1.0, "episodes": 4, "checks": 10, "check_every": 250, "noise": 0.2, "policy.batch_size": 64,
                "policy.critic.width": 32, "policy.critic.members": 4, "policy.critic.discount": 0.1,
                "policy.critic.learning_rate": 3e-3, "policy.critic.tau": 0.05, "policy.edit.width": 32,
                "policy.edit.learning_rate": 3e-3, "policy.edit.bound": 0.5, "policy.proposals": 8}
    better = tuned(run, tmp_path / "tuned", settings=settings, steps=500)
    before, after = (one.evaluate(episodes=30, baselines=False, progress=False)["return_mean"]
                     for one in (run, better))
    assert before < -4 and after > before / 2  # chance earns -6.7, the best 0


@pytest.mark.parametrize("name", ["bc-gan", "bc-mip", "diffusion-policy", "iql", "fql"])
def test_policies_of_every_kind_learn_online(name: str, follow: Path, tmp_path: Path) -> None:
    run: Any = runs.train(tiny(name, follow, steps=1), folder=tmp_path / "run", progress=False)
    better = tuned(run, tmp_path / "tuned", steps=42)
    assert (better.policy.chunk, better.policy.execute) == (run.policy.execute, run.policy.execute)
    assert same(weights(better, "frozen."), weights(run)) and better.step == 21


def test_a_planner_learns_online(hopper_file: Path, tmp_path: Path) -> None:
    short = "--steps", 1, "--model.network.width", 8, "--batch-size", 8, "--critic.width", 8, "--critic.batch-size", 8
    words = "--planner.steps", 1, "--inverse.width", 8, "--run-dir", tmp_path / "run"
    assert gentraj("train", "veteran", "--dataset", hopper_file, *short, *words) == 0
    run = runs.load(tmp_path / "run")
    better = tuned(run, tmp_path / "tuned", settings=SMALL | {"data": 1}, steps=10)
    policy: Any = better.policy
    for part, module in run.components.items():
        assert same(dict(module.state_dict()), dict(policy.frozen.parts[part].state_dict()))
    assert better.summary == "edited planner" and better.step == 5


def test_the_command_makes_a_run_like_any_other(flow: runs.Run, tmp_path: Path,
                                               capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    words = ("--steps", STEPS, "--seed", SEED, "--run-dir", out,
             *(word for key, value in SMALL.items() for word in (f"--{key.replace('_', '-')}", value)))
    assert gentraj("finetune", flow.folder, *words) == 0
    printed = capsys.readouterr()
    assert f"next: gentraj evaluate {out}" in printed.out
    before, after = (run.evaluate(episodes=COMPARED, seed=SEED, baselines=False, out=tmp_path / "scores.json")
                     ["return_mean"] for run in (flow, runs.load(out)))
    assert f"the mean return is {after:.4g}, and {before:.4g} before" in printed.err
    assert gentraj("finetune", flow.folder, *words) == 2
    assert "holds a training already; continue it with --resume, or" in capsys.readouterr().err
    assert gentraj("finetune", flow.folder, *words, "--noise", 0.2, "--resume") == 2
    assert "finetune.noise was 0.1 and is 0.2" in capsys.readouterr().err
    assert gentraj("finetune", flow.folder, *words, "--steps", 70, "--resume") == 0
    assert saved_step(out) == 35
    assert gentraj("evaluate", out, "--episodes", 2, "--no-baselines", "--acting.by", "prior") == 0
    assert gentraj("export", out, "--out", tmp_path / "a.pt2") == 0
    assert gentraj("report", out) == 0


def test_its_settings_are_in_the_help(flow: runs.Run, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("finetune", flow.folder, "--help") == 0
    printed = capsys.readouterr().out
    assert "--policy.edit.bound" in printed and "--check-every" in printed


# -- what cannot be


def test_a_world_model_and_goals_in_hindsight_are_refused(flow: runs.Run, follow: Path, umaze: Episodes,
                                                          tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    world = runs.train("world-model", follow, folder=tmp_path / "world", steps=1, progress=False)
    assert gentraj("finetune", world.folder, "--run-dir", tmp_path / "tuned") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "is a world model" in err
    hindsight = replace(flow.config, context=GoalContext(goals=HindsightConfig()))
    with pytest.raises(ValueError, match="draws goals in hindsight, and what it plays has those of the environment"):
        finetune(changed(flow, config=hindsight), folder=tmp_path / "tuned", progress=False)
    assert not (tmp_path / "tuned").exists()


def test_another_environment_and_the_folder_of_another_are_refused(flow: runs.Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown environment 'Folow'"):
        tuned(flow, tmp_path / "out", "Folow")
    for env_id, message in {"Pendulum-v1": "width 2 and actions of 1, but Pendulum-v1 has 3 and 1",
                            "CartPole-v1": r"CartPole-v1: action space Discrete\(2\) is not supported"}.items():
        with pytest.raises(ValueError, match=message):
            tuned(flow, tmp_path / "elsewhere", env_id)
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "used" / PLAYED).mkdir(parents=True)
    with pytest.raises(ValueError, match="holds episodes of another fine-tuning; give another folder"):
        tuned(flow, tmp_path / "used")
    name: Any = "runs/none"
    with pytest.raises(TypeError, match="a str was given"):
        finetune(name, folder="runs/none")
    with pytest.raises(ConfigError, match="stepz"):
        finetune(flow, folder=tmp_path / "out", settings={"stepz": 3})
    assert finetune_settings(flow).policy.frozen == flow.config.policy and not (tmp_path / "out").exists()
