"""The colours of plans and of imagined steps, and the light of all scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..plots.style import trust_scale
from .imagining import Beside
from .planning import Answer

if TYPE_CHECKING:
    from viser import SceneApi

TRUST = 4.0  # the trust ratios 1 / TRUST and TRUST are the ends of the colours
SKY, GROUND = (255, 255, 255), (190, 195, 215)


def rgb(colour: str) -> tuple[int, int, int]:
    """The colour "#rrggbb" as three numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def linear(colours: np.ndarray) -> np.ndarray:
    """Colours of sRGB, 0 to 255, in proportion to light (IEC 61966-2-1), uint8, of the same shape."""
    part = np.asarray(colours, float) / 255
    light = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return (255 * light).round().astype(np.uint8)


def plan_colours(answer: Answer, by: str = "trust") -> np.ndarray:
    """(N, 3) the colours of the plans, uint8: blue where trusted and orange where not, or dark to light by value."""
    if by == "value" and answer.value_N is not None:
        from matplotlib import colormaps

        low, high = answer.value_N.min(), answer.value_N.max()
        shades = colormaps["viridis"]((answer.value_N - low) / max(high - low, 1e-9))
    else:
        norm, shade = trust_scale(TRUST)
        shades = shade(norm(np.clip(answer.ratio_N, 1 / TRUST, TRUST)))
    return (255 * np.asarray(shades)[:, :3]).astype(np.uint8)


def uncertainty_colours(beside: Beside) -> np.ndarray:
    """(T, 3) the colours of the imagined steps, uint8: blue where the model is trusted and orange where not."""
    norm, shade = trust_scale(TRUST)
    ratio_T = np.clip(beside.uncertainty_T / beside.limit, 1 / TRUST, TRUST)
    return (255 * np.asarray(shade(norm(ratio_T)))[:, :3]).astype(np.uint8)


def light(api: SceneApi, cast_shadow: bool = False) -> None:
    """Lights a scene by a sun and a sky.

    Viser's own light is an environment map, with which a browser without a GPU takes about three times as long for
    each frame. Shadows double that time once more.
    """
    api.configure_environment_map(None)
    api.configure_default_lights(enabled=False)
    api.add_light_hemisphere("/sky", sky_color=SKY, ground_color=GROUND, intensity=2.0, position=(0.0, 0.0, 1.0))
    api.add_light_directional("/sun", intensity=4.0, position=(-0.15, 0.6, 1.0), cast_shadow=cast_shadow)
