"""`gentraj sweep`: a preset with many settings, as cards that `reproduce` trains and scores, on a page with the best
first: all combinations of their values, or one setting at a time."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..config import check_known, read_json, to_json, to_word, write_json
from ..device import pick_device
from ..families import FAMILIES
from ..networks import NETWORKS
from ..progress import say
from ..randomness import for_choosing
from ..runs.kinds.folder import acts_only
from ..runs.kinds.presets import PRESETS, data_settings, with_components
from ..runs.kinds.run import RunConfig
from ..runs.learn.training import train
from ..training.log import read_metrics
from .cards import Card, CardData, CardResult, common_settings, run_settings
from .engine import digest, training_settings
from .page import write_page
from .pools import Pool
from .reproduce import Cards, reproduce

BASE = "the preset"
COMPONENTS = {"family": FAMILIES, "network": NETWORKS}
PACE_STEPS = 60  # of the training whose pace says how many steps fit into so many minutes
PACE_BLOCK = 10  # steps that are timed together
HEAD = """# {preset} on {dataset}, {settings} settings

The best of many is partly luck: train it again with other seeds before you report it. `gentraj evaluate`, `compare`
and `reproduce` score it in other episodes than these."""

Values = dict[str, object]  # a value for each key that is varied


# -- what is tried


def trials_of(space: Mapping[str, Sequence[object]], one_at_a_time: bool = False) -> list[Values]:
    """What is tried of the values of each key: all combinations; or else nothing, and each value alone."""
    if one_at_a_time:
        return [{}, *({key: value} for key, values in space.items() for value in values)]
    return [dict(zip(space, each, strict=True)) for each in itertools.product(*space.values())]


# -- the cards of what is tried


def base_card(preset: str, dataset: str, env_id: str | None, steps: int | None = None, **scoring: Any) -> Card:
    """The card of a preset on a dataset, by default the preset's own, with `scoring`: seeds, episodes, protocol, score.
    Its episodes are for choosing.

    Raises ValueError for an unknown preset, without a dataset, and if the file of the dataset is missing.
    """
    check_known([preset], PRESETS, "preset")
    dataset = dataset or PRESETS[preset].dataset
    if not dataset:
        raise ValueError(f"preset '{preset}' needs dataset=ID_OR_FILE; `gentraj data list` shows those here")
    settings = data_settings(preset, dataset) | ({} if steps is None else {"training.steps": steps})
    card = Card("Variants of a preset.", preset, BASE, preset, settings, (CardData("data", dataset, env_id),),
                episode_seed=for_choosing(0), **scoring)
    run_settings(card, card.data[0], seed=0, where=f"preset {preset}")  # raises if the file is missing
    return card


def varied_card(base: Card, values: Values) -> Card:
    """The card of the base with other settings, which name its row. Raises ValueError for what it cannot have."""
    card = replace(base, settings=base.settings | changed(base.preset, values), label=label_of(values))
    common_settings(card, f"preset {base.preset}")
    return card


def label_of(values: Values) -> str:
    """The values in words."""
    return " ".join(f"{key}={to_word(value)}" for key, value in values.items()) or BASE


def file_name(label: str) -> str:
    """A label as a name of files, of at most 60 characters."""
    return re.sub(r"[^0-9A-Za-z_.=+-]+", "_", label)[:60]


def is_trained(key: str, config: RunConfig) -> bool:
    """Whether a training depends on the setting of this dotted key, and not only how the agent acts."""
    return not any(f"{key}.".startswith(f"{acting}.") for acting in acts_only(config))


def steps_within(minutes: float, config: RunConfig, out: Path, device: str | None) -> int:
    """The training steps that fit into so many minutes, from the pace of a short training, which is measured once and
    kept in `out`: its median, as caches fill at first, and a discriminator need not learn in each step."""
    file = out / f"pace-{digest(training_settings(config))[:8]}.json"
    if not file.is_file():
        short = replace(config, training=replace(config.training, steps=PACE_STEPS, log_every=PACE_BLOCK))
        with TemporaryDirectory() as folder:
            run = train(short, folder=Path(folder) / "run", device=pick_device(device), progress=False)
            _, *rows = read_metrics(run.folder)
        seconds = statistics.median(row["seconds"] for row in rows) / PACE_BLOCK
        write_json(file, {"seconds_per_step": seconds})
    return max(1, round(60 * minutes / read_json(file)["seconds_per_step"]))


def changed(preset: str, settings: Values) -> dict[str, Any]:
    """The settings of a card that differ from the preset in these, by dotted key; `family` and `network` are components
    with settings of their own. Raises ValueError for unknown components."""
    named = {key: to_word(settings[key]) for key in COMPONENTS if key in settings}
    for key, name in named.items():
        check_known([name], COMPONENTS[key], key)
    before = to_json(PRESETS[preset])
    after = to_json(with_components(PRESETS[preset], named.get("family"), named.get("network")))
    groups = {name: group for name, group in after.items() if group != before[name]}
    return groups | {key: value for key, value in settings.items() if key not in COMPONENTS}


# -- the experiment


def sweep(base: Card, tried: Sequence[Values], out: Path, pool: Pool, device: str | None,
          minutes: float | None = None) -> tuple[dict[str, str], dict[str, CardResult]]:
    """Trains and scores the base with each of these values, as far as it is not done yet, each for the base's steps, or
    for as many as it makes in so many `minutes` when nothing runs beside it.

    Writes a result of each into out/results, and sweep.md, where the other rows are compared with the base if it is
    among them. Trials that differ only in how they act share a training. Returns why runs failed, by their names, and
    the results.
    """
    cards = {}
    trainings = {}
    for values in tried:
        card = varied_card(base, values)
        config = run_settings(card, card.data[0], seed=0, where=f"preset {base.preset}")
        if minutes is not None:
            steps = steps_within(minutes, config, out, device)
            card = replace(card, settings=card.settings | {"training.steps": steps})
        name = f"{file_name(card.label)}-{digest(values)[:6]}"
        cards[name] = card
        trainings[name] = file_name(label_of({key: value for key, value in values.items() if is_trained(key, config)}))
    made = Cards.of(cards, (), lambda name, _, seed: out / f"{trainings[name]}-seed-{seed}")
    failures, results = reproduce(made, out / "results", pool, device)
    results = {name: result for name, result in results.items() if result.data}
    if results:
        head = HEAD.format(settings=len(cards), preset=base.preset, dataset=base.data[0].dataset)
        page = write_page(results, out / "sweep.md", head, BASE if {} in tried else None)
        say(f"table in {page}")
    return failures, results
