"""What works in the background has a stream of its own: PyTorch's sanitizer finds no race of it with decisions.

The sanitizer knows what each operation reads and writes, and which operations are ordered: those of one stream, and
those before and after a wait. Jobs are done at once, or as late as they can be, after all that is decided meanwhile.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from simulated_device import SimulatedStream, current_stream, stream_listeners
from test_training_on_a_device import DEVICE, narrow
from torch.cuda._sanitizer import FACTORY_FUNCTION_REGEX, ArgumentHandler, EventHandler
from torch.utils._python_dispatch import TorchDispatchMode

from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.sampler import PlannerConfig, PlanSampler
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.planning.trust import Trust
from gentraj.agents.policies import PRESETS
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BC
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.realtime.background import Deadline
from gentraj.agents.realtime.planner import RealTimePlanner
from gentraj.agents.realtime.policy import RealTimeActor
from gentraj.device import constant
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.denoiser import levels_at
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.trajectory import Agent, Batch, TrajectorySpec


class Races(TorchDispatchMode):
    """Raises where an operation of one stream may read what another has not written yet, or change what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.order, self.kept = EventHandler(), list[object]()

    def told(self, kind: str, stream: SimulatedStream, other: SimulatedStream | None) -> None:
        if other is None:
            self.order._handle_stream_synchronization(stream.cuda_stream)
        else:
            self.order._handle_event_record(0, other.cuda_stream)
            self.order._handle_event_wait(0, stream.cuda_stream)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
        factory, touched = bool(FACTORY_FUNCTION_REGEX.match(func._schema.name)), ArgumentHandler()
        touched.parse_inputs(func._schema, args, kwargs or {}, is_factory=factory)
        made = func(*args, **kwargs or {})
        self.kept.append(made)  # so that no memory is used again
        touched.parse_outputs(func._schema, made, is_factory=factory)
        errors = self.order._handle_kernel_launch(
            current_stream().cuda_stream, touched.dataptrs_read - touched.dataptrs_written, touched.dataptrs_written,
            touched.outputs, func._schema, touched.tensor_aliases)
        assert not errors, "\n".join(map(str, errors))
        return made


@contextmanager
def no_races() -> Iterator[None]:
    races = Races()
    stream_listeners.append(races.told)
    try:
        with races:
            yield
    finally:
        stream_listeners.remove(races.told)


class Late(Future[Any]):
    """Is done when somebody waits for it."""

    work: Callable[[], object]

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self.set_result(self.work())
        return super().result(timeout)


class InOneThread(Executor):
    def __init__(self, late: bool):
        self.late = late

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        job = Late()
        job.work = lambda: fn(*args, **kwargs)
        if not self.late:
            job.result()
        return job


def planner(executor: Executor) -> Agent:
    """One that chooses the earliest trusted arrival and follows its plans by inverse dynamics."""
    spec = TrajectorySpec(4, 0, 8)
    flow = DiffusionConfig(ResidualMLPConfig(8, 1, 0), "flow", None, "velocity")
    model = Diffusion(spec, flow, Normalizer.identity(4)).to(DEVICE)
    x = torch.randn(32, 8, 4, generator=generator(0)).cumsum(1)
    trust = Trust(model, Batch(x, torch.ones_like(x, dtype=torch.bool)).to(DEVICE), 0.98, goal_dims=(0, 1))
    config = PlannerConfig(goal_dims=(0, 1), rest_dims=(2, 3), replan=2, steps=4)
    inverse = InverseDynamics.blank(4, 2, narrow(InverseDynamicsConfig()), (0, 1)).to(DEVICE)
    tracker = PlanTracker(spec, config, -np.ones(2), np.ones(2), inverse)
    return RealTimePlanner(PlanSampler(model, config, trust), tracker, Deadline(0.05, executor=executor))


def policy(executor: Executor) -> Agent:
    config = narrow(PRESETS["diffusion-policy"][1])
    made = BC(config, StateActionScales.blank(4, 2, 2)).to(DEVICE)
    return RealTimeActor(Actor(made, -np.ones(2), np.ones(2)), Deadline(0.05, executor=executor))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("make", [planner, policy])
def test_what_is_made_in_the_background_races_with_no_decision(make: Callable[[Executor], Agent], late: bool) -> None:
    with no_races():
        agent = make(InOneThread(late))
        agent.reset([0])
        for _ in range(8):
            assert agent.act(torch.zeros(1, 4), torch.full((1, 2), 5.0)).abs().max() <= 1


def test_what_is_made_once_is_there_for_every_stream() -> None:
    other = torch.cuda.Stream(DEVICE)
    model = Diffusion(TrajectorySpec(4, 0, 8), DiffusionConfig(ResidualMLPConfig(8, 1, 0)), Normalizer.identity(4))
    with no_races():
        numbers = constant((0.125, 17.0), DEVICE, torch.float32)
        with torch.cuda.stream(other):
            numbers.clone()
        levels = levels_at(model.path, torch.tensor([0.875, 0.125]), 1.0, DEVICE)
        rates = [level.rates for level in levels.values()]
        with torch.cuda.stream(other):
            for level, (d_alpha, d_sigma) in zip(levels.values(), rates, strict=True):
                assert (level.alpha * level.sigma + d_alpha * d_sigma).is_cuda


@pytest.mark.parametrize("waits", [False, True])
def test_the_sanitizer_finds_what_another_stream_has_not_made_yet(waits: bool) -> None:
    other = torch.cuda.Stream(DEVICE)
    with no_races():
        x = torch.ones(3, device=DEVICE) + 1
        if waits:
            other.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(other):
            if waits:
                x.neg()
            else:
                with pytest.raises(AssertionError, match="data race"):
                    x.neg()
