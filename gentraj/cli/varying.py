"""Settings that a command varies, as they are given on the command line: KEY=V1,V2 with the keys of `gentraj train`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from ..config import check_known, from_word, kind_of, to_json, to_word
from ..experiments.cards import Card, CardData
from ..experiments.sweep import BASE, DATA
from ..families import FAMILIES, family
from ..networks import NETWORKS
from ..runs.presets import PRESETS, data_settings, model_config, suited, with_components
from ..runs.run import RunConfig

COMPONENTS = {"family": FAMILIES, "network": NETWORKS}


def base_card(preset: str, dataset: str, env_id: str | None, steps: int | None, **scoring: Any) -> Card:
    """The card of a preset on a dataset, by default the preset's own, with `scoring`: seeds, episodes, protocol, score.

    Raises ValueError for an unknown preset, without a dataset, and if the file of the dataset is missing.
    """
    check_known([preset], PRESETS, "preset")
    preset = suited(preset, dataset)
    if not (dataset := dataset or PRESETS[preset].dataset):
        raise ValueError(f"preset '{preset}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    settings = data_settings(preset, dataset) | ({} if steps is None else {"training.steps": steps})
    return Card("Variants of a preset.", "Variants", BASE, preset, settings,
                (CardData(DATA, dataset, env_id, None, None),), **scoring)


def varied_card(base: Card, settings: Mapping[str, Any], option: str) -> Card:
    """The card of the base with other settings. Raises ValueError, which names the option, for what it cannot have."""
    card = replace(base, settings=base.settings | changed(base.preset, settings, option))
    card.without_data(f"{option} {', '.join(settings)}")
    return card


def values(text: str) -> list[Any]:
    """The values of "V1,V2"; commas within brackets do not separate values."""
    return [from_word(word) for word in re.split(r",(?![^\[{]*[\]}])", text)]


def split(text: str, option: str) -> tuple[str, str]:
    """KEY and VALUES of "KEY=VALUES". Raises ValueError, which names the option, for other text."""
    key, equals, given = text.partition("=")
    if not (key and equals and given):
        raise ValueError(f"{option} is '{text}'; KEY=V1,V2 is expected, such as planner.candidates=1,16")
    return key, given


def changed(preset: str, settings: Mapping[str, Any], option: str) -> dict[str, Any]:
    """The settings of a card that differ from the preset in these, by dotted key; `family` and `network` are
    components with settings of their own.

    Raises ValueError, which names the option, for an unknown key, and suggests similar ones.
    """
    config, groups = PRESETS[preset], to_json(PRESETS[preset])
    for key in COMPONENTS.keys() & settings.keys():
        check_known([to_word(settings[key])], COMPONENTS[key], key)
    other_groups = to_json(with_components(config, settings.get("family"), settings.get("network")))
    found = {name: other_groups[name] for name, group in groups.items() if other_groups[name] != group}
    keys = list(dotted(other_groups))
    for key, value in settings.items():
        if key in COMPONENTS:
            continue
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"gentraj train {preset} --help lists them"
            raise ValueError(f"{option}: {preset} has no setting '{key}'; {hint}")
        found[key] = value
    return found


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the dotted key of every setting and of every group of settings."""
    for name, value in settings.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")


def at(config: RunConfig, key: str) -> Any:
    """The value of a setting as JSON; the name of the family or network for `family` and `network`."""
    generator = model_config(config)
    if key == "family":
        return None if generator is None else family(generator)
    if key == "network":
        return None if generator is None else kind_of(generator.network)
    return reduce(dict.__getitem__, key.split("."), to_json(config))
