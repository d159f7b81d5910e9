"""Episodes that hypothesis draws: any shape, any ends, flat or goal-conditioned, whole numbers and odd ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gentraj.data import Episodes

GOALS_IN = {"flat": (), "within": ("observation",), "joined": ("achieved_goal", "observation")}


def some(lengths: list[int], obs_dim: int = 3, act_dim: int = 2, goals: str = "flat", seed: int = 0,
         extras: tuple[str, ...] = ()) -> Episodes:
    """Episodes of these lengths; each ends in one of the four ways that flags allow."""
    rng, S, E = np.random.default_rng(seed), sum(lengths), len(lengths)
    normal = lambda *shape: (rng.normal(size=shape) * 10.0 ** rng.integers(-6, 6)).astype(np.float32)  # noqa: E731
    terminated, truncated, last = np.zeros(S, bool), np.zeros(S, bool), np.cumsum(lengths) - 1
    terminated[last], truncated[last] = rng.integers(0, 2, E), rng.integers(0, 2, E)
    dims = () if goals == "flat" else tuple(range(obs_dim))[:2] if goals == "joined" else tuple(range(obs_dim))[-2:]
    held = {key: normal(S + E, 2) for key in extras} | ({"goal": normal(S + E, len(dims))} if dims else {})
    return Episodes(normal(S + E, obs_dim), normal(S, act_dim), normal(S), terminated, truncated, np.array(lengths),
                    held, dims, GOALS_IN[goals])


any_lengths = st.lists(st.integers(1, 7), min_size=1, max_size=5)
any_episodes = st.builds(some, any_lengths, st.integers(3, 4), st.integers(1, 3), st.sampled_from(sorted(GOALS_IN)),
                         st.integers(0, 2**32), st.sampled_from([(), ("qpos",), ("qpos", "qvel"), ("touch",)]))
