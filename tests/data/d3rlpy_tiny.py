"""The tiny file of the tests: `python tests/data/d3rlpy_tiny.py OUT.h5` writes it by the real d3rlpy.

d3rlpy 2.8.1 wrote `d3rlpy-tiny.h5` beside this file.
"""

from __future__ import annotations

import sys

import numpy as np

ENDS = {4: "terminal", 6: "timeout", 9: "terminal"}


def arrays() -> dict[str, np.ndarray]:
    """Observations, actions, rewards, terminals and timeouts of three episodes of 5, 2 and 3 rows."""
    rng = np.random.default_rng(0)
    numbers = {key: rng.normal(size=(10, width)).astype(np.float32)
               for key, width in (("observations", 3), ("actions", 2), ("rewards", 1))}
    flags = {key: np.array([ENDS.get(i) == key[:-1] for i in range(10)], np.float32)
             for key in ("terminals", "timeouts")}
    return numbers | flags


if __name__ == "__main__":
    from d3rlpy.constants import ActionSpace
    from d3rlpy.dataset import MDPDataset

    with open(sys.argv[1], "w+b") as file:
        MDPDataset(**arrays(), action_space=ActionSpace.CONTINUOUS, action_size=2).dump(file)
