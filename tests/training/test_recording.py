"""A recorded update is the update: the same bits where its graph is run as it is, for all that may differ in a step."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import Pair, episodes, run
from torch import Tensor, fx, nn
from torch.optim import Optimizer

from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.policy import Policy, Scales
from gentraj.config import ConfigError
from gentraj.data import ContextConfig, Windows
from gentraj.randomness import generator
from gentraj.training import compilation
from gentraj.training.optimization import LearningConfig, NonFinite, adamw, apply_gradients
from gentraj.training.recording import NotRecordable, RecordedUpdate, Recorder
from gentraj.trajectory import Batch, TrajectorySpec

KINDS = sorted(POLICIES.keys() - {"idql", "student", "meanflow-ql"})


class Linear(nn.Module):
    """A linear network that learns to map windows to noise, by whatever `loss` says."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.batch_size, self.network = TrajectorySpec(2, 1, 4), 5, nn.Linear(3, 3)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": adamw(self.network, LearningConfig())}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        loss = self.loss(batch, torch.randn(3, generator=generator))
        apply_gradients(loss, optimizers["network"], 1.0)
        return {"loss": loss.detach()}

    def loss(self, batch: Batch, noise: Tensor) -> Tensor:
        return ((self.network(batch.x_BHD) - noise) ** 2).mean()


def steps(module: Policy | Linear, number: int, *, recorded: bool) -> tuple[list[dict[str, float]], nn.Module]:
    """The metrics of so many updates, with another learning rate in each, and the module that they made."""
    torch.manual_seed(0)
    module = copy.deepcopy(module).train()
    windows, optimizers = Windows(episodes(), module.spec), module.optimizers()
    update = RecordedUpdate(module.update, module, lambda graph: graph) if recorded else module.update
    metrics = []
    for i in range(number):
        for optimizer in optimizers.values():
            optimizer.param_groups[0]["lr"] = 1e-3 / (1 + i)
        found = update(windows.batch(i, 0, module.batch_size), optimizers, generator(0, i))
        metrics.append({key: value.item() for key, value in found.items()})
    return metrics, module


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_update_of_a_policy_has_the_bits_of_a_plain_one(kind: str) -> None:
    config, policy_class = POLICIES[kind]
    settings = config(batch_size=8)
    if kind == "diffusion-ql":  # a random member of the critic is drawn
        settings = replace(settings, critic=replace(settings.critic, gradient="random"))
    policy = policy_class(2, 1, settings, Scales.fit(episodes(), ContextConfig()))
    (plain, one), (recorded, other) = (steps(policy, 4, recorded=each) for each in (False, True))
    assert plain == recorded
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_an_update_with_forward_derivatives_is_not_recorded() -> None:
    config, policy_class = POLICIES["meanflow-ql"]
    policy = policy_class(2, 1, config(batch_size=8), Scales.fit(episodes(), ContextConfig()))
    with pytest.raises(NotRecordable, match="it takes forward derivatives"):
        steps(policy, 2, recorded=True)


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    module = Linear()
    windows, optimizers = Windows(episodes(), module.spec), module.optimizers()
    update = RecordedUpdate(module.update, module, lambda graph: graph)
    batch = windows.batch(0, 0, 5)
    for i in range(2):
        update(batch, optimizers, generator(i))
    before = copy.deepcopy(module.state_dict())
    batch.x_BHD[0] = torch.inf
    with pytest.raises(NonFinite, match="the loss is"):
        update(batch, optimizers, generator(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: x.numpy(),
                                  lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: bool((x > 0).any())])
def test_numbers_of_an_input_are_not_read(read) -> None:
    x = torch.ones(3)
    with pytest.raises(NotRecordable), Recorder([x], []) as recorder, recorder.reads:
        read(2 * x)


def test_numbers_that_are_the_same_in_each_run_are_read() -> None:
    x = torch.ones(3)
    with Recorder([x], []) as recorder, recorder.reads:
        y = x * torch.arange(3.0).max().item()
    assert torch.equal(recorder.output([y])(torch.full((3,), 4.0))[0], torch.full((3,), 8.0))


def test_what_a_graph_changes_in_place_starts_anew_in_each_run() -> None:
    x = torch.ones(2)
    with Recorder([x], []) as recorder:
        y = torch.zeros(2)
        y[:1].add_(x[:1])
    graph = recorder.output([y])
    assert [graph(x)[0].tolist() for _ in range(2)] == [[1, 0], [1, 0]]


def test_an_update_that_reads_its_numbers_is_trained_with_compiled_networks(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    plain = Pair()
    with pytest.warns(UserWarning, match="component 'pair': it reads numbers .*; only its networks are compiled"):
        compiled = Pair()
        run(tmp_path / "compiled", {"pair": compiled}, compile=True)
    run(tmp_path / "plain", {"pair": plain})
    assert all(torch.equal(tensor, compiled.state_dict()[name]) for name, tensor in plain.state_dict().items())


def test_where_an_update_does_not_compile_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: fx.GraphModule, inputs: object, **options: object) -> object:
        raise RuntimeError("no such instruction\nand much more")

    monkeypatch.setattr(compilation, "BACKEND", broken)
    program = compilation.compile_graph(fx.symbolic_trace(nn.ReLU()))
    with pytest.raises(ConfigError, match=r"^training.compile is set, and torch.compile fails on an update: .*$"):
        program(torch.ones(1))
