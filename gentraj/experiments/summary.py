"""The comparison as numbers: what came of every run, of every family over its seeds, and of the data themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import read_json
from ..training.log import read_metrics
from .comparison_work import BASELINES, FAILURE, SPEED, WARNINGS, step_time_path
from .entries import Entry, read_result
from .groups import Group
from .measures import MEASURES

RESAMPLES = 10_000
RETURN, TOLD_APART = "control.return_mean", "quality.measures.start.two_sample_accuracy"

Record = dict[str, Any]


def summarize(entries: Sequence[Entry], group: Group, codes: Mapping[str, int]) -> Record:
    """What comparison.json says of a group; `codes` are of the processes that ended badly.

    "runs" holds each entry's record; "families" for each family the number of seeds, of failed ones, and of each number
    the mean, the least and the most over those that did not fail; "data" what data score against data.
    """
    runs = {entry.name: record(entry, codes.get(entry.name, 0)) for entry in entries}
    families = {name: _family([r for r in runs.values() if r["family"] == name])
                for name in dict.fromkeys(entry.family for entry in entries)}
    whole = [r for r in runs.values() if r["failure"] is None]
    data = _over_seeds([numbers(r["quality"]["measures"]["data"]) for r in whole])
    return {"runs": runs, "families": families, "baselines": read_result(group.folder / BASELINES) or {},
            "data": {"measures": data, "modes": [fork.shares(fork.mode_M) for fork in group.forks],
                     "total_variation": group.data_variation()}}


def record(entry: Entry, code: int = 0) -> Record:
    """All that is known of a run; `code` is how its process ended."""
    failure = _failure(entry, code)
    rows = read_metrics(entry.folder)
    found: Record = {"family": entry.family, "seed": entry.seed, "folder": str(entry.folder), "failure": failure,
                     "steps": rows[-1]["step"] if rows else None,
                     "training_seconds": sum(row["seconds"] for row in rows),
                     "seconds_per_step": read_result(step_time_path(entry)),
                     "warnings": _lines(entry.results / WARNINGS)}
    if failure is None:
        found |= {name: read_result(entry.results / f"{name}.json") for name in MEASURES}
        found["speed"] = read_result(entry.results / SPEED)
    return found


def numbers(value: Any, prefix: str = "") -> dict[str, float]:
    """Every number in nested objects by its dotted key; lists and flags are none."""
    if isinstance(value, Mapping):
        return {k: n for name, item in value.items()
                for k, n in numbers(item, f"{prefix}.{name}" if prefix else str(name)).items()}
    return {prefix: float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def _family(records: Sequence[Record]) -> Record:
    whole = [r for r in records if r["failure"] is None]
    per_seed = [numbers({name: r[name] for name in (*MEASURES, "speed", "training_seconds", "steps")}) for r in whole]
    found: Record = {"seeds": len(records), "failed": len(records) - len(whole),
                     "numbers": (over := _over_seeds(per_seed)),
                     "warnings": sum(len(r["warnings"]) for r in records)}
    spreads = {key: over[key]["max"] - over[key]["min"] for key in (RETURN, TOLD_APART)
               if key in over and len(whole) > 1}
    if RETURN in over:
        found["return_ci95"] = seeds_interval([r["control"]["returns"] for r in whole])
    if RETURN in spreads:
        spreads[RETURN] /= abs(over[RETURN]["mean"]) or 1.0
    return found | {"spread": spreads}


def _over_seeds(per_seed: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    keys = dict.fromkeys(key for one in per_seed for key in one)
    values = {key: [one[key] for one in per_seed if key in one] for key in keys}
    return {key: {"mean": float(np.mean(v)), "min": min(v), "max": max(v)} for key, v in values.items()}


def seeds_interval(returns: Sequence[Sequence[float]], seed: int = 0) -> list[float]:
    """[low, high] where 95 % of `seeds_means` lie."""
    return interval(seeds_means(returns, seed))


def interval(means: np.ndarray) -> list[float]:
    """[low, high] of the middle 95 %."""
    return [float(bound) for bound in np.percentile(means, [2.5, 97.5])]


def seeds_means(returns: Sequence[Sequence[float]], seed: int = 0) -> np.ndarray:
    """(RESAMPLES,) means when seeds are drawn with replacement, and of each its episodes."""
    rng, returns_SE = np.random.default_rng(seed), [np.asarray(r) for r in returns]
    drawn = rng.integers(0, len(returns_SE), (RESAMPLES, len(returns_SE)))
    # (S, resamples); a seed that is drawn twice brings the same episodes twice, which only widens the interval.
    means = np.array([rng.choice(r, (RESAMPLES, len(r))).mean(1) for r in returns_SE])
    return means[drawn.T, np.arange(RESAMPLES)].mean(0)


def _failure(entry: Entry, code: int) -> str | None:
    path = entry.results / FAILURE
    if path.is_file():
        return read_json(path)["reason"]
    return f"its process ended with code {code}" if code else None


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def failures(comparison: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Runs that failed, and why."""
    for group in comparison["groups"].values():
        yield from ((name, run["failure"]) for name, run in group["runs"].items() if run["failure"])
