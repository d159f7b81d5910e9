"""A world model: what it learns of a system whose law is known, and what holds for any of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gentraj.data import ContextConfig, Episodes, Windows
from gentraj.networks import ResidualMLPConfig
from gentraj.randomness import generator
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch
from gentraj.worlds.facts import WorldFacts
from gentraj.worlds.model import GENERATOR, Imagined, WorldModel, WorldModelConfig

# x' = A x + B a + L eps, the reward is x_0 - 0.1 |a|^2.
A = np.array([[0.95, 0.1, 0], [-0.1, 0.9, 0.05], [0, 0, 0.8]])
B = np.array([[0, 0.1], [0.3, 0], [0.1, 0.2]])
L = np.array([[0.1, 0, 0], [0.05, 0.08, 0], [-0.02, 0.03, 0.05]])
NETWORK = ResidualMLPConfig(16, 1)
TINY: dict[str, Any] = {"width": 16, "depth": 1, "members": 2, "batch_size": 32}
FLOW = replace(GENERATOR, network=NETWORK)
WORLDS = {f"{name}-{chunk}": WorldModelConfig(model=model, chunk=chunk, **TINY)
          for name, model in (("ensemble", None), ("flow", FLOW)) for chunk in (1, 3)}


def linear(lengths: list[int], seed: int = 0) -> Episodes:
    """Episodes of the system, each cut at its end."""
    rng, obs, act, S = np.random.default_rng(seed), [], [], sum(lengths)
    for T in lengths:
        obs.append(rng.normal(size=3))
        for _ in range(T):
            act.append(rng.uniform(-1, 1, 2))
            obs.append(A @ obs[-1] + B @ act[-1] + L @ rng.normal(size=3))
    before = np.delete(np.array(obs), np.cumsum(np.array(lengths) + 1) - 1, 0)
    reward = before[:, 0] - 0.1 * (np.array(act) ** 2).sum(1)
    cut = np.isin(np.arange(S), np.cumsum(lengths) - 1)
    return Episodes(np.array(obs), np.array(act), reward, np.zeros(S, bool), cut, np.array(lengths))


def with_goals(e: Episodes) -> Episodes:
    """Returns the episodes with one random goal for each."""
    goal_EG = np.random.default_rng(1).normal(size=(len(e), 2))
    return replace(e, goal_dims=(0, 1), extras={"goal": np.repeat(goal_EG, e.lengths + 1, 0)})


def taught(e: Episodes, config: WorldModelConfig, steps: int = 3) -> WorldModel:
    """After a few steps of training, calibrated by its own data."""
    context = ContextConfig(("goal",) if "goal" in e.extras else ())
    world = WorldModel(e.obs_dim, e.act_dim, config, WorldFacts.fit(e, context, config.chunk))
    windows, optimizers = Windows(e, world.spec, context), world.optimizers()
    for step in range(steps):
        metrics = world.update(TrainingStep(windows.batch(step, 0, config.batch_size), optimizers, generator(0, step)))
        assert all(torch.isfinite(value) for value in metrics.values())
    world.eval().calibrate(windows.batch(steps, 0, 64))
    return world


def asked(rows: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 3, generator=g), 2 * torch.rand(rows, steps, 2, generator=g) - 1


def first(made: Imagined, rows: int, steps: int) -> Imagined:
    return Imagined(*(x[:rows, :steps] for x in made))


def assert_same(one: Imagined, other: Imagined) -> None:
    for name, a, b in zip(Imagined._fields, one, other, strict=True):
        assert torch.equal(a, b), name


@pytest.fixture(scope="module")
def worlds() -> dict[str, WorldModel]:
    return {name: taught(linear([9, 40, 2, 30]), config) for name, config in WORLDS.items()}


# -- a known law


@pytest.mark.slow
def test_it_learns_the_law_of_a_linear_system(tmp_path: Path) -> None:
    """Mean, covariance and reward of a step; it is most uncertain where the data do not reach."""
    e, config = linear([200] * 100), WorldModelConfig(model=GENERATOR, width=64)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        world = WorldModel(3, 2, config, WorldFacts.fit(e, ContextConfig(), 1))
    settings = TrainingConfig(1_500, save_every=1_500, threads=1)
    Trainer({"world": world}, TrainingData(e), settings, RunStore(tmp_path), progress=False).fit()
    world.eval().calibrate(Windows(linear([200] * 5, seed=1), world.spec).batch(0, 0, 512))
    rng, N, M = np.random.default_rng(1), 20, 500
    obs_NO, act_NA = e.obs[rng.integers(len(e.obs), size=N)], rng.uniform(-1, 1, (N, 2)).astype(np.float32)
    obs_RO, act_RTA = (torch.from_numpy(x).repeat_interleave(M, 0) for x in (obs_NO, act_NA[:, None]))
    made = world.imagine(obs_RO, act_RTA, seeds=range(N * M))
    next_NMO, reward_N = made.obs_BTO.view(N, M, 3).double().numpy(), made.reward_BT.view(N, M).mean(1).numpy()

    mean_NO = obs_NO @ A.T + act_NA @ B.T
    assert np.linalg.norm(next_NMO.mean(1) - mean_NO) < 0.03 * np.linalg.norm(mean_NO)
    earned_N = obs_NO[:, 0] - 0.1 * (act_NA**2).sum(1)
    assert np.linalg.norm(reward_N - earned_N) < 0.03 * np.linalg.norm(earned_N)
    covariance, Q = np.mean([np.cov(next_MO.T) for next_MO in next_NMO], 0), L @ L.T
    assert np.linalg.norm(covariance - Q) < 0.1 * np.linalg.norm(Q)

    assert made.end_BT.max() < 0.01  # nothing ends in these data
    far = world.imagine(4 * obs_RO[::M], 3 * act_RTA[::M], seeds=range(N))
    assert far.uncertainty_BT.mean() > 2 * made.uncertainty_BT.mean()


# -- contracts


def test_arrays_are_imagined_as_tensors_are(worlds: dict[str, WorldModel]) -> None:
    world, (obs_BO, act_BTA) = next(iter(worlds.values())), asked(3, 5)
    assert_same(world.imagine(obs_BO.numpy(), act_BTA.numpy()), world.imagine(obs_BO, act_BTA))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WORLDS)
def test_a_row_depends_on_its_own_seed_and_inputs_only(name: str, worlds: dict[str, WorldModel]) -> None:
    world, (obs_BO, act_BTA), seeds = worlds[name], asked(20, 5), list(range(50, 70))
    made = world.imagine(obs_BO, act_BTA, seeds=seeds)
    for rows in ([0], [19, 3], list(range(17)), list(range(19, 3, -1))):
        alone = world.imagine(obs_BO[rows], act_BTA[rows], seeds=[seeds[i] for i in rows])
        assert_same(alone, Imagined(*(x[rows] for x in made)))
    other = world.imagine(obs_BO, act_BTA, seeds=[*seeds[:-1], 7])
    assert_same(first(other, 19, 5), first(made, 19, 5))
    assert not torch.equal(other.obs_BTO[19, 0], made.obs_BTO[19, 0])


@pytest.mark.parametrize("name", WORLDS)
def test_without_temperature_no_seed_matters(name: str, worlds: dict[str, WorldModel]) -> None:
    world, (obs_BO, act_BTA) = worlds[name], asked(4, 5)
    cold, again = (world.imagine(obs_BO, act_BTA, seeds=seeds, temperature=0.0) for seeds in ([0] * 4, range(4)))
    warm = world.imagine(obs_BO, act_BTA, seeds=range(4))
    assert_same(cold, again)
    assert not torch.equal(cold.obs_BTO, warm.obs_BTO)


@pytest.mark.parametrize("name", WORLDS)
def test_a_longer_sequence_begins_as_a_shorter_one(name: str, worlds: dict[str, WorldModel]) -> None:
    """The sequences consist of whole chunks, and any length may be requested."""
    world, (obs_BO, act_BTA) = worlds[name], asked(4, 7)
    made = world.imagine(obs_BO, act_BTA, seeds=range(4))
    for T in range(1, 8):
        shorter = world.imagine(obs_BO, act_BTA[:, :T], seeds=range(4))
        assert [x.shape for x in shorter] == [(4, T, 3), (4, T), (4, T), (4, T)]
        assert all(torch.isfinite(x).all() for x in shorter)
        whole = T // world.chunk * world.chunk
        assert_same(first(shorter, 4, whole), first(made, 4, whole))
    assert ((made.end_BT >= 0) & (made.end_BT <= 1) & (made.uncertainty_BT >= 0)).all()


@pytest.mark.parametrize("name", WORLDS)
def test_a_step_is_imagined_from_the_one_before(name: str, worlds: dict[str, WorldModel]) -> None:
    """Without noise, a chunk from the last observation of another is what follows that one."""
    world, (obs_BO, act_BTA), K = worlds[name], asked(4, 6), worlds[name].chunk
    made = world.imagine(obs_BO, act_BTA, seeds=[0] * 4, temperature=0.0)
    rest = world.imagine(made.obs_BTO[:, K - 1], act_BTA[:, K:], seeds=[0] * 4, temperature=0.0)
    assert_same(rest, Imagined(*(x[:, K:] for x in made)))


@pytest.mark.parametrize("name", ["ensemble-3", "flow-3"])
def test_padding_teaches_nothing(name: str) -> None:
    """Whatever it holds."""
    e = linear([1, 2, 3, 4, 25])
    facts, made = WorldFacts.fit(e, ContextConfig(), 3), []
    for padding in (0.0, 5.0):
        with torch.random.fork_rng():
            world = WorldModel(3, 2, WORLDS[name], facts)
        batch = Windows(e, world.spec).batch(0, 0, 32)
        assert not batch.mask_BHD[:, -1, 0].all()
        batch = Batch(torch.where(batch.mask_BHD, batch.x_BHD, padding), batch.mask_BHD,
                      reward_BH=torch.where(batch.mask_BHD[..., -1], batch.reward_BH, padding),  # type: ignore[arg-type]
                      terminal_BH=batch.terminal_BH)
        made.append(world.update(TrainingStep(batch, world.optimizers(), generator(0))) | world.state_dict())
    for key, value in made[0].items():
        assert torch.equal(value, made[1][key]), key


def test_what_is_asked_in_another_shape_is_refused() -> None:
    world, (obs, act), goal = taught(with_goals(linear([9, 40, 2])), WORLDS["flow-3"]), asked(4, 5), torch.zeros(4, 2)
    assert world.imagine(obs, act, goal, seeds=range(4)).obs_BTO.shape == (4, 5, 3)
    for wrong in ((obs[:3], act, goal), (obs, act[..., :1], goal), (obs, act[:, :0], goal), (obs, act, None)):
        with pytest.raises(ValueError, match="expected"):
            world.imagine(*wrong, seeds=range(4))
    words: Any = "left"
    with pytest.raises(TypeError, match="numbers"):
        world.imagine(obs, words)
