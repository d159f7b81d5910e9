"""The reference of every public name, from the docstrings.

Public is what a package lists in `__all__`, and what `MORE` names of modules without one. A name is shown once, under
its shortest path, on the page of the folder that defines it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]
MORE: dict[str, tuple[str, ...]] = {
    "gentraj.cli": ("main",),
    "gentraj.config": ("ConfigError", "Registry"),
    "gentraj.diffusion.paths": ("PATHS", "NoisePath"),
    "gentraj.diffusion.samplers": ("SAMPLERS", "Sampler", "Step", "steps_along"),
    "gentraj.experiments.statistics": ("Estimate", "difference", "interquartile_mean", "probability_of_improvement"),
    "gentraj.families": ("FAMILIES",),
    "gentraj.models.conditional": ("ConditionalModel",),
    "gentraj.models.conditioning": ("ConditionMix",),
    "gentraj.models.gaussian": ("GaussianConfig", "Gaussian"),
    "gentraj.models.mip": ("MIPConfig", "MIP"),
    "gentraj.models.model": ("TrajectoryModel",),
    "gentraj.models.sampling": ("Plugin", "Preference", "SampledRows", "Denoising"),
    "gentraj.normalize": ("Normalizer",),
    "gentraj.plots.figures": ("plot_paths", "plot_candidates"),
    "gentraj.randomness": ("fold", "generator"),
    "gentraj.runs.kinds.environment": ("make_vec",),
    "gentraj.testing": ("check_model", "check_policy", "check_sampler"),
    "gentraj.training.checkpoint": ("CheckpointError", "NothingSaved", "RunLocked", "load", "save"),
    "gentraj.training.step": ("Trainable",),
    "gentraj.trajectory": ("TrajectorySpec", "Batch", "Condition", "cat", "SamplingOptions", "DEFAULT_OPTIONS",
                           "SupportsLogProb", "SupportsScore", "SupportsOODScore",
                           "Limits", "Agent"),
    "gentraj.worlds.model": ("WorldModelConfig", "WorldModel", "Imagined", "Calibration"),
    "gentraj.envs.tasks.registry": ("TASKS", "Task", "MazeTask", "LocomotionTask", "OGBenchTask"),
}
PAGES = {  # a folder or module: the page of what is defined there; the longest that fits counts
    "gentraj": ("core", "Trajectories and settings"),
    "gentraj.runs": ("runs", "Runs"),
    "gentraj.data": ("data", "Data"),
    "gentraj.networks": ("networks", "Networks"),
    "gentraj.training": ("training", "Training"),
    "gentraj.models": ("models", "Models"),
    "gentraj.families": ("models", "Models"),
    "gentraj.diffusion": ("diffusion", "Diffusion and flow"),
    "gentraj.gan": ("gan", "GANs"),
    "gentraj.distillation": ("distillation", "Few-step students"),
    "gentraj.constraints": ("constraints", "Constraints"),
    "gentraj.metrics": ("metrics", "Metrics"),
    "gentraj.acceleration": ("acceleration", "Acceleration"),
    "gentraj.worlds": ("worlds", "World models"),
    "gentraj.experiments": ("experiments", "Experiments"),
    "gentraj.plots": ("plots", "Plots"),
    "gentraj.testing": ("testing", "Checks for your own classes"),
    "gentraj.agents": ("agents", "Agents"),
    "gentraj.agents.planning": ("planning", "Planning"),
    "gentraj.agents.policies": ("policies", "Policies"),
    "gentraj.envs": ("envs", "Environments"),
}


@cache
def public() -> Mapping[str, griffe.Object]:
    """Every public name by its shortest path, in the order of the files."""
    loader = griffe.GriffeLoader(search_paths=[ROOT])
    loader.load("gentraj")
    loader.resolve_aliases(implicit=True, external=False)
    paths: dict[str, str] = {}
    for module in _modules(loader.modules_collection["gentraj"]):
        listed = MORE.get(module.path, ()) + tuple(map(str, module.exports or ()))
        for name in sorted(set(listed), key=list(module.members).index):
            home = module.members[name].canonical_path
            if loader.modules_collection[home].is_module:  # a function of the name of its module, which it hides
                home = f"{home}.{name}"
            paths[home] = min(paths.get(home, f"{module.path}.{name}"), f"{module.path}.{name}", key=len)
    return {path: loader.modules_collection[home] for home, path in paths.items()}


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for each in module.modules.values():
        if not each.is_alias:
            yield from _modules(each)


def page_of(home: str) -> str:
    """The page of what is defined under this path."""
    return PAGES[max((room for room in PAGES if f"{home}.".startswith(f"{room}.")), key=len)][0]


def pages() -> dict[str, str]:
    """The Markdown of each page of the reference; mkdocstrings fills it from the docstrings."""
    titles = dict(PAGES.values())
    found: dict[str, list[tuple[str, griffe.Object]]] = {name: [] for name in titles}
    for path, target in public().items():
        found[page_of(target.canonical_path)].append((path, target))
    index = [f"# Every public name\n\n{len(public())} names can be imported by these paths.\n"]
    for name, listed in found.items():
        index.append(f"\n## {titles[name]}\n\n")
        index += [f"- [`{path}`][{path}]: {first_sentence(target)}\n" for path, target in listed]
    return {"index": "".join(index)} | {
        name: f"# {titles[name]}\n\n{''.join(entry(path, target) for path, target in listed)}"
        for name, listed in found.items()}


def entry(path: str, target: griffe.Object) -> str:
    """What mkdocstrings replaces by the section of a name."""
    if target.modules_collection[path].is_module:  # it would take the module that the function hides
        return f"[](){{#{path}}}\n\n::: {target.path}\n    options:\n      heading: {path}\n\n"
    return f"::: {path}\n\n"


def first_sentence(target: griffe.Object) -> str:
    text = " ".join(target.docstring.value.split("\n\n")[0].split()) if target.docstring else ""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]
