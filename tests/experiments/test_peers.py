"""Agents of OGBench beside ours, without JAX: a checkout of a few lines stands for theirs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.ogbench_peer import Checkout, Peer, compact
from gentraj.config import ConfigError
from gentraj.data import Episodes, save_npz
from gentraj.envs.making import environment_factory
from gentraj.experiments.cards import read_results

AGENTS = """
class Counts:
    create = classmethod(lambda cls, seed, observations, actions, settings: cls())
    update = lambda self, batch: (self, {"loss": batch})
    sample_actions = staticmethod(lambda observations, goals, temperature: goals - observations)
agents = {"counts": Counts}
"""
SETTINGS = 'get_config = lambda: {"agent_name": "counts", "dataset_class": "GC", "batch_size": 4, "alpha": 1.0}'
DATASETS = """
class Dataset(dict):
    create = classmethod(lambda cls, **fields: cls(fields))
class GC:
    def __init__(self, data, settings): assert settings["alpha"] == 0.25
    sample = lambda self, size: {"observations": 0, "actions": 0} if size == 1 else size
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout whose only agent goes straight to the goal."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = {"agents/__init__.py": AGENTS, "agents/counts.py": SETTINGS, "utils/datasets.py": DATASETS,
             "utils/evaluation.py": "supply_rng = lambda decide: decide",
             "hyperparameters.sh": "python main.py --env_name=walk-v0 --agent=agents/counts.py --agent.alpha=0.25\n"}
    for name, text in files.items():
        path = tmp_path / "ogbench" / "impls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield tmp_path / "ogbench"
    for name in [name for name in sys.modules if name.split(".")[0] in ("agents", "utils")]:
        del sys.modules[name]


def walks(lengths: list[int], width: int = 2) -> Episodes:
    rng, S = np.random.default_rng(0), sum(lengths)
    obs, act = rng.normal(size=(S + len(lengths), width)), rng.uniform(-1, 1, (S, 2))
    never = np.zeros(S, bool)
    return Episodes(obs, act, np.zeros(S), never, never, np.array(lengths), goal_dims=(0, 1),
                    obs_keys=("observation",), env=environment_factory("ogbench/pointmaze-medium").spec_json)


def test_data_are_given_as_ogbench_loads_its_own(tmp_path: Path) -> None:
    load_dataset = pytest.importorskip("ogbench.utils").load_dataset
    data = walks([1, 3, 2])
    ours = compact(data)
    np.savez(tmp_path / "a.npz", observations=data.obs, actions=ours["actions"], terminals=1 - ours["valids"])
    theirs = load_dataset(tmp_path / "a.npz", compact_dataset=True)
    assert ours.keys() == theirs.keys()
    for key, array in theirs.items():
        np.testing.assert_array_equal(ours[key], array)
        assert ours[key].dtype == array.dtype == np.float32


def test_a_goal_is_the_nearest_observation_with_the_entries_that_are_known() -> None:
    data = walks([4], width=3)
    seen: dict[str, Any] = {}
    peer = Peer(lambda **given: seen.update(given) or np.zeros((2, 2)), data)
    goal_BG = data.obs[[1, 3], :2] + np.float32(1e-3)
    assert peer.act(torch.zeros(2, 3), torch.from_numpy(goal_BG)).shape == (2, 2)
    np.testing.assert_array_equal(seen["goals"], np.hstack([goal_BG, data.obs[[1, 3], 2:]]))
    with pytest.raises(ValueError, match="no goals"):
        peer.act(torch.zeros(2, 3))


def test_a_training_that_is_done_is_left_out_and_one_of_other_settings_refused(
        checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    scores = {"successes": [True, False], "latency_ms_p50": 2.0}
    monkeypatch.setattr(peers, "evaluate", lambda agent, *_, **__: (scored.append(agent) or scores, None))
    path = save_npz(walks([5, 4]), tmp_path / "walk-v0.npz")

    def run(steps: int = 3, **more: Any) -> None:
        peers.main(peers.Args(checkout, str(path), ("counts",), steps, out=tmp_path / "out", **more))

    run()
    run(seeds=(0, 1))
    assert len(scored) == 2
    [result] = read_results(tmp_path / "out").values()
    first, second = result.data["walk-v0"].seeds
    assert (first.seed, second.seed, first.step, first.scores) == (0, 1, 3, (1.0, 0.0))
    with pytest.raises(ConfigError, match="steps 3, not 4"):
        run(steps=4)
    with pytest.raises(ConfigError, match="no settings of counts for other-v0"):
        run(like="other-v0")


def test_what_is_not_installed_is_said_in_one_line(checkout: Path) -> None:
    (checkout / "impls" / "agents" / "__init__.py").write_text("import no_jax")
    with pytest.raises(ConfigError, match="need no_jax: pip install jax"):
        Checkout(checkout)
    with pytest.raises(ConfigError, match="has no impls/agents"):
        Checkout(checkout / "impls")
