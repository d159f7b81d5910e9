"""Samplers are equal, step by step, to the schedulers of `diffusers` given the same network, noise levels and noise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import diffusers as hf
import pytest
import torch
from oracle import DOUBLE, network, normals, predicted, stream
from torch import Tensor

from gentraj.diffusion.paths import PATHS, NoisePath, sampling_times
from gentraj.diffusion.samplers import SAMPLERS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")  # raised inside, at itself
SHAPE = (4, 8, 3)
NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction", "velocity": "flow_prediction", "edm": "epsilon"}
CHAINS = {"vp-cosine": "squaredcos_cap_v2", "vp-linear": "linear"}
Output = Callable[[Tensor], Tensor]


def ours(sampler: str, path: NoisePath, prediction: str, times: Tensor, *, eta: float = 0.0, sigma_data: float = 1.0,
         output: Output = network, normal: Callable[[], Tensor] | None = None) -> list[Tensor]:
    """x after each step, from noise as large as the path's."""
    seen: list[Tensor] = []
    SAMPLERS[sampler](predicted(path, prediction, sigma_data, output), start(path, times), times, path,
                      normal or stream(*SHAPE), eta=eta, observe=lambda x, t: seen.append(x))
    return seen


def start(path: NoisePath, times: Tensor) -> Tensor:
    return path.sigma(times[:1]) * normals(*SHAPE, seed=9)


def theirs(scheduler: Any, sigmas: Tensor, x: Tensor, output: Output = network, **step: Any) -> list[Tensor]:
    """x after each call of a scheduler that is given its noise levels, all but the last of them to be denoised from."""
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.set_begin_index(0)
    scheduler.sigmas, scheduler.is_scale_input_called = sigmas, True
    seen = []
    for t in scheduler.timesteps[: len(sigmas) - 1]:
        x = scheduler.step(output(x), t, x, **step).prev_sample
        seen.append(x)
    return seen


def assert_equal(mine: list[Tensor], others: list[Tensor]) -> None:
    for a, b in zip(mine, others, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def ratio(path: NoisePath, times: Tensor) -> Tensor:
    return path.sigma(times) / path.alpha(times)


def grid(path: NoisePath, steps: int, name: str = "uniform") -> Tensor:
    return sampling_times(path, steps, name).double()


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("steps", [5, 20])
class TestChains:
    """Chains of 20 noise levels; `alphas_cumprod` are ours, the same numbers in float64."""

    def scheduler(self, kind: type, chain: str, prediction: str, steps: int, **more: Any) -> Any:
        made = kind(20, beta_schedule=CHAINS[chain], prediction_type=NAMES[prediction], clip_sample=False,
                    timestep_spacing="trailing", **more)
        made.set_timesteps(steps)
        made.alphas_cumprod = PATHS[chain](20).alpha(torch.arange(1, 21, dtype=DOUBLE) / 20) ** 2
        return made

    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_ddim(self, chain: str, prediction: str, steps: int, eta: float) -> None:
        path, scheduler = PATHS[chain](20), self.scheduler(hf.DDIMScheduler, chain, prediction, steps)
        x, normal, seen = start(path, torch.ones(1, dtype=DOUBLE)), stream(*SHAPE), []
        for n in scheduler.timesteps:
            noise = normal() if eta > 0 else None
            x = scheduler.step(network(x), int(n), x, eta=eta, variance_noise=noise).prev_sample
            seen.append(x)
        assert_equal(ours("ddim", path, prediction, grid(path, steps), eta=eta), seen)


class Multistep(NamedTuple):
    sampler: str
    scheduler: type
    settings: dict[str, Any]


MULTISTEP = [
    Multistep("dpmpp-2m", hf.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    Multistep("dpmpp-2m-sde", hf.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    Multistep("unipc", hf.UniPCMultistepScheduler, {"solver_type": "bh2", "solver_order": 2}),
]


@contextmanager
def their_noise(normal: Callable[[], Tensor], module: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"diffusers.schedulers.{module}.randn_tensor", lambda *args, **kwargs: normal())
        yield


@pytest.mark.parametrize("case", MULTISTEP, ids=lambda case: case.sampler)
@pytest.mark.parametrize(("path", "prediction"), [
    *((path, prediction) for path in ("vp-cosine", "vp-linear") for prediction in ("eps", "x0", "v")),
    ("flow", "x0"), ("flow", "velocity")])
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_multistep(case: Multistep, path: str, prediction: str, steps: int) -> None:
    flow = path == "flow"
    scheduler = case.scheduler(prediction_type=NAMES[prediction], use_flow_sigmas=flow, **case.settings)
    where, times = PATHS[path](), 0.999 * grid(PATHS[path](), steps)  # theirs cannot start where there is no signal
    sigmas = where.sigma(times) if flow else ratio(where, times)
    unit = 2**0.5 if prediction == "velocity" else 1  # d alpha / dt and d sigma / dt are -1 and 1
    with their_noise(stream(*SHAPE), "scheduling_dpmsolver_multistep"):
        other = theirs(scheduler, sigmas, start(where, times), lambda x: unit * network(x))
    eta = 1.0 if case.sampler.endswith("sde") else 0.0
    assert_equal(ours(case.sampler, where, prediction, times, eta=eta), other)


# These work in x / alpha: the path `edm` has alpha = 1. Of x that is in the hundreds theirs keep seven digits.
EDM, EDM_TIMES = PATHS["edm"](), 0.7 * sampling_times(PATHS["edm"](), 12, "karras").double()
SIGMAS = EDM.sigma(EDM_TIMES)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_euler(sampler: str, prediction: str) -> None:
    scheduler = hf.EulerDiscreteScheduler(prediction_type=NAMES[prediction])
    assert_equal(ours(sampler, EDM, prediction, EDM_TIMES), theirs(scheduler, SIGMAS, start(EDM, EDM_TIMES)))


def test_euler_of_the_edm() -> None:
    other = theirs(hf.EDMEulerScheduler(), SIGMAS, start(EDM, EDM_TIMES))
    assert_equal(ours("euler", EDM, "edm", EDM_TIMES, sigma_data=0.5), other)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_heun(prediction: str) -> None:
    scheduler = hf.HeunDiscreteScheduler(prediction_type=NAMES[prediction])
    other = theirs(scheduler, _twice(SIGMAS), start(EDM, EDM_TIMES))
    assert_equal(ours("heun", EDM, prediction, EDM_TIMES), [*other[1::2], other[-1]])


def _twice(sigmas: Tensor) -> Tensor:
    """Heun's schedulers are called twice for each step but the last."""
    return torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_flow_matching(sampler: str, steps: int) -> None:
    flow, times = PATHS["flow"](), grid(PATHS["flow"](), steps)
    output = lambda x: 2**0.5 * network(x)  # noqa: E731
    if sampler == "euler":
        other = theirs(hf.FlowMatchEulerDiscreteScheduler(), times, start(flow, times), output)
    else:
        other = theirs(hf.FlowMatchHeunDiscreteScheduler(), _twice(times), start(flow, times), output)
        other = [*other[1::2], other[-1]]
    assert_equal(ours(sampler, flow, "velocity", times), other)
