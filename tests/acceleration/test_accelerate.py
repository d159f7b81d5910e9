"""`accelerate`: the same samples within a tolerance, gradients as before, and refusals in one line."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gentraj
from gentraj import runs
from gentraj.acceleration import BACKENDS, Accelerated, Backend, backend_of, program_rows
from gentraj.agents.realtime.background import Deadline, SimulatedTime
from gentraj.diffusion import Diffusion, DiffusionConfig, Guided
from gentraj.networks import DiTConfig, NetworkConfig, ResidualMLPConfig, TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=3, act_dim=2, horizon=8)
NETWORKS: dict[str, NetworkConfig] = {
    "unet": TemporalUNetConfig(8, (1, 2), 3, 0), "dit": DiTConfig(16, 1, 2, 0), "mlp": ResidualMLPConfig(16, 1, 0)}


def make(network: str = "mlp", context_dim: int = 0) -> Diffusion:
    config = DiffusionConfig(network=NETWORKS[network], sampler="ddim", steps=2)
    context = Normalizer.identity(context_dim) if context_dim else None
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = Diffusion(SPEC, config, Normalizer.identity(5), context)
        for parameter in model.ema.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))  # a layer of zeros would hide errors
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_openvino_samples_what_the_network_samples(network: str) -> None:
    model = make(network, context_dim=2)
    fast = gentraj.accelerate(model, "openvino")
    plain = Condition.empty(SPEC, 3).with_obs(0, torch.ones(3))
    given = Condition(SPEC, plain.values_BHD, plain.mask_BHD, torch.randn(3, 2))
    for condition, num in ((plain, 1), (given, 1), (plain[:1], 1), (plain, 3)):
        torch.testing.assert_close(fast.sample(condition, num, seed=0), model.sample(condition, num, seed=0),
                                   rtol=1e-3, atol=1e-3)
    body: Any = fast.ema.module.body
    assert isinstance(body, Accelerated) and len(body.programs) == 4  # of 3, 3 with contexts, 1 and 10 rows
    assert not isinstance(model.ema.module.body, Accelerated)


def test_a_call_that_is_differentiated_is_the_networks_own() -> None:
    model = make("unet")
    fast, condition = gentraj.accelerate(model, "openvino"), Condition.empty(SPEC, 3)
    guide = Guided(lambda x: -x.square().sum((1, 2)))  # goes back through the denoiser
    torch.testing.assert_close(fast.sample(condition, guide=guide, seed=0),
                               model.sample(condition, guide=guide, seed=0), rtol=1e-3,
                               atol=1e-3)
    network: Any = gentraj.accelerate(model.ema.module, "openvino")
    x = torch.ones(2, SPEC.horizon, SPEC.dim).requires_grad_()
    known, t = torch.zeros_like(x, dtype=torch.bool), torch.ones(1)
    slopes = [torch.autograd.grad(each(x, 0 * x.detach(), known, t).sum(), x)[0]
              for each in (network, model.ema.module)]
    assert torch.equal(*slopes) and not network.body.programs


def test_a_model_that_is_accelerated_already_takes_another_backend() -> None:
    """It is made of the network itself, and not of the program of the first backend, which cannot be traced."""
    model, condition = make(), Condition.empty(SPEC, 2)
    fast = gentraj.accelerate(model, "openvino")
    again, plain = gentraj.accelerate(fast, "openvino"), gentraj.accelerate(fast, "eager")
    torch.testing.assert_close(again.sample(condition, seed=0), model.sample(condition, seed=0), rtol=1e-3, atol=1e-3)
    assert torch.equal(plain.sample(condition, seed=0), model.sample(condition, seed=0))
    assert backend_of(plain) == "eager"
    assert backend_of(fast) == "openvino"


def test_an_agent_with_a_deadline_and_a_fallback_is_made_of_an_accelerated_run(hopper_run: Path) -> None:
    plain = runs.load(hopper_run)
    fast = gentraj.accelerate(plain, "openvino")
    obs_BO, acts = plain.reference.x_BHD[:1, 0, : plain.data.obs_dim], []
    for each in (plain, fast):
        space, clock = each.action_space(), SimulatedTime()
        agent = each.agent(space, deadline=Deadline(1.0, each.agent(space), clock, clock))
        agent.reset([3])
        acts.append(agent.act(obs_BO))
    torch.testing.assert_close(*acts, rtol=1e-3, atol=1e-3)
    assert [backend_of(each) for each in (plain, fast)] == ["eager", "openvino"]
    with pytest.raises(ValueError, match="a model or a run is accelerated"):
        gentraj.accelerate(agent)  # type: ignore[type-var]


def test_an_accelerated_model_that_is_trained_or_loaded_samples_by_its_new_weights() -> None:
    fast, plain, condition = gentraj.accelerate(make(), "openvino"), make(), Condition.empty(SPEC, 2)
    fast.sample(condition, seed=0)
    x = torch.randn(8, SPEC.horizon, SPEC.dim, generator=generator(0))
    fast.update(TrainingStep(Batch(x, torch.ones_like(x, dtype=torch.bool)), fast.optimizers(), generator(1)))
    plain.load_state_dict(fast.state_dict())
    torch.testing.assert_close(fast.sample(condition, seed=0), plain.sample(condition, seed=0), rtol=1e-3, atol=1e-3)
    fast.load_state_dict(make().state_dict())
    torch.testing.assert_close(fast.sample(condition, seed=0), make().sample(condition, seed=0), rtol=1e-3, atol=1e-3)
    assert (plain.sample(condition, seed=0) - make().sample(condition, seed=0)).abs().max() > 0.01


def test_threads_may_share_an_accelerated_model() -> None:
    """As those of a planner with a deadline and its copies do: each thread has the samples that it has alone."""
    fast, conditions = gentraj.accelerate(make(), "openvino"), Condition.empty(SPEC, 2)
    alone = [fast.sample(conditions, seed=seed) for seed in range(3)]
    anew = gentraj.accelerate(make(), "openvino")  # its programs are made by the threads

    def sampled(seed: int) -> bool:
        return all(torch.equal(anew.sample(conditions, seed=seed), alone[seed]) for _ in range(10))

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(sampled, range(3)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own modules
def test_compile_samples_what_the_network_samples() -> None:
    model = make()
    fast, condition = gentraj.accelerate(model, "compile"), Condition.empty(SPEC)
    torch.testing.assert_close(fast.sample(condition, seed=0), model.sample(condition, seed=0), rtol=1e-3, atol=1e-3)


def test_what_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: Any, *_: Tensor) -> Any:
        return lambda features_RHF, projection_RM: network.body(features_RHF, projection_RM) + 1

    monkeypatch.setitem(BACKENDS, "openvino", Backend(wrong, 1e-4))
    with pytest.raises(ValueError, match=r"openvino differ by .*1.* tolerance of 0.0001"):
        gentraj.accelerate(make()).sample(Condition.empty(SPEC), seed=0)


def test_unknown_backends_and_what_has_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backend 'tensorrt'"):
        gentraj.accelerate(make(), "tensorrt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Linear has no network of trajectories"):
        gentraj.accelerate(torch.nn.Linear(1, 1))
    assert gentraj.accelerate(model := make(), "eager") is model


def test_a_program_has_at_most_a_quarter_more_rows_than_it_computes() -> None:
    assert [program_rows(n) for n in (1, 2, 3, 5, 6, 8, 9, 12, 16, 17, 33, 64)] == [1, 2, 3, 5, 6, 8, 10, 12, 16, 20,
                                                                                 40, 64]
    assert all(n <= program_rows(n) <= 1.25 * n for n in range(1, 2000))
    assert len({program_rows(n) for n in range(129, 257)}) == 4
