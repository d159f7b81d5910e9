"""A program decides what the agent does, given the noise that the agent would have drawn."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from small import DATASET, gentraj
from test_planner_runs import tiny as planner
from test_policy_runs import tiny as policy
from torch import Tensor

from gentraj import runs
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.student import Student, StudentActor, StudentConfig
from gentraj.data import save_npz
from gentraj.diffusion import DiffusionConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import Noise, RowNoise, as_noise, fold, generator
from gentraj.runs.kinds.presets import model_config, with_model
from gentraj.runs.show.export import (
    InputNoise,
    RecordedNoise,
    examples,
    export_decision,
    export_run,
    inputs_of,
    noise_of,
    signature,
    to_onnx,
    to_pt2,
)

SMALL = ResidualMLPConfig(width=8, depth=1, frequencies=0)
CLOSE = {"rtol": 0, "atol": 1e-4}


def answers(run: runs.Run, program: Any, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, A) the first actions of the agent itself, of the ONNX file and of the reloaded .pt2."""
    onnxruntime = pytest.importorskip("onnxruntime")
    agent, (obs, goal) = run.agent(Box(-1, 1, (run.data.act_dim,))), examples(run)
    given = {"obs": obs[50 : 50 + batch]} | ({} if goal is None else {"goal": goal[50 : 50 + batch]})
    agent.reset(list(range(7, 7 + batch)))
    acted = agent.act(*given.values())
    noise = noise_of(agent.decide, *given.values(), seeds=[fold(7 + i, 0) for i in range(batch)])  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(to_onnx(program))
    inputs = [*given.values(), *noise]
    of_onnx, = session.run(["act"], {name: x.numpy() for name, x in zip(inputs_of(program), inputs, strict=True)})
    of_pt2 = torch.export.load(io.BytesIO(to_pt2(program))).module()(*inputs)
    assert of_onnx.shape == tuple(of_pt2.shape)
    return acted, torch.from_numpy(of_onnx[:, 0]), of_pt2[:, 0]


slow = pytest.mark.slow


@pytest.mark.parametrize("name", ["fql", *(pytest.param(name, marks=slow) for name in ("idql", "qc"))])
def test_a_policy_s_program_acts_as_it_does(name: str, hopper_file: Path, tmp_path: Path) -> None:
    """By one call of an actor, by the best of candidates, by chunks."""
    config = policy(name, hopper_file)
    model = model_config(config)
    if isinstance(model, DiffusionConfig):
        config = with_model(config, replace(model, steps=2))
    run = runs.train(config, folder=tmp_path, progress=False)
    acted, of_onnx, of_pt2 = answers(run, export_run(run, batch=2), 2)
    torch.testing.assert_close(of_onnx, acted, **CLOSE)
    torch.testing.assert_close(of_pt2, acted, **CLOSE)


def test_a_student_that_acts_by_the_mode_of_its_mixture_is_an_onnx_file() -> None:
    """ONNX has no distances between the components, and a .pt2 file does."""
    onnxruntime = pytest.importorskip("onnxruntime")
    identity = Normalizer.identity
    scales = StateActionScales(identity(3), identity(2), None, identity(1))
    obs, bound = torch.randn(20, 3, generator=generator(0)), np.ones(2, np.float32)
    agent = StudentActor(Student(StudentConfig(width=8, depth=1), scales), -bound, bound)
    file = to_onnx(export_decision(agent.decide, obs, batch=4))
    act_BEA, = onnxruntime.InferenceSession(file).run(["act"], {"obs": obs[4:8].numpy()})
    torch.testing.assert_close(torch.from_numpy(act_BEA[:, 0]), agent.act(obs[4:8]), **CLOSE)


@slow
@pytest.mark.parametrize("name", ["diffuser", "diffuser-lite"])
def test_a_program_plans_for_returns_as_the_planner_does(name: str, hopper_file: Path, tmp_path: Path) -> None:
    """Guided by a critic, and filled in by finer models."""
    config = planner(name, hopper_file)
    config = replace(config, planner=replace(config.planner, steps=1))
    run = runs.train(config, folder=tmp_path, progress=False)
    acted, of_onnx, of_pt2 = answers(run, export_run(run), 1)
    torch.testing.assert_close(of_onnx, acted, **CLOSE)
    torch.testing.assert_close(of_pt2, acted, **CLOSE)


@slow
def test_a_program_plans_for_goals_as_the_planner_does(umaze: Any, tmp_path: Path) -> None:
    """Many arrivals, a trust score, inverse dynamics: all of it is in the program."""
    config = planner("pointmaze", DATASET)
    run = runs.train(with_model(config, config.model.with_network(SMALL)), folder=tmp_path, progress=False)
    program = export_run(run)
    assert signature(program).startswith("takes obs (1, 4), goal (1, 2), noise (")
    acted, of_onnx, of_pt2 = answers(run, program, 1)
    torch.testing.assert_close(of_onnx, acted, **CLOSE)
    torch.testing.assert_close(of_pt2, acted, **CLOSE)


def test_the_command_writes_a_program_of_a_policy_with_goals(umaze: Any, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    run = runs.train(policy("fql", DATASET), folder=tmp_path / "run", progress=False)
    assert gentraj("export", tmp_path / "run", "--out", tmp_path / "a.pt2", "--batch", 3) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "a.pt2")
    assert "takes obs (3, 4), goal (3, 2), noise (12,), float32, the noise standard normal; gives the actions" in err
    obs, goal = (x[:3] for x in examples(run) if x is not None)
    told = {"ranges": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=told)
    act = program.module()(obs, goal, torch.zeros(12))  # two candidates
    assert act.shape == (3, 1, 2) and act.abs().max() <= 1
    ranges = json.loads(told["ranges"])
    for name, low in (("obs", umaze.obs.min(0)), ("goal", umaze.obs[:, :2].min(0))):
        assert ranges[name]["low"] == low.tolist() and (ranges[name]["least"] < low).all()


def test_a_run_on_data_without_an_environment_is_exported_within_given_limits(hopper: Any, tmp_path: Path,
                                                                              capsys: pytest.CaptureFixture) -> None:
    """The logs of a robot name no environment: the program's actions keep the limits of each entry."""
    save_npz(replace(hopper, env=None), tmp_path / "robot.npz")
    run, out = tmp_path / "run", tmp_path / "robot.pt2"
    runs.train(policy("bc-gaussian", tmp_path / "robot.npz"), folder=run, progress=False)
    assert gentraj("export", run, "--out", out) == 2
    assert "give --env-id, or the limits of the actions, such as --low -1 --high 1" in capsys.readouterr().err
    assert gentraj("export", run, "--out", out, "--batch", 8, "--low", -0.02, "--high", 0.01, 0.02, 0.03) == 0
    noise = torch.tensor([-9.0, 9.0]).repeat_interleave(56)  # 4 of the 8 rows far below the mean, and 4 far above
    act_BEA = torch.export.load(out).module()(examples(runs.load(run))[0][:8], noise)
    torch.testing.assert_close(act_BEA[:4].amin((0, 1)), torch.full((3,), -0.02))
    torch.testing.assert_close(act_BEA[4:].amax((0, 1)), torch.tensor([0.01, 0.02, 0.03]))


def test_recorded_noise_is_the_same_as_an_input_of_other_rows_whatever_is_derived_of_it() -> None:
    def drawn(noise: Noise) -> list[Tensor]:
        others = noise.several(3)[:4].anew(7)
        return [noise.normal(4, 5), noise.padded(1).scaled(0.0, 2), others.normal(1), noise[:1].normal(3)]

    kept = list[Tensor]()
    first = drawn(RecordedNoise([1, 2], kept))
    assert torch.equal(first[0], RowNoise([1, 2]).normal(4, 5))  # keeping changes nothing
    noise_M = torch.cat([part.flatten() for part in kept])
    assert noise_M.shape == (2 * 4 * 5 + 4 + 3,)  # what is scaled by 0 is not drawn
    assert all(torch.equal(a, b) for a, b in zip(drawn(InputNoise(2, [noise_M])), first, strict=True))
    with pytest.raises(ValueError, match="10 numbers of noise are left; 40 are needed"):
        drawn(InputNoise(2, [torch.zeros(10)]))


def test_a_chunk_is_exported_whole_as_far_as_it_is_carried_out() -> None:
    def repeats(obs_BO: Tensor, goal_BG: Tensor | None, seeds: Any) -> Tensor:
        return (obs_BO + as_noise(seeds, len(obs_BO)).normal(2))[:, None].expand(-1, 4, -1)

    program = export_decision(repeats, torch.randn(9, 2), batch=3)
    noise, = noise_of(repeats, torch.zeros(3, 2), seeds=[1, 2, 3])
    assert torch.equal(noise.view(3, 2), RowNoise([1, 2, 3]).normal(2))
    assert torch.equal(program.module()(torch.zeros(3, 2), noise), noise.view(3, 1, 2).expand(-1, 4, -1))


def test_a_policy_that_acts_by_its_mean_takes_no_noise(hopper_file: Path, tmp_path: Path) -> None:
    run = runs.train(policy("iql", hopper_file), folder=tmp_path, progress=False)
    program = export_run(run, batch=2)
    assert [*inputs_of(program)] == ["obs"] and "noise" not in signature(program)
    acted, of_onnx, of_pt2 = answers(run, program, 2)
    torch.testing.assert_close(of_onnx, acted, **CLOSE)
    torch.testing.assert_close(of_pt2, acted, **CLOSE)


def test_what_depends_on_no_input_is_computed_once() -> None:
    def decide(obs_BO: Tensor, goal_BG: Tensor | None, seeds: Any) -> Tensor:
        table = torch.zeros(3)
        for k in range(3):
            table[k] = torch.arange(4.0).exp().sum() * k
        table[1] = obs_BO.sum()  # one that does, written into what does not
        return obs_BO + table + as_noise(seeds, len(obs_BO)).normal(3)

    program, obs, noise = export_decision(decide, torch.randn(2, 3)), torch.ones(1, 3), torch.zeros(3)
    assert not any("exp" in str(node.target) for node in program.graph.nodes)
    for _ in range(2):
        torch.testing.assert_close(program.module()(obs, noise), decide(obs, None, InputNoise(1, [noise])))


def test_what_depends_on_the_observation_by_a_choice_in_python_is_refused() -> None:
    def jumpy(obs_BO: Tensor, goal_BG: Tensor | None, seeds: Any) -> Tensor:
        return obs_BO if obs_BO.sum() > 0 else -obs_BO

    with pytest.raises(ValueError, match="differs by 2 from the agent's on another observation"):
        export_decision(jumpy, torch.tensor([[1.0], [-1.0]]))


@pytest.mark.parametrize(("words", "message"), [
    (("--out", "a.txt"), "a.txt; a file that ends in .onnx or .pt2 is expected"),
    (("--out", "a.onnx", "--batch", 0), "the batch is 0; 1 to 512"),
    (("--out", "a.pt2", "--low", -1), "one number for each of the 2 entries"),
    (("--out", "a.pt2", "--low", 1, "--high", -1, 2), "each low below its high")])
def test_what_cannot_be_exported_says_so_in_one_line(words: tuple[object, ...], message: str, small_run: Path,
                                                     capsys: pytest.CaptureFixture, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gentraj("export", small_run, *words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not list(tmp_path.iterdir())
