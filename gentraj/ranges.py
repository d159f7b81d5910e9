"""The ranges of observations in data, with which those that an agent is given are compared."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .config import JsonObject
from .entries import entry_word

MARGIN = 1.0  # in units of an entry's range: whoever acts wanders a little out of the data
ROUNDING = 1e-5  # of an entry that never varies, in units of its size where that is above 1
SHOWN_ENTRIES = 5  # that a message names
REMEDY = "(are the entries in the order and the units of the data?)"


class FarFromData(UserWarning):
    """What an agent was given lies far outside the data that it was trained on."""


class DataRanges:
    """The range of each entry of the observations in data.

    A number is far from the data if it lies outside the range of its entry by more than that range, or, where the entry
    never varies in the data, by more than rounding.
    """

    def __init__(self, low_O: Sequence[float] | Tensor, high_O: Sequence[float] | Tensor,
                 goal_dims: Sequence[int] = (), names: Sequence[str] = ()):
        """`goal_dims` are the entries that a goal gives values for, and `names` those of all entries, if they have any.
        """
        self.names = names
        self.low_O = torch.as_tensor(low_O, dtype=torch.float32)
        self.high_O = torch.as_tensor(high_O, dtype=torch.float32)
        self.mid_O = (self.low_O + self.high_O) / 2
        rounding_O = ROUNDING * self.low_O.abs().maximum(self.high_O.abs()).clamp(min=1)
        self.half_O = (0.5 + MARGIN) * (self.high_O - self.low_O) + rounding_O
        self.goal: DataRanges | None = None
        """The ranges of the entries that make a goal; None if it is not known which do."""
        if goal_dims:
            dims = list(goal_dims)
            self.goal = DataRanges(self.low_O[dims], self.high_O[dims], names=[names[i] for i in dims] if names else ())
        self.told = False

    def hold(self, x_BO: Tensor) -> bool:
        """Whether all of these numbers are finite and none is far from the data."""
        return bool(((x_BO - self.mid_O).abs() <= self.half_O).all())

    def described(self) -> JsonObject:
        """The ranges, and the least and the most number of each entry that is not far from them, as JSON values."""
        bounds = {"low": self.low_O, "high": self.high_O, "least": self.mid_O - self.half_O,
                  "most": self.mid_O + self.half_O}
        return {"names": list(self.names)} | {name: bound_O.tolist() for name, bound_O in bounds.items()}

    def difference(self, x_BO: Tensor, what: str, share: float = 0.0) -> str:
        """Which entries of `what`, such as "observation", are far from the data in more than this share of the rows,
        and what they are, in words; empty if none is."""
        far_BO = (x_BO - self.mid_O).abs() > self.half_O
        entries = []
        for i in torch.nonzero(far_BO.float().mean(0) > share).flatten().tolist():
            was = f"was {self.low_O[i]:.6g} to {self.high_O[i]:.6g} in the data"
            if self.low_O[i] == self.high_O[i]:
                was = f"was {self.low_O[i]:.6g} in all data"
            low, high = (f"{bound:.6g}" for bound in x_BO[:, i].aminmax())
            now = low if low == high else f"{low} to {high}"
            entries.append(f"{entry_word(what, i, self.names)} {was} and is {now}")
        if len(entries) > SHOWN_ENTRIES + 1:
            entries[SHOWN_ENTRIES:] = [f"and {len(entries) - SHOWN_ENTRIES} more entries"]
        return "; ".join(entries)

    def tell(self, x_BO: Tensor, what: str) -> None:
        """Warns, once, of numbers that are far from the data."""
        if not self.told:
            self.told = True
            warnings.warn("what was learned from data is not to be trusted far outside them: "
                          f"{self.difference(x_BO, what)} {REMEDY}", FarFromData, stacklevel=2)
