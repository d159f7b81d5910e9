"""`gentraj zoo`: the trained runs that come with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config import settings
from ..plots.page import show
from ..progress import print_saved
from ..runs.judge.saved_scores import RETURN_OF
from ..runs.kinds.zoo import PREFIX, Entry, entry, names
from .options import Command

AHEAD = 10  # steps of an open-loop prediction


@settings
class Zoo(Command):
    """List the trained runs that come with gentraj: name, size, score beside that of the data, and the commands that
    train it again. Of a world model, it lists the errors of its predictions, too.

    Where a run is used, zoo:NAME stands for one, which is unpacked to runs/zoo/NAME first. In a clone, `python -m
    benchmarks.zoo` records their data and trains them again.

    Examples: gentraj zoo
              gentraj evaluate zoo:pointmaze-large
              gentraj studio zoo:pointmaze-umaze zoo:pointmaze-umaze-student
    """

    def __call__(self) -> None:
        print_saved("\n".join(lines(each) for each in map(entry, names())))


def lines(each: Entry) -> str:
    """What is told of a run of the zoo."""
    scores = each.scores
    told = []
    if each.open_loop:
        told.append(errors(each.open_loop))
    told.append(f"return {show(scores['return_mean'])}")
    if scores["success_rate"] is not None:
        told.append(f"success rate {show(scores['success_rate'])}")
    told += [f"{title} {show(scores[name]['return_mean'])}" for name, title in RETURN_OF.items() if scores.get(name)]
    return "\n    ".join([f"{PREFIX + each.name:38} {each.size / 1000:4.0f} kB  {scores['agent']} in "
                          f"{scores['env_id']}: {', '.join(told)}", *each.commands])


def errors(open_loop: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The root mean square errors of a world model's mean, beside those of the last guess, which needs no model."""
    told = []
    for group, by_guess in open_loop.items():
        simplest = list(by_guess)[-1]
        told.append(f"{group} {show(by_guess['mean'][AHEAD - 1])} ({simplest}: {show(by_guess[simplest][AHEAD - 1])})")
    return f"errors after {AHEAD} steps: {', '.join(told)}"
