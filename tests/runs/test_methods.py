"""What can be done with a run, its methods do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import gentraj
from gentraj.runs.show import export

SMALL = {"policy.batch_size": 8, "policy.model.network.width": 8, "policy.model.network.depth": 1}


@pytest.fixture(scope="module")
def run(follow: Path, tmp_path_factory: pytest.TempPathFactory) -> gentraj.runs.Run:
    return gentraj.train("bc-gaussian", follow, steps=1, settings=SMALL, folder=tmp_path_factory.mktemp("bc") / "run",
                         progress=False)


def test_the_agent_knows_the_environment_of_its_data(run: gentraj.runs.Run) -> None:
    obs = np.zeros(run.data.obs_dim, np.float32)
    actions = []
    for agent in (run.agent(), run.agent(Box(-1, 1, (1,))), run.agent(env="tests/Follow-v0")):
        agent.reset(seed=0)
        actions.append(agent.act(obs))
    assert isinstance(actions[0], np.ndarray) and actions[0].shape == (1,)
    assert actions[0] == actions[1] == actions[2]
    wrong: Any = "tests/Follow-v0"
    with pytest.raises(ValueError, match=r"the action space is tests/Follow-v0, .*give it the space"):
        run.agent(wrong)


def test_samples_start_where_an_observation_is(run: gentraj.runs.Run) -> None:
    start = np.full(run.data.obs_dim, 0.5, np.float32)
    samples, others = run.sample(start, 4, seed=1), run.sample(torch.from_numpy(start)[None], 4, seed=1)
    assert samples.act_NHA.shape[::2] == (4, 1) and torch.equal(samples.act_NHA, others.act_NHA)
    assert (samples.obs_NHO == 0.5).all()
    assert not torch.equal(run.sample(start, 4).act_NHA, run.sample(start, 4).act_NHA)
    for wrong, error in (({"obs": start}, TypeError), ("start", TypeError), (np.stack([start, start]), ValueError)):
        with pytest.raises(error, match="start is"):
            run.sample(wrong)  # pyright: ignore[reportArgumentType]
    for wrong in (0, "4"):
        with pytest.raises(ValueError, match="num= is"):
            run.sample(start, wrong)  # pyright: ignore[reportArgumentType]


def test_a_program_is_written_where_its_name_is_known_and_its_packages_are_there(
        run: gentraj.runs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run.export(str(tmp_path / "bc.pt2"))
    inputs, _ = torch.export.load(path).example_inputs or ((), {})
    assert torch.export.load(path).module()(*inputs).shape[::2] == (1, 1)
    with pytest.raises(ValueError, match=r"bc.txt; a file that ends in .onnx or .pt2"):
        run.export(tmp_path / "bc.txt")
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    monkeypatch.setattr(export, "export_run", None)  # not called
    with pytest.raises(ImportError, match=r"ONNX needs onnxscript, not installed here"):
        run.export(tmp_path / "bc.onnx")


def test_a_report_is_a_page_of_html(run: gentraj.runs.Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.html"):
        run.report(tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


def test_one_run_is_compared_as_several_are(run: gentraj.runs.Run) -> None:
    one, two = (gentraj.compare(*given, episodes=1, progress=False) for given in ((run,), ([str(run.folder)],)))
    assert str(one) == str(two)
