"""Data and what a world model imagines from there: the dataset, whose actions are tried, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import DATASET, gentraj
from test_policy_runs import tiny

from gentraj import runs
from gentraj.data import DataError, Episodes, concatenate, load_episodes, save_npz
from gentraj.diffusion import DiffusionConfig
from gentraj.envs.worlds import branches
from gentraj.models.conditioning import ConditionMix
from gentraj.networks import ResidualMLPConfig
from gentraj.runs import PlannerRunConfig, WorldModelRunConfig
from gentraj.runs.learn import augmentation
from gentraj.training import TrainingConfig
from gentraj.worlds.model import WorldModelConfig

TRAINING = TrainingConfig(4, warmup=2, save_every=4, log_every=2)
LOOSE = "--max-uncertainty", 10


def world(dataset: object, folder: Path) -> Path:
    config = WorldModelConfig(model=None, members=2, width=8, depth=1, batch_size=16)
    runs.train(WorldModelRunConfig(str(dataset), world=config, training=TRAINING), folder=folder, progress=False)
    return folder


def planner(dataset: object, folder: Path, **settings: Any) -> Path:
    mix = ConditionMix(start=settings.pop("start", 0.5), goal=settings.pop("goal", 0.0),
                       goal_dims=settings.pop("goal_dims", ()))
    model = DiffusionConfig(ResidualMLPConfig(width=8, depth=1, frequencies=0), levels=None, steps=4)
    config = replace(PlannerRunConfig(str(dataset), horizon=4, stride=1, joint=True, model=model, conditioning=mix,
                                      batch_size=8, training=TRAINING), **settings)
    runs.train(config, folder=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def hopper_world(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(hopper_file, tmp_path_factory.mktemp("world") / "run")


@pytest.fixture(scope="module")
def hopper_policy(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("td3bc") / "run"
    runs.train(tiny("td3bc", hopper_file), folder=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def hopper_planner(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planner(hopper_file, tmp_path_factory.mktemp("joint") / "run")


@pytest.fixture
def imagined(hopper_file: Path, hopper_world: Path, request: pytest.FixtureRequest):
    """Runs the command; returns what was imagined."""
    number = iter(range(9))

    def make(*words: object) -> Episodes:
        dataset_id = f"tests/{request.node.name.partition('[')[0].replace('_', '-')}{next(number)}-v0"
        assert gentraj("augment", hopper_file, "--model", hopper_world, "--steps", 60, "--out", dataset_id,
                       "--only-synthetic", *LOOSE, *words) == 0
        return load_episodes(dataset_id)

    return make


def firsts(e: Episodes) -> np.ndarray:
    return e.obs[e.starts + np.arange(len(e))]


def among(rows: np.ndarray, of: np.ndarray) -> np.ndarray:
    return (rows[:, None] == of).all(-1).any(1)


def before(e: Episodes) -> np.ndarray:
    """(S, O) the observation in which each action was taken."""
    return e.obs[np.arange(e.num_steps) + np.repeat(np.arange(len(e)), e.lengths)]


# -- the dataset


def test_the_original_comes_first_and_what_was_imagined_after_it(hopper: Episodes, hopper_file: Path,
                                                                 hopper_world: Path,
                                                                 capsys: pytest.CaptureFixture) -> None:
    words = "augment", hopper_file, "--model", hopper_world, "--steps", 60, "--out", "tests/augmented-v0", *LOOSE
    assert gentraj(*words) == 0
    out, err = capsys.readouterr()
    e = load_episodes("tests/augmented-v0")
    E, S = len(hopper), hopper.num_steps
    assert all(replace(e[i], extras=hopper[i].extras) == hopper[i] for i in range(E))
    assert (e.extras["imagined"][:, 0] == (np.arange(len(e.obs)) >= len(hopper.obs))).all()
    made = e.num_steps - S
    assert 60 <= made < 65 and f"{made} synthetic steps of" in err and e.env == hopper.env
    lengths, ends = e.lengths[E:], e.terminated[S:] | e.truncated[S:]
    assert lengths.min() >= 1 and lengths.max() == 5 and ends.sum() == len(lengths)
    assert not (e.terminated & e.truncated).any()
    span = 0.1 * (hopper.obs.max(0) - hopper.obs.min(0)) + 1e-5
    assert (e.obs >= hopper.obs.min(0) - span).all() and (e.obs <= hopper.obs.max(0) + span).all()
    assert (e.act >= hopper.act.min(0)).all() and (e.act <= hopper.act.max(0)).all()
    assert among(firsts(e)[E:], before(hopper)).all() and not among(e.obs[S + E + 1 : S + E + 2], hopper.obs).any()

    metadata = json.loads((Path(out.strip()) / "data" / "metadata.json").read_text())
    about = metadata["gentraj"]["provenance"]
    assert about["settings"]["dataset"] == str(hopper_file) and about["settings"]["max_uncertainty"] == 10
    assert about["imagined"]["steps"] == made and about["checkpoints"][str(hopper_world)]["step"] == 4


def test_what_was_imagined_before_stays_marked(hopper: Episodes) -> None:
    once = concatenate([hopper, augmentation.marked(hopper[0])])
    twice = concatenate([once, augmentation.marked(hopper[1])])
    rows = len(hopper.obs), len(hopper[0].obs), len(hopper[1].obs)
    assert twice.extras["imagined"][:, 0].tolist() == np.repeat([0, 1, 1], rows).tolist()
    beside = concatenate([twice, hopper]).real()
    assert beside == concatenate([hopper, hopper]) and hopper.real() is hopper
    with pytest.raises(DataError, match="all episodes are synthetic; take real data"):
        augmentation.marked(hopper).real()


def test_the_same_seed_gives_the_same_bits_however_many_at_once(imagined, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = imagined(), imagined("--seed", 1)
    monkeypatch.setattr(branches, "FEWEST", 5)
    monkeypatch.setattr(branches, "MOST", 7)
    assert one == imagined() and one != other


def test_noise_is_added_to_actions_that_followed(hopper: Episodes, imagined) -> None:
    still, noisy = imagined("--noise", 0), imagined("--noise", 0.2)
    assert among(np.hstack([firsts(still), still.act[still.starts]]), np.hstack([before(hopper), hopper.act])).all()
    assert not among(noisy.act, hopper.act).any()


def test_goals_are_kept(umaze: Episodes, tmp_path: Path) -> None:
    model = world(DATASET, tmp_path / "world")
    words = "--steps", 40, "--out", "tests/goals-v0", *LOOSE
    assert gentraj("augment", DATASET, "--model", model, *words) == 0
    e = load_episodes("tests/goals-v0")
    assert (e.obs_keys, e.goal_dims) == (umaze.obs_keys, umaze.goal_dims)
    assert e[0].extras["goal"].tolist() == umaze[0].extras["goal"].tolist()
    pairs = np.hstack([umaze.obs, umaze.extras["goal"]])
    for episode in list(e)[len(umaze) :]:
        goal = episode.extras["goal"]
        assert (goal == goal[0]).all() and among(np.hstack([episode.obs[:1], goal[:1]]), pairs).all()


# -- whose actions


def test_a_policy_acts_in_imagined_states(hopper_policy: Path, imagined) -> None:
    e, noisy = (imagined("--policy", hopper_policy, "--branch", 3, "--noise", noise) for noise in (0, 0.1))
    agent = runs.load(hopper_policy).agent(runs.load(hopper_policy).action_space())
    assert e.lengths.max() == 3
    np.testing.assert_allclose(e.act, agent.act(torch.from_numpy(before(e))).numpy(), atol=1e-6)
    apart = noisy.act - agent.act(torch.from_numpy(before(noisy))).numpy()
    assert 0.05 < apart.std() < 0.15 and np.abs(noisy.act).max() <= 1


def test_a_planners_samples_say_where_to_start_and_what_to_do(hopper: Episodes, hopper_file: Path, hopper_planner: Path,
                                                              hopper_world: Path, imagined, tmp_path: Path) -> None:
    e = imagined("--trajectories", hopper_planner)
    assert e.lengths.max() == 4 and not among(firsts(e), hopper.obs).any() and not among(e.act, hopper.act).any()
    assert e == imagined("--trajectories", hopper_planner)
    augmentation.augment(augmentation.AugmentConfig(str(hopper_file), hopper_world, 30, "tests/sampled-v0",
                                                    trajectories=hopper_planner, max_uncertainty=10), progress=False)
    assert "imagined" not in load_episodes("tests/sampled-v0").extras  # actions like the data's may be copied
    conditioned = planner(hopper_file, tmp_path / "conditioned", start=1.0)
    assert among(firsts(imagined("--trajectories", conditioned)), hopper.obs).all()


# -- what is refused


@pytest.mark.parametrize(("words", "message"), [
    (("--own-rewards", "--only-synthetic"), "has no compute_reward of goals"),
    (("--max-uncertainty", 0), "synthetic steps only 0 can be trusted; reasons, and how many of"),
    (("--model", "POLICY"), "a world model is expected"), (("--trajectories", "POLICY"), "is a policy"),
    (("--policy", "POLICY", "--trajectories", "POLICY"), "both say which actions are taken in the branches; give one"),
    (("--out", "tests/umaze-v0"), "tests/umaze-v0 exists already in"),
    (("DATA", "narrow.npz"), "of the widths (11, 3, 0), and those of narrow are (3, 3, 0)")])
def test_bad_options_are_refused_in_one_line(words: tuple[object, ...], message: str, umaze: Episodes, hopper: Episodes,
                                             hopper_file: Path, hopper_world: Path, hopper_policy: Path, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    save_npz(replace(hopper, obs=hopper.obs[:, :3]), tmp_path / "narrow.npz")
    options: dict[Any, Any] = {"DATA": hopper_file, "--model": hopper_world, "--steps": 20, "--out": "tests/none-v0"}
    names = {"MODEL": hopper_world, "POLICY": hopper_policy}
    options |= {option: names.get(value, value) for option, value in zip(words[::2], words[1::2], strict=True)}
    data = options.pop("DATA")
    assert gentraj("augment", data, *(word for pair in options.items() for word in pair)) == 2
    out, err = capsys.readouterr()
    assert not out and message in err.splitlines()[-1] and "Traceback" not in err


def test_settings_are_expected_and_not_data(hopper: Episodes) -> None:
    data: Any = hopper
    with pytest.raises(TypeError, match="AugmentConfig"):
        augmentation.augment(data)
    with pytest.raises(TypeError, match="dataset"):
        augmentation.AugmentConfig()  # type: ignore[call-arg]


def test_samples_have_to_be_of_every_step_and_of_actions(hopper_file: Path, hopper_world: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture) -> None:
    words = "augment", hopper_file, "--model", hopper_world, "--steps", 20, "--out", "tests/none-v0", "--trajectories"
    for name, settings, message in (("sparse", {"stride": 2}, "timesteps are 2 steps apart; train one with --joint"),
                                    ("sent", {"goal": 1.0, "goal_dims": (0,)}, "was always conditioned on goal")):
        assert gentraj(*words, planner(hopper_file, tmp_path / name, **settings)) == 2
        assert message in capsys.readouterr().err
