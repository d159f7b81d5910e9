"""The support matrix of the manual says what happens: each cell of its first two tables is tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import prior
from gentraj.constraints import Blocks, Box, Circle, Constraints, Equal, Speed
from gentraj.diffusion import (
    ClassifierFree,
    Constrained,
    Contexts,
    Diffusion,
    DiffusionConfig,
    Energy,
    LatentDiffusion,
    NearestData,
    Product,
)
from gentraj.families import FAMILIES
from gentraj.gan import ConditionalGAN
from gentraj.models.gaussian import Gaussian
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.trajectory import Condition, SamplingOptions, SupportsLogProb, TrajectorySpec

PAGE = (Path(__file__).parents[1] / "docs" / "support.md").read_text()
SPEC = TrajectorySpec(2, 1, 8)
CLASSES: dict[str, Any] = {"diffusion": Diffusion, "flow": Diffusion, "latent": LatentDiffusion, "gan": ConditionalGAN,
                           "gaussian": Gaussian}
WALLS = [Box((-5, -5), (5, 5), dims=(0, 1)), Circle((4, 4), 0.1, dims=(0, 1)), Equal(-1, (0.0, 0.0), dims=(0, 1)),
         Blocks(((3.0, 3.0),), ((3.5, 3.5),), dims=(0, 1)), Speed(50.0, dims=(0, 1), dt=1.0)]


def energy(x: torch.Tensor) -> torch.Tensor:
    return -(x**2).sum((1, 2))


@cache
def model(family: str, spec: TrajectorySpec = SPEC) -> Any:
    config: Any = FAMILIES[family].with_network(ResidualMLPConfig(8, 1))
    return CLASSES[family](spec, config, Normalizer.identity(spec.dim), Normalizer.identity(1))


def sample(family: str, guide: Any = None, *, context: bool = False, **options: Any) -> torch.Tensor:
    condition = replace(Condition.unknown(SPEC), context_BC=torch.zeros(1, 1) if context else None)
    return model(family).sample(condition, 2, guide=guide, **options)


def product() -> Product:
    config = DiffusionConfig(ResidualMLPConfig(8, 1))
    return Product([Diffusion(SPEC, config, Normalizer.identity(3), Normalizer.identity(1))], [0.5])


def density(family: str) -> None:
    if not isinstance(model(family), SupportsLogProb):
        raise ValueError("A GAN and latent diffusion have no member `log_prob`")
    model(family).log_prob(torch.zeros(1, 8, 3), Condition.unknown(SPEC), steps=1)


TRIALS: dict[str, list[Callable[[str], Any]]] = {
    "an energy (a function)": [lambda family: sample(family, energy), lambda family: sample(family, Energy(energy))],
    '`Energy(..., at="noisy")`': [lambda family: sample(family, Energy(energy, at="noisy"))],
    "`ClassifierFree`, `Contexts`": [lambda family: sample(family, ClassifierFree(1.5), context=True),
                                     lambda family: sample(family, Contexts([(torch.zeros(1), 1.0)]))],
    "`Product`, `NearestData`": [lambda family: sample(family, product()),
                                 lambda family: sample(family, NearestData(torch.randn(64, 8, 3)))],
    "`Constrained`, with any constraint": [
        lambda family: sample(family, Constrained(Constraints(SPEC, WALLS), strict=False))],
    "`log_prob`": [density],
    "ood score of each timestep": [
        lambda family: model(family).ood_score(torch.zeros(1, 8, 3), Condition.unknown(SPEC), [0])],
        "`--sampler`, `--grid`, `--eta`": [lambda family: sample(family, options=SamplingOptions(sampler="heun")),
                                       lambda family: sample(family, options=SamplingOptions(grid="karras")),
                                       lambda family: sample(family, options=SamplingOptions(eta=0.5))],
    "a context (`--context.kinds`)": [lambda family: sample(family, context=True)],
}


def table(title: str) -> dict[str, dict[str, str]]:
    """The cells of the first table under a heading, by row and column."""
    lines = [line for line in PAGE.partition(f"## {title}")[2].partition("\n## ")[0].splitlines() if line[:1] == "|"]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


TITLES = "Guides and constraints in `sample`", "Densities, scores and sampling options"
CELLS = [(row, family, cell) for title in TITLES
         for row, cells in table(title).items() for family, cell in cells.items()]


def test_every_row_of_the_first_two_tables_is_tried() -> None:
    assert {row for row, *_ in CELLS} == TRIALS.keys() and {family for _, family, _ in CELLS} == FAMILIES.keys()


@pytest.mark.parametrize(("row", "family", "cell"), CELLS)
def test_a_cell_says_what_happens(row: str, family: str, cell: str) -> None:
    for trial in TRIALS[row]:
        if cell == "yes":
            trial(family)
        else:
            with pytest.raises(ValueError, match=re.escape(message(cell))):
                trial(family)


def message(cell: str) -> str:
    """What the page says that the error says, by its number."""
    number = re.fullmatch(r"no \((\d+)\)", cell)
    assert number, cell
    [(quoted, plain)] = re.findall(rf"^{number[1]}\. (?:`(.*?)`|(A .* have no member `log_prob`))", PAGE, re.MULTILINE)
    return quoted or plain


def test_a_generator_of_actions_is_no_latent_one_and_a_gan_s_has_no_density(capsys: pytest.CaptureFixture) -> None:
    from small import gentraj

    assert table("Owners")["a policy's `--family`"]["latent"] == "no (5)"
    assert gentraj("train", "bc-diffusion", "--family", "latent", "--dataset", "a.npz", "--run-dir", "never") == 2
    assert message("no (5)") in capsys.readouterr().err
    assert "has no density" in Path(prior.__file__).read_text()


def test_rows_that_are_not_evenly_apart_are_refused_by_what_needs_even_ones() -> None:
    uneven = TrajectorySpec(2, 1, 8, offsets=(1, 2, 4, 8, 16, 32, 64))
    x = torch.zeros(1, 8, 3)
    for refused in (lambda: model("latent", uneven), lambda: Constraints(uneven, WALLS[-1:]).certificate(x)):
        with pytest.raises(ValueError, match=re.escape(message("no (6)"))):
            refused()
    assert Constraints(uneven, WALLS[:-1]).certificate(x) is not None
