"""The words for the entries of observations and actions: their names, or "observation[3]" where they have none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .config import check_known


def entry_word(what: str, i: int, names: Sequence[str] = ()) -> str:
    """The word for entry `i` of an observation or an action: its name if it has one, or else such as
    "observation[3]", for which `what` is "observation"."""
    return names[i] if names else f"{what}[{i}]"


def entries_named(wanted: Iterable[str], names: Sequence[str], what: str) -> tuple[int, ...]:
    """The entries of these names among all `names` of `what`, such as "observation".

    Raises ValueError for an unknown name, and where the entries have no names.
    """
    wanted = list(wanted)
    if not names:
        raise ValueError(f"{', '.join(wanted)}: the entries of the {what} have no names here, as the data gave them "
                         "none; say which entries by their numbers")
    check_known(wanted, names, f"entry of the {what}")
    return tuple(map(names.index, wanted))


def check_names(names: Sequence[str], width: int, what: str) -> None:
    """Raises ValueError unless there are no names, or as many as an observation or action has entries, each once and
    none of them empty."""
    if names and (len(names) != width or len({*names}) < width or not all(names)):
        raise ValueError(f"{what} is {tuple(names)}; a name for each of the {width} entries, each once, is expected")
