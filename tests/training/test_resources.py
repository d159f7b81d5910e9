"""A training with compiled networks is the same training: it resumes bit for bit, and saves under the same names."""

import ctypes
import resource
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked

from gentraj.data import Episodes
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.gan import ConditionalGAN, GANConfig
from gentraj.networks import ResidualMLPConfig
from gentraj.networks.discriminator import DiscriminatorConfig
from gentraj.networks.perceptron import ResidualMLP
from gentraj.normalize import Normalizer
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData, loop
from gentraj.training.checkpoint import load
from gentraj.trajectory import TrajectorySpec

SPEC, NETWORK = TrajectorySpec(2, 1, 4), ResidualMLPConfig(8, 1, frequencies=0)


def run(folder: Path, *, compile: bool, resume: bool = False, gan: GANConfig | None = None,
        ) -> Diffusion | ConditionalGAN:
    rng, ends = np.random.default_rng(0), np.arange(20) == 19
    data = Episodes(rng.normal(size=(21, 2)), rng.normal(size=(20, 1)), rng.normal(size=20), terminated=ends,
                    truncated=np.zeros(20, bool), lengths=np.array([20]))
    torch.manual_seed(0)
    model = (Diffusion(SPEC, DiffusionConfig(NETWORK), Normalizer.identity(3), batch_size=8) if gan is None else
             ConditionalGAN(SPEC, gan, Normalizer.identity(3), batch_size=8))
    settings = TrainingConfig(steps=6, save_every=2, keep=9, compile=compile, warmup=0)
    Trainer({"model": model}, TrainingData(data), settings, RunStore(folder), progress=False).fit(resume)
    return model


@pytest.fixture(autouse=True)
def graphs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces and differentiates graphs as always, and runs them without machine code, which takes long to compile."""
    monkeypatch.setattr(loop, "COMPILER", "aot_eager")


def test_it_trains_the_same_weights_under_the_same_names(tmp_path: Path) -> None:
    eager, compiled = run(tmp_path / "eager", compile=False), run(tmp_path / "compiled", compile=True)
    assert eager.state_dict().keys() == compiled.state_dict().keys()
    torch.testing.assert_close(dict(eager.state_dict()), dict(compiled.state_dict()), rtol=1e-4, atol=1e-6)


def test_it_resumes_with_the_same_bits(tmp_path: Path) -> None:
    run(tmp_path, compile=True)
    whole = load(tmp_path).components
    for late in tmp_path.glob("step-*"):
        if late.name > "step-00000002":
            late.rename(tmp_path / f"gone-{late.name}")
    run(tmp_path, compile=True, resume=True)
    again = load(tmp_path).components
    assert all(torch.equal(tensor, again[part][name]) for part in whole for name, tensor in whole[part].items())


def test_a_gan_trains_whose_penalties_differentiate_the_gradient_of_its_discriminator(tmp_path: Path) -> None:
    config = GANConfig(NETWORK, DiscriminatorConfig(8, (1,), 1, 0))
    run(tmp_path, compile=True, gan=config)
    assert load(tmp_path).step == 6


def test_a_network_that_cannot_be_compiled_is_computed_as_it_is_and_a_line_says_so(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler(*_: object, **__: object) -> None:
        raise FileNotFoundError("no g++")

    eager = run(tmp_path / "eager", compile=False)
    monkeypatch.setattr(loop, "COMPILER", compiler)
    with pytest.warns(UserWarning, match=r"no g\+\+") as said:
        compiled = run(tmp_path / "compiled", compile=True)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert all(torch.equal(x, compiled.state_dict()[name]) for name, x in eager.state_dict().items())


def test_a_network_that_fails_by_itself_fails_when_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResidualMLP, "forward", lambda *_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        run(tmp_path, compile=True)


GLIBC = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")


def faults(mebibytes: int) -> int:
    """The least number of pages that the system hands out in a computation with arrays of this size, which is done
    some times."""
    def once() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        x = torch.ones(mebibytes * 2**18)
        for _ in range(3):
            x = x + 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return min(once() for _ in range(6))


@GLIBC
def test_a_step_like_the_one_before_asks_the_system_for_no_pages() -> None:
    """Freed memory is used again, without the system handing out its pages anew."""
    with loop.freed_memory_kept():
        assert faults(4) < 100


def faults_around() -> None:
    """Prints the faults before and after a training, in a process that has freed a large block before."""
    torch.ones(30 * 2**18)
    for kept in (nullcontext(), loop.freed_memory_kept()):
        with kept:
            pass
        print(*(faults(mebibytes) for mebibytes in (1, 4, 12, 24)))


@GLIBC
def test_nothing_is_slower_after_a_training_than_before() -> None:
    """Arrays are not mapped anew that were not before."""
    with Forked(faults_around) as process:
        printed, errors = process.communicate()
    before, after = ([int(word) for word in line.split()] for line in printed.splitlines())
    assert errors == "" and before[0] < 100
    assert all(after <= before + 100 for before, after in zip(before, after, strict=True))
