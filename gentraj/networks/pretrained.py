"""Loads Diffuser's temporal U-Net (Janner et al. 2022) from safetensors.

It has the architecture of `TemporalUNet`, so that loading only renames the weights. The inputs that it lacks, the known
values and the mask, get weights of zero. Loading executes no code from the file.
"""

from __future__ import annotations

import re
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from ..progress import one_line
from .temporal_unet import TemporalUNet, TemporalUNetConfig

NAMES = (  # patterns in our parameters' names and their replacements in Diffuser's, applied in this order
    (r"^time\.", "time_mlp."),
    (r"^(down|up)\.(\d+)\.first", r"\1s.\2.0"), (r"^(down|up)\.(\d+)\.second", r"\1s.\2.1"),
    (r"^middle\.first", "mid_block1"), (r"^middle\.second", "mid_block2"),
    (r"^shrink\.(\d+)", r"downs.\1.3.conv"), (r"^grow\.(\d+)", r"ups.\1.3.conv"),
    (r"\.first\.0", ".blocks.0.block.0"), (r"\.first\.1", ".blocks.0.block.2"),
    (r"\.second\.0", ".blocks.1.block.0"), (r"\.second\.1", ".blocks.1.block.2"),
    (r"\.embed\.", ".time_mlp.1."), (r"\.skip\.", ".residual_conv."),
    (r"^out\.0\.0", "final_conv.0.block.0"), (r"^out\.0\.1", "final_conv.0.block.2"), (r"^out\.1", "final_conv.1"),
)
FIRST, SKIP = "down.0.first.first.0.weight", "down.0.first.skip.weight"  # the layers whose input is the trajectory
SKIP_BIAS = "down.0.first.skip.bias"
LAST = ("out.1.weight", "out.1.bias")  # the layer whose output is the trajectory


class PretrainedError(ValueError):
    """The weights of a file cannot be used; the message names the file and the reason in one line."""


def load_diffuser(path: Path, horizon: int, levels: int, *, act_dim: int = 0) -> TemporalUNet:
    """Loads Diffuser's TemporalUnet from a safetensors file: its state dict, or that of its GaussianDiffusion.

    `levels` is the number of noise levels that it was trained with. Where its timesteps begin with actions, `act_dim`
    is their width: they are moved behind the observations, where ours are. Raises `PretrainedError` for a file or
    weights that do not fit.
    """
    try:
        return _loaded(safetensors.torch.load(path.read_bytes()), horizon, levels, act_dim)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise PretrainedError(f"{path}: does not hold a temporal U-Net of Diffuser: {one_line(error)}") from error


def _loaded(weights: dict[str, Tensor], horizon: int, levels: int, act_dim: int) -> TemporalUNet:
    if "betas" in weights and len(weights["betas"]) != levels:
        raise ValueError(f"it was trained with {len(weights['betas'])} noise levels; {levels} were given")
    weights = {name.removeprefix("model."): w.float() for name, w in weights.items()
               if name.startswith("model.") or "betas" not in weights}
    shapes = list[torch.Size]()
    while not shapes or _their(FIRST.replace("0", str(len(shapes)), 1)) in weights:
        shapes.append(weights[_their(FIRST.replace("0", str(len(shapes)), 1))].shape)
    width, dim = shapes[0][:2]
    config = TemporalUNetConfig(width, tuple(channels // width for channels, *_ in shapes), shapes[0][2], frequencies=0,
                                time_scale=float(levels), time_shift=-1.0)
    with torch.random.fork_rng(devices=()):  # initial weights use the global generator, which must not change
        network = TemporalUNet(dim, horizon, 0, config)
    if width == dim:  # then their first residual path is the identity
        weights |= {_their(SKIP): torch.eye(dim)[:, :, None], _their(SKIP_BIAS): torch.zeros(dim)}
    state = {name: weights.pop(_their(name)) for name in network.state_dict()}
    if weights:
        raise ValueError(f"it has no place for '{next(iter(weights))}'")
    for name in LAST:
        state[name] = state[name].roll(-act_dim, 0)
    for name in (FIRST, SKIP):  # x comes first; the known values and the mask get weights of zero
        state[name] = F.pad(state[name].roll(-act_dim, 1), (0, 0, 0, 2 * dim))
    network.load_state_dict(state)
    return network


def _their(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name
