"""`gentraj zoo`: the trained runs that come with the package."""

from __future__ import annotations

from dataclasses import dataclass

from ..plots.page import show
from ..progress import print_saved
from ..runs.model_card import RETURN_OF
from ..runs.zoo import PREFIX, Entry, entry, names
from .options import parse


@dataclass(frozen=True)
class Zoo:
    """List the trained runs that come with gentraj: name, size, score beside that of the data, and the command that
    trained it.

    Where a run is used, zoo:NAME stands for one, which is unpacked to runs/zoo/NAME first. In a clone, `python -m
    benchmarks.zoo` records their data and trains them again.

    Examples: gentraj zoo
              gentraj evaluate zoo:pointmaze-large
              gentraj studio zoo:pointmaze-umaze zoo:pointmaze-umaze-student
    """


def main(argv: list[str]) -> None:
    parse(Zoo, argv, "gentraj zoo")
    print_saved("\n".join(lines(each) for each in map(entry, names())))


def lines(each: Entry) -> str:
    """What is told of a run of the zoo."""
    scores = each.scores
    told = [f"return {show(scores['return_mean'])}"]
    if scores["success_rate"] is not None:
        told.append(f"success rate {show(scores['success_rate'])}")
    told += [f"{title} {show(scores[name]['return_mean'])}" for name, title in RETURN_OF.items() if scores.get(name)]
    return (f"{PREFIX + each.name:38} {each.size / 1000:4.0f} kB  {scores['agent']} in {scores['env_id']}: "
            f"{', '.join(told)}\n    {each.command}")
