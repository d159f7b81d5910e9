"""The light of all scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viser import SceneApi

SKY, GROUND = (255, 255, 255), (190, 195, 215)


def light(api: SceneApi, cast_shadow: bool = False) -> None:
    """Lights a scene by a sun and a sky.

    Viser's own light is an environment map, with which a browser without a GPU takes about three times as long for
    each frame. Shadows double that time once more.
    """
    api.configure_environment_map(None)
    api.configure_default_lights(enabled=False)
    api.add_light_hemisphere("/sky", sky_color=SKY, ground_color=GROUND, intensity=2.0, position=(0.0, 0.0, 1.0))
    api.add_light_directional("/sun", intensity=4.0, position=(-0.15, 0.6, 1.0), cast_shadow=cast_shadow)
