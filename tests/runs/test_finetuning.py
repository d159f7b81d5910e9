"""Fine-tuning: half of a batch is of the data and half of what was played; killed and resumed, the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import following  # noqa: F401 (registers the environment, in the processes that are killed, too)
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from small import DATASET, changed, gentraj, killed
from test_policy_runs import tiny

from gentraj import runs
from gentraj.agents.wrappers import NoisyAgent
from gentraj.config import ConfigError
from gentraj.data import ContextConfig, Episodes, load_episodes, save_npz
from gentraj.envs.evaluation.rollout import Rollout, RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.networks import ResidualMLPConfig
from gentraj.randomness import fold, for_choosing
from gentraj.runs.kinds.policy_run import PolicyRun
from gentraj.runs.kinds.run import environment_of
from gentraj.runs.learn import finetuning
from gentraj.runs.learn.finetuning import COMPARED, PLAYED, FinetuneConfig, Halves, finetune, gain, samples_chunks
from gentraj.training import TrainingConfig
from gentraj.training.checkpoint import saved_steps
from gentraj.trajectory import Agent, TrajectorySpec


@pytest.fixture(scope="module")
def td3bc(follow: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    return runs.train(tiny("td3bc", follow), folder=tmp_path_factory.mktemp("td3bc") / "run", progress=False)


def flat(value: float, steps: int = 5, number: int = 2) -> Episodes:
    """Episodes of one observation and one action."""
    size, ends = number * steps, np.arange(number * steps) % steps == steps - 1
    return Episodes(np.full((size + number, 2), value), np.full((size, 1), value), np.full(size, value), ~ends & False,
                    ends, np.full(number, steps))


# -- batches


@pytest.mark.parametrize("size", [8, 7])
def test_half_of_a_batch_is_of_the_data_and_half_of_what_was_played(size: int) -> None:
    source = Halves(flat(0.0), TrajectorySpec(2, 1, 2), ContextConfig())
    source.add(flat(1.0))
    for step in (0, 3, 14):
        batch = source.batch(step, 7, size)
        assert batch.x_BHD.shape == (size, 2, 3)
        assert batch.reward_BH is not None and batch.terminal_BH is not None and len(batch.terminal_BH) == size
        assert batch.reward_BH[:, 0].tolist() == [0.0] * (size - size // 2) + [1.0] * (size // 2)
        again = source.batch(step, 7, size)
        assert torch.equal(batch.x_BHD, again.x_BHD) and torch.equal(batch.mask_BHD, again.mask_BHD)


def test_a_batch_is_of_all_rounds_that_were_added() -> None:
    source = Halves(flat(0.0), TrajectorySpec(2, 1, 2), ContextConfig())
    for number in (1, 2, 3):
        source.add(flat(number, steps=3))
        played_B = source.batch(40, 0, 500).x_BHD[250:, 0, 0]
        assert set(played_B.tolist()) == set(range(1, number + 1)) and source.num_steps == 6 * number


def test_what_is_played_beside_synthetic_data_is_not_synthetic() -> None:
    source = Halves(replace(flat(0.0), extras={"imagined": np.ones((12, 1))}), TrajectorySpec(2, 1, 2), ContextConfig())
    source.add(flat(1.0))
    synthetic_B = source.batch(0, 7, 8).synthetic_B
    assert synthetic_B is not None and synthetic_B.tolist() == [True] * 4 + [False] * 4


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


CONFIG = FinetuneConfig(steps=40, updates=0.5, episodes=1, seed=1)  # an episode has 10 steps


def tuned(run: runs.Run, folder: Path, config: FinetuneConfig = CONFIG, **options: Any) -> runs.Run:
    return finetune(runs.load(run.folder), config, folder, progress=False, **options)


@pytest.fixture(scope="module")
def fine(td3bc: runs.Run, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """To be read; copy it to change it."""
    return tuned(td3bc, tmp_path_factory.mktemp("fine") / "run")


def tuned_of(folder: Path, to: Path) -> None:
    tuned(runs.load(folder), to)


@pytest.mark.parametrize("last", ["there", "anew"])
def test_killed_and_resumed_it_is_the_uninterrupted_run(last: str, td3bc: runs.Run, fine: runs.Run,
                                                        tmp_path: Path) -> None:
    """Killed as soon as the last of the four rounds is played, which is then read again or played anew."""
    assert (fine.config.training.steps, fine.config.training.seed) == (20, CONFIG.seed)
    round_3, cut = Path(PLAYED, "00000003.npz"), tmp_path / "run"
    killed(cut / round_3, tuned_of, td3bc.folder, cut)
    assert sorted((cut / PLAYED).iterdir())[-1] == cut / round_3 and runs.load(cut).step < 20
    if last == "anew":
        (cut / round_3).unlink()
    again = tuned(td3bc, cut, resume=True)
    assert again.step == fine.step
    assert load_episodes(cut / round_3) == load_episodes(fine.folder / round_3)
    weights = runs.load(cut, step=20).main.state_dict()
    for key, value in runs.load(fine.folder, step=20).main.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_the_result_is_the_checkpoint_whose_episodes_were_the_best(fine: runs.Run) -> None:
    steps = [0, 5, 10, 15, 20]  # of the checkpoints
    returns = [load_episodes(path).returns.mean() for path in sorted((fine.folder / PLAYED).iterdir())]
    assert fine.step == runs.load(fine.folder).step == steps[int(np.argmax(returns))]
    assert [runs.load(fine.folder, step=step).step for step in steps] == steps


@pytest.mark.parametrize(("rewards", "best"), [([1, 3, 2, 0], 12), ([1, 2, 0, 3], 30)])
def test_the_best_weights_are_those_of_the_round_with_the_highest_return(
        rewards: list[float], best: int, td3bc: runs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of 6 steps, for 2 updates a step; what was played is read when a fine-tuning is resumed."""
    def play(agent: Agent, factory: object, episodes: int, seed: int, *_: object, **__: object) -> Rollout:
        number = [fold(for_choosing(CONFIG.seed), number) for number in range(4)].index(seed)
        return replace(still, recorded=flat(rewards[number], steps=3))

    still = rollout(td3bc.agent(Box(-1, 1, (1,))), environment_factory("tests/Follow-v0"), 1, progress=False)
    config = replace(CONFIG, steps=15, updates=2.0)
    monkeypatch.setattr(finetuning, "rollout", play)
    assert tuned(td3bc, tmp_path / "run", config).step == best
    assert [path.stem for path in sorted((tmp_path / "run" / PLAYED).iterdir())] == [
        "00000000", "00000001", "00000002", "result-00000030"]
    assert saved_steps(tmp_path / "run") == [0, 12, 24, 30]
    monkeypatch.setattr(finetuning, "rollout", NotImplemented)
    assert tuned(td3bc, tmp_path / "run", config, resume=True).step == best


def test_what_was_gained_is_told_by_episodes_of_no_round(td3bc: runs.Run, fine: runs.Run, tmp_path: Path,
                                                        begun: list[int]) -> None:
    tuned(td3bc, tmp_path / "run")
    chosen_by = [fold(fold(for_choosing(CONFIG.seed), number), 0) for number in range(5)]
    assert begun == chosen_by
    begun.clear()
    before_E, after_E = gain(td3bc, fine, CONFIG)
    reported = [fold(CONFIG.seed, i) for i in range(COMPARED)]
    assert begun == 2 * reported and len(before_E) == len(after_E) == COMPARED
    assert (gain(td3bc, td3bc, CONFIG)[1] == before_E).all()


def test_a_policy_of_chunks_explores_by_its_own_chunks(td3bc: runs.Run, follow: Path, tmp_path: Path) -> None:
    run = runs.train(tiny("qc", follow), folder=tmp_path / "run", progress=False)
    assert isinstance(run, PolicyRun) and isinstance(td3bc, PolicyRun)
    assert samples_chunks(run.policy) and not samples_chunks(td3bc.policy)
    better = tuned(run, tmp_path / "tuned", replace(CONFIG, steps=4))
    played = load_episodes(better.folder / PLAYED / "00000000.npz")
    settings = RolloutSettings(1, obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims)
    own = rollout(run.agent(Box(-1, 1, (1,))), environment_factory(environment_of(run, None)), 1,
                  fold(for_choosing(CONFIG.seed), 0), settings, record=True, progress=False)
    assert own.recorded is not None
    np.testing.assert_array_equal(played.act, own.recorded.act)
    execute = run.policy.execute
    other = changed(run, config=replace(run.config, policy=replace(run.config.policy, execute=execute - 1)))
    with pytest.raises(ConfigError, match=rf"finetune\.acting\.execute was {execute} and is {execute - 1}"):
        finetune(other, replace(CONFIG, steps=4), better.folder, resume=True, progress=False)


def test_a_policy_gets_better_by_playing(follow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "SLOWER", 1.0)  # as a policy that is no good has nothing to lose
    config = tiny("td3bc", follow)
    policy: Any = config.policy
    model = policy.model.with_network(ResidualMLPConfig(width=32, depth=1, frequencies=0))
    critic = replace(policy.critic, width=32, discount=0.1)
    policy = replace(policy, eta=50.0, model=model, batch_size=64, critic=critic)
    run = runs.train(replace(config, policy=policy, training=TrainingConfig(30, warmup=2)), folder=tmp_path / "run",
                     progress=False)
    better = tuned(run, tmp_path / "tuned", FinetuneConfig(250, 1.0, episodes=2, noise=0.3, seed=3))
    before, after = (one.evaluate(episodes=30, baselines=False, progress=False)["return_mean"]
                     for one in (run, better))
    assert before < -4 and after > before / 2  # chance earns -6.7, the best 0


def test_the_command_makes_a_run_like_any_other(td3bc: runs.Run, tmp_path: Path,
                                               capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    words = "--steps", 40, "--updates", 0.5, "--episodes", 2, "--seed", 1, "--run-dir", out
    assert gentraj("finetune", td3bc.folder, *words) == 0
    printed = capsys.readouterr()
    assert f"next: gentraj evaluate {out}" in printed.out
    before, after = (run.evaluate(episodes=COMPARED, seed=1, baselines=False, out=tmp_path / "scores.json")
                     ["return_mean"] for run in (td3bc, runs.load(out)))
    assert f"the mean return is {after:.4g}, and {before:.4g} before" in printed.err
    assert f"a gain of {after - before:.4g} [" in printed.err
    assert gentraj("finetune", td3bc.folder, *words) == 2
    assert "holds a training already; continue it with --resume, or" in capsys.readouterr().err
    assert gentraj("finetune", td3bc.folder, *words, "--noise", 0.2, "--resume") == 2
    assert "finetune.noise was 0.02 and is 0.2" in capsys.readouterr().err
    assert gentraj("finetune", td3bc.folder, *words, "--steps", 44, "--resume") == 0
    assert runs.load(out, step=22).step == 22


def test_a_goal_is_played_for(umaze: Episodes, tmp_path: Path) -> None:
    run = runs.train(tiny("iql", DATASET), folder=tmp_path / "run", progress=False)
    better = tuned(run, tmp_path / "tuned", replace(CONFIG, steps=4))
    played = load_episodes(tmp_path / "tuned" / PLAYED / "00000000.npz")
    assert better.config.training.steps == 2
    assert played.goal_dims == umaze.goal_dims and played.extras["goal"].shape[1] == 2


# -- what cannot be


def test_only_a_policy_with_a_critic_learns_from_what_it_plays(small_run: Path, follow: Path, tmp_path: Path,
                                                              capsys: pytest.CaptureFixture) -> None:
    cloned = runs.train(tiny("bc-gaussian", follow, steps=1), folder=tmp_path / "bc", progress=False)
    for folder in (small_run, cloned.folder):
        assert gentraj("finetune", folder, "--run-dir", tmp_path / "tuned") == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "only a policy with a critic, such as fql" in err
    assert not (tmp_path / "tuned").exists()


def test_other_data_another_environment_and_episodes_of_another_are_refused(td3bc: runs.Run, follow: Path,
                                                                           tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown environment 'Folow'"):
        tuned(td3bc, tmp_path / "out", env_id="Folow")
    for env_id, message in {"Pendulum-v1": "width 2 and actions of 1, but Pendulum-v1 has 3 and 1",
                         "CartPole-v1": r"the action space of CartPole-v1 is Discrete\(2\)"}.items():
        with pytest.raises(ValueError, match=message):
            tuned(td3bc, tmp_path / "elsewhere", env_id=env_id)
    assert not (tmp_path / "elsewhere").exists()
    save_npz(flat(1.0), tmp_path / "other.npz")
    config = replace(td3bc.config, dataset=str(tmp_path / "other.npz"))
    with pytest.raises(ValueError, match=r"other\.npz is not what .* was trained on; its dataset is expected"):
        finetune(changed(td3bc, config=config), CONFIG, tmp_path / "out", progress=False)
    (tmp_path / "used" / PLAYED).mkdir(parents=True)
    with pytest.raises(ValueError, match="holds episodes of another fine-tuning; give another folder"):
        tuned(td3bc, tmp_path / "used")
    assert not (tmp_path / "out").exists()
