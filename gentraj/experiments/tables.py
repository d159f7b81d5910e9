"""The comparison as tables: at a glance, and in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plots.page import Table, show
from .summary import RETURN, TOLD_APART

ALIKE = 1.2  # families whose parameters differ by more than this factor are pointed out
NOTE = ("Mean over seeds, in brackets the least and the most. The last column is one half of the data measured "
        "against the other, what a perfect model would score; or what other agents return.")
START, GOAL = "quality.measures.start.", "quality.measures.start and goal."

# heading, what is measured, the key of the number, and that of the data's own
GLANCE = [
    ("quality", "told from data by the nearest neighbour, share (0.5 is best)", f"{START}two_sample_accuracy",
     "two_sample_accuracy"),
    ("quality", "precision (share)", f"{START}precision", "precision"),
    ("quality", "Frechet distance (std^2)", f"{START}frechet_distance", "frechet_distance"),
    ("quality", "plans to a goal that enter a wall (share)", f"{GOAL}walls_share", "walls_share"),
    ("quality", "dynamics error from row to row (env)", f"{START}row_error", "row_error"),
    ("coverage", "recall (share)", f"{START}recall", "recall"),
    ("coverage", "coverage (share)", f"{START}coverage", "coverage"),
    ("coverage", "shares of ways, total variation to the data's", "modes.total_variation", "total_variation"),
    ("speed", "plans a second, one at a time", "speed.plans_per_second.1", ""),
    ("speed", "plans a second, 64 at a time", "speed.plans_per_second.64", ""),
    ("speed", "plans a second, 256 at a time", "speed.plans_per_second.256", ""),
    ("speed", "network calls of a plan", "speed.calls_per_plan", ""),
    ("speed", "milliseconds of a planner's decision", "speed.decision_ms", ""),
    ("control", "return", RETURN, ""),
    ("control", "success rate", "control.success_rate", ""),
]


def tables(group: Mapping[str, Any], title: str) -> list[Table]:
    """All of a group."""
    made = [_glance(group, title), _training(group, title), _runs(group, title)]
    notes = [(name, text) for name, run in group["runs"].items()
             for text in [*([f"failed: {run['failure']}"] if run["failure"] else []), *run["warnings"]]]
    if notes:
        made.append(Table(f"{title}failures and warnings", ("run", "what"), notes))
    return [*made, _everything(group, title)]


def cell(number: Mapping[str, float] | None) -> str | None:
    """Mean [least, most]."""
    if number is None:
        return None
    low, mean, high = (show(number[key]) for key in ("min", "mean", "max"))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _glance(group: Mapping[str, Any], title: str) -> Table:
    families, variation = group["families"], group["data"]["total_variation"]
    data = group["data"]["measures"] | {"total_variation": dict.fromkeys(("mean", "min", "max"), variation)}
    each = lambda what: [what(f) for f in families.values()]  # noqa: E731
    others = ", ".join(f"{name} {show(scores['return_mean'])}" for name, scores in group["baselines"].items())
    rows: list[tuple[Any, ...]] = [
        ("stability", "failed seeds", *each(lambda f: f"{f['failed']} of {f['seeds']}"), None),
        ("stability", "warnings in training", *each(lambda f: f["warnings"]), None),
        ("stability", "range of the return over seeds, over its mean", *each(lambda f: f["spread"].get(RETURN)), None),
        ("stability", "range over seeds of what is told from data", *each(lambda f: f["spread"].get(TOLD_APART)), None),
        ("likelihood", "nats per entry of data, its start known", *_likelihoods(group), None)]
    for heading, text, key, own in GLANCE:
        rows.append((heading, text, *each(lambda f, key=key: cell(f["numbers"].get(key))), cell(data.get(own))))
    rows.append(("control", "95 % interval of the mean return", *each(lambda f: f.get("return_ci95")), others))
    rows = [row for row in rows if any(value is not None for value in row[2:-1])]
    return Table(f"{title}at a glance", ("", "measure", *families, "data, or others"),
                 sorted(rows, key=lambda row: ORDER.index(row[0])), NOTE)


ORDER = ("stability", "quality", "coverage", "speed", "likelihood", "control")


def _likelihoods(group: Mapping[str, Any]) -> list[str]:
    """Of each family; what has none says so."""
    said = []
    for name, family in group["families"].items():
        whole = [r for r in group["runs"].values() if r["family"] == name and r["failure"] is None]
        number = cell(family["numbers"].get("likelihood.log_prob_per_entry"))
        said.append(f"{number} ({whole[0]['likelihood']['kind']})" if number else "none" if whole else "-")
    return said


def _training(group: Mapping[str, Any], title: str) -> Table:
    rows, counts = [], []
    for name, family in group["families"].items():
        runs = [r for r in group["runs"].values() if r["family"] == name]
        number = family["numbers"].get
        used, trained = (number(f"speed.parameters_{kind}") for kind in ("sampling", "trained"))
        counts += [used["mean"]] if used else []
        minutes = {k: v / 60 for k, v in (number("training_seconds") or {}).items()}
        rows.append((name, used and int(used["mean"]), trained and int(trained["mean"]), cell(number("steps")),
                     runs[0]["seconds_per_step"] and 1000 * runs[0]["seconds_per_step"], cell(minutes or None)))
    note = "Milliseconds a step were measured alone, minutes are what the training took beside others. "
    if counts and max(counts) > ALIKE * min(counts):
        note += (f"The parameters that sample differ by a factor of {max(counts) / min(counts):.2f}: this is no "
                 "comparison at equal size.")
    return Table(f"{title}training", ("family", "parameters that sample", "parameters trained", "steps",
                                      "ms a step", "minutes"), rows, note)


def _runs(group: Mapping[str, Any], title: str) -> Table:
    rows = []
    for name, run in group["runs"].items():
        ok = run["failure"] is None
        control, start = (run["control"], run["quality"]["measures"]["start"]) if ok else ({}, {})
        rows.append((name, "failed" if not ok else "ok", run["steps"], control.get("return_mean"),
                     control.get("return_ci95"), control.get("success_rate"), start.get("two_sample_accuracy"),
                     start.get("coverage"), len(run["warnings"])))
    return Table(f"{title}runs", ("run", "", "steps", "return", "95 % interval over episodes", "success",
                                  "told from data", "coverage", "warnings"), rows)


def _everything(group: Mapping[str, Any], title: str) -> Table:
    families = group["families"]
    keys = dict.fromkeys(key for f in families.values() for key in f["numbers"] if ".data." not in key)
    rows = [(key.removeprefix("quality.measures."), *(cell(f["numbers"].get(key)) for f in families.values()),
             cell(group["data"]["measures"].get(key.rsplit(".", 1)[-1])) if key.startswith("quality") else None)
            for key in keys]
    return Table(f"{title}every number", ("key", *families, "data"), rows, NOTE)
