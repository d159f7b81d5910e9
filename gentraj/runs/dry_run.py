"""One decision before a training: parts that cannot act together say so before time is spent on them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from gymnasium.spaces import Box

from ..data import Windows
from .kinds import AnyRunConfig, DataFacts, Part

WINDOWS = 16  # of the data: what trust is calibrated by; it decides for the first


def rehearse(config: AnyRunConfig, data: DataFacts, parts: Mapping[str, Part], windows: Windows) -> None:
    """Acts by copies of parts that are not trained yet. Raises ValueError for settings that do not go together."""
    few, ones = windows.batch(0, 0, WINDOWS), np.ones(data.act_dim, np.float32)
    copies = {name: deepcopy(part).eval() for name, part in parts.items()}
    agent = config.agent(copies, few, Box(-ones, ones), None, None)
    obs_BO = few.x_BHD[:1, 0, : data.obs_dim]
    agent.act(obs_BO, config.dry_goal(few, obs_BO, data.goal_dims))
