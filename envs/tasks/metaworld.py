"""Meta-World's environments, with episodes that their seeds decide."""

from __future__ import annotations

from typing import Any

import gymnasium

METAWORLD = "Meta-World/"


class SeededReset(gymnasium.Wrapper):
    """A Meta-World environment whose `reset` does not ignore the seed, as Meta-World's own does: the goal of an episode
    is drawn by the generator that `env.unwrapped.seed` sets.

    The 50 goals among which `Meta-World/MT1` chooses are drawn when it is made; its argument `seed` decides them.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            base: Any = self.unwrapped
            base.seed(seed)
        return self.env.reset(options=options)
