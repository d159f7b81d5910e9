"""One decision before a training: components that cannot act together say so before time is spent on them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from gymnasium.spaces import Box

from ..data import Windows
from .kinds import AnyRunConfig, Component, DataFacts

WINDOWS = 16  # of the data: what trust is calibrated by; it decides for the first


def dry_run(config: AnyRunConfig, data: DataFacts, components: Mapping[str, Component], windows: Windows) -> None:
    """Acts by copies of components that are not trained yet. Raises ValueError for settings that do not go together."""
    few, ones = windows.batch(0, 0, WINDOWS), np.ones(data.act_dim, np.float32)
    copies = {name: deepcopy(component).eval() for name, component in components.items()}
    agent = config.agent(copies, few, Box(-ones, ones), None, None)
    obs_BO = few.x_BHD[:1, 0, : data.obs_dim]
    agent.act(obs_BO, config.dry_goal(few, obs_BO, data.goal_dims))
