"""The generative model in the settings of a run: which it is, and the settings with another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, get_type_hints

from ..config import check_known
from ..diffusion import DiffusionConfig
from ..families import ModelConfig, family
from ..networks import NETWORKS, NetworkConfig
from .folder import run_class
from .planner import PlannerRunConfig
from .run import RunConfig


def model_config(config: RunConfig) -> ModelConfig | None:
    """The settings of the generative model; None for a run without one."""
    return attrgetter(run_class(config).MODEL)(config)


def with_model(config: RunConfig, model: ModelConfig) -> RunConfig:
    """The settings with another generative model. Raises ValueError for one that such a run cannot have.

    A planner's model of another family is trained as usual for that family, on the same conditions, and a critic of
    noisy plans becomes one of clean plans if the new family has no noise.
    """
    if isinstance(config, PlannerRunConfig) and type(model) is not type(config.model):
        critic = config.critic
        if critic is not None and not isinstance(model, DiffusionConfig):
            critic = replace(critic, noise_fraction=0.0)
        return replace(config, model=model, critic=critic, normalizer="limits", context_dropout=model.CONTEXT_DROPOUT,
                       batch_size=model.BATCH_SIZE)
    return _with_model(config, run_class(config).MODEL.split("."), model)


def _with_model(owner: Any, keys: Sequence[str], model: ModelConfig) -> Any:
    name, *rest = keys
    if rest:
        return replace(owner, **{name: _with_model(getattr(owner, name), rest, model)})
    if getattr(owner, name) is None or not isinstance(model, get_type_hints(type(owner))[name]):
        raise ValueError(f"a {type(owner).__name__} cannot act by a model of the family {family(model)}; leave --model "
                         "out, or take another preset")
    return replace(owner, **{name: model})


def with_components(config: RunConfig, model: str | None, network: str | None) -> RunConfig:
    """The settings with the generative model and the network of these names, with the defaults for such a run.

    Raises ValueError for names that the settings cannot have.
    """
    if model is not None:
        known = run_class(config).MODELS
        check_known([model], known, "model for this preset")
        config = with_model(config, known[model])
    if network is not None:
        check_known([network], NETWORKS, "network")
        made, _ = NETWORKS[network]
        generator = model_config(config)
        if generator is None:
            raise ValueError(f"--network is {network}, but this preset has no generative model; leave it out")
        if not isinstance(generator.network, made):
            other: NetworkConfig = made()
            config = with_model(config, generator.with_network(other))
    return config
