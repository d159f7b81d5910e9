"""The support matrix of the manual says what happens: its cells are tried, or the test that tries them is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import prior
from envs.evaluation.stepping import Layout
from gentraj.cli.train import with_components
from gentraj.constraints import Acceleration, Blocks, Box, Circle, Constraints, Equal, Projection, Speed
from gentraj.data.spaces import GOAL_KEYS, act_width, obs_widths
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
from gentraj.families import FAMILIES, family
from gentraj.gan import ConditionalGAN
from gentraj.models.gaussian import Gaussian
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.runs.presets import PRESETS
from gentraj.trajectory import Condition, SamplingOptions, SupportsLogProb, TrajectorySpec

PAGE = (Path(__file__).parents[1] / "docs" / "support.md").read_text()
SPEC = TrajectorySpec(2, 1, 8)
CLASSES: dict[str, Any] = {"diffusion": Diffusion, "flow": Diffusion, "latent": LatentDiffusion, "gan": ConditionalGAN,
                           "gaussian": Gaussian}
WALLS = [Box((-5, -5), (5, 5), dims=(0, 1)), Circle((4, 4), 0.1, dims=(0, 1)), Equal(-1, (0.0, 0.0), dims=(0, 1)),
         Blocks(((3.0, 3.0),), ((3.5, 3.5),), dims=(0, 1)), Projection(lambda x: x),
         Speed(50.0, dims=(0, 1), dt=1.0), Acceleration(50.0, dims=(0, 1), dt=1.0)]


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


OWNERS = {"a planner's `--family`": ["goals", "veteran"],
          "`--family` of BC, IQL, IDQL and Diffusion-QL": ["bc-gaussian", "iql", "idql", "diffusion-ql"],
          "`--family` of FQL, GFP and Swift": ["fql", "gfp", "swift"],
          "a world model's `--family`": ["world-model", "world-ensemble"]}


@pytest.mark.parametrize("row", OWNERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_an_owner_takes_the_families_of_its_row(row: str, name: str) -> None:
    """`gentraj export` of all families is in tests/runs/test_export.py."""
    cell = table("Planners, policies and world models")[row][name]
    for preset in OWNERS[row]:
        if cell == "yes":
            assert family(with_components(PRESETS[preset], name, None).generator) == name
        else:
            with pytest.raises(ValueError, match=re.escape(message(cell))):
                with_components(PRESETS[preset], name, None)


def test_every_owner_is_tried() -> None:
    assert table("Planners, policies and world models").keys() == OWNERS.keys() | {"`gentraj export`"}
    assert "has no density" in Path(prior.__file__).read_text()


def test_timesteps_that_are_not_evenly_spaced_are_refused_by_what_needs_even_ones() -> None:
    """The options of the last row are tried in test_history.py and test_density.py."""
    even, uneven = TrajectorySpec(2, 1, 8, 4), TrajectorySpec(2, 1, 8, offsets=(1, 2, 4, 8, 16, 32, 64))
    certificate = lambda spec, walls: Constraints(spec, walls).certificate(torch.zeros(1, 8, 3))  # noqa: E731
    assert certificate(even, WALLS) is not None
    refusals = [partial(model, "latent", uneven), *(partial(certificate, uneven, [wall]) for wall in WALLS[-2:])]
    for refused in refusals:
        with pytest.raises(ValueError, match=re.escape(message("no (6)"))):
            refused()
    assert certificate(uneven, WALLS[:-2]) is not None


VECTOR, MATRIX, IMAGE = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2, 3)), spaces.Box(0, 255, (8, 8), np.uint8)
SPACES = {  # observations and actions
    "a vector (1-D `Box`)": [(VECTOR, VECTOR)],
    "a dict with `observation`, `achieved_goal`, `desired_goal`": [
        (spaces.Dict(dict.fromkeys(GOAL_KEYS, VECTOR)), VECTOR)],
    "another dict of Boxes of up to two dimensions, flattened": [
        (spaces.Dict(a=MATRIX, b=spaces.Box(-1, 1, ())), VECTOR)],
    "images, discrete observations, nested dicts": [
        (space, VECTOR) for one in (IMAGE, spaces.Discrete(3), spaces.Dict(a=VECTOR))
        for space in (spaces.Dict(state=VECTOR, other=one), one) if space != spaces.Dict(a=VECTOR)],
    "discrete actions": [(VECTOR, spaces.Discrete(3)), (VECTOR, spaces.MultiDiscrete([2, 3]))]}


def in_environment(obs: spaces.Space, act: spaces.Space) -> None:
    env = gymnasium.Env()
    env.observation_space, env.action_space, env.spec = obs, act, None
    Layout.of(env)


def in_minari(obs: spaces.Space, act: spaces.Space) -> None:
    obs_widths("data", obs)
    act_width("data", act)


@pytest.mark.parametrize(("column", "trial"), [("an environment", in_environment), ("a Minari dataset", in_minari)])
def test_spaces_are_taken_or_refused_as_the_table_says(column: str, trial: Callable[..., None]) -> None:
    rows = table("Observations and actions")
    assert rows.keys() == SPACES.keys()
    for row, tried in SPACES.items():
        for obs, act in tried:
            if rows[row][column] == "yes":
                trial(obs, act)
            else:
                with pytest.raises(ValueError, match=f"space .*{message(rows[row][column])}"):
                    trial(obs, act)
