"""Loads published temporal U-Nets from safetensors: of `diffusers`' RL pipeline and of Diffuser (Janner et al. 2022).

Both have the architecture of `TemporalUNet`, so that loading only renames the weights. The inputs that they lack, the
known values and the mask, get weights of zero. Loading executes no code from the files.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from ..config import read_json
from ..progress import one_line
from .temporal_unet import TemporalUNet, TemporalUNetConfig

Names = tuple[tuple[str, str], ...]  # patterns in our parameters' names and their replacements, applied in order

DIFFUSERS: Names = (
    (r"^time\.1", "time_mlp.linear_1"), (r"^time\.3", "time_mlp.linear_2"),
    (r"^(down|up)\.(\d+)\.first", r"\1_blocks.\2.resnets.0"), (r"^(down|up)\.(\d+)\.second", r"\1_blocks.\2.resnets.1"),
    (r"^middle\.first", "mid_block.resnets.0"), (r"^middle\.second", "mid_block.resnets.1"),
    (r"^shrink\.(\d+)", r"down_blocks.\1.downsample.conv"), (r"^grow\.(\d+)", r"up_blocks.\1.upsample.conv"),
    (r"\.first\.0", ".conv_in.conv1d"), (r"\.first\.1", ".conv_in.group_norm"),
    (r"\.second\.0", ".conv_out.conv1d"), (r"\.second\.1", ".conv_out.group_norm"),
    (r"\.embed\.", ".time_emb."), (r"\.skip\.", ".residual_conv."),
    (r"^out\.0\.0", "out_block.final_conv1d_1"), (r"^out\.0\.1", "out_block.final_conv1d_gn"),
    (r"^out\.1", "out_block.final_conv1d_2"),
)
DIFFUSER: Names = (
    (r"^time\.", "time_mlp."),
    (r"^(down|up)\.(\d+)\.first", r"\1s.\2.0"), (r"^(down|up)\.(\d+)\.second", r"\1s.\2.1"),
    (r"^middle\.first", "mid_block1"), (r"^middle\.second", "mid_block2"),
    (r"^shrink\.(\d+)", r"downs.\1.3.conv"), (r"^grow\.(\d+)", r"ups.\1.3.conv"),
    (r"\.first\.0", ".blocks.0.block.0"), (r"\.first\.1", ".blocks.0.block.2"),
    (r"\.second\.0", ".blocks.1.block.0"), (r"\.second\.1", ".blocks.1.block.2"),
    (r"\.embed\.", ".time_mlp.1."), (r"\.skip\.", ".residual_conv."),
    (r"^out\.0\.0", "final_conv.0.block.0"), (r"^out\.0\.1", "final_conv.0.block.2"), (r"^out\.1", "final_conv.1"),
)
SETTINGS = {  # the settings of a UNet1DModel that is a temporal U-Net, besides its down and up blocks
    "mid_block_type": "MidResTemporalBlock1D", "out_block_type": "OutConv1DBlock", "time_embedding_type": "positional",
    "use_timestep_embedding": True, "flip_sin_to_cos": False, "freq_shift": 1, "act_fn": "mish", "norm_num_groups": 8,
    "layers_per_block": 1, "extra_in_channels": 0, "downsample_each_block": False,
}
FIRST, SKIP = "down.0.first.first.0.weight", "down.0.first.skip.weight"  # the layers whose input is the trajectory
SKIP_BIAS = "down.0.first.skip.bias"
LAST = ("out.1.weight", "out.1.bias")  # the layer whose output is the trajectory
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class PretrainedError(ValueError):
    """The weights of a file cannot be used; the message names the file and the reason in one line."""


def load_unet1d(folder: Path, horizon: int, levels: int, *, act_dim: int = 0) -> TemporalUNet:
    """Loads a UNet1DModel that `diffusers` saved, such as bglick13/hopper-medium-v2-value-function-hor32.

    Reads `config.json` and `diffusion_pytorch_model.safetensors` from the folder that `save_pretrained` wrote. `levels`
    is the number of noise levels that the model was trained with: its noise level n is t = (n + 1) / levels here. Such
    models have the actions first; `act_dim`, the number of actions, moves them behind the observation, as in gentraj.

    Raises `PretrainedError` for files or weights that do not fit, and `ConfigError` for an invalid config.json.
    """
    path, config = folder / "diffusion_pytorch_model.safetensors", read_json(folder / "config.json")
    down = config.get("down_block_types")
    depth = 1
    if isinstance(down, list):
        depth = len(down)
    blocks = {"down_block_types": depth * ["DownResnetBlock1D"], "up_block_types": (depth - 1) * ["UpResnetBlock1D"]}
    for name, value in (blocks | SETTINGS).items():
        if (given := config.get(name)) != value:
            raise PretrainedError(f"{folder / 'config.json'}: {name} is {reprlib.repr(given)}; {value} is expected")
    if not path.is_file() and path.with_suffix(".bin").exists():
        raise PretrainedError(f"{path.with_suffix('.bin')}: is a pickle, which is never loaded; save the model again "
                              "in diffusers by save_pretrained(folder, safe_serialization=True)")
    return _load(path, _read(path), DIFFUSERS, horizon, levels, act_dim)


def load_diffuser(path: Path, horizon: int, levels: int, *, act_dim: int = 0) -> TemporalUNet:
    """Loads Diffuser's TemporalUnet from a safetensors file: its state dict, or that of its GaussianDiffusion.

    `levels` and `act_dim` are those of `load_unet1d`. Raises `PretrainedError` for a file or weights that do not fit.
    """
    weights = _read(path)
    if (betas := weights.get("betas")) is not None and betas.numel() != levels:
        raise PretrainedError(f"{path}: was trained with {betas.numel()} noise levels; {levels} were given")
    inner = {name.removeprefix("model."): w for name, w in weights.items() if name.startswith("model.")}
    return _load(path, inner or weights, DIFFUSER, horizon, levels, act_dim)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise PretrainedError(f"{path}: is not a file that can be read ({error.strerror}); a safetensors file is "
                              "expected") from error
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise PretrainedError(f"{path}: is not a safetensors file: {one_line(error)}") from error
    for name, weight in weights.items():
        if weight.dtype not in FLOATS or not torch.isfinite(weight).all():
            raise PretrainedError(f"{path}: '{name}' is {weight.dtype} or not finite; finite floats are expected")
    return weights


def _load(path: Path, weights: dict[str, Tensor], names: Names, horizon: int, levels: int,
          act_dim: int) -> TemporalUNet:
    try:
        dim, config = _structure(weights, names, levels)
        with torch.device("meta"):  # takes no memory, since a hostile file may claim huge shapes
            ours = TemporalUNet(dim, horizon, 0, config).state_dict()
    except ValueError as error:
        raise PretrainedError(f"{path}: {error}") from error
    if not 0 <= act_dim <= dim:
        raise PretrainedError(f"{path}: a timestep of its trajectories has {dim} entries; {act_dim} of them cannot be "
                              "actions")
    shapes = {name: tuple(w.shape) for name, w in ours.items()}
    for name in (FIRST, SKIP):
        shapes[name] = (config.width, dim, shapes[name][-1])
    if config.width == dim:  # then their first residual path is the identity
        identity = {SKIP: torch.eye(dim)[:, :, None], SKIP_BIAS: torch.zeros(dim)}
        weights = {_their(name, names): weight for name, weight in identity.items()} | weights
    _check(path, weights, {_their(name, names): shape for name, shape in shapes.items()})
    return _network(dim, horizon, config, {name: weights[_their(name, names)] for name in ours}, act_dim)


def _structure(weights: dict[str, Tensor], names: Names, levels: int) -> tuple[int, TemporalUNetConfig]:
    """The trajectory's dimension and the settings, from the shapes of the first convolution of each level."""
    shapes: list[tuple[int, ...]] = []
    while (name := _their(FIRST.replace("0", str(len(shapes)), 1), names)) in weights:
        shapes.append(tuple(weights[name].shape))
        if len(shapes[-1]) != 3 or min(shapes[-1]) < 1:
            raise ValueError(f"'{name}' has shape {shapes[-1]}; (channels, channels, kernel) is expected")
    if not shapes:
        raise ValueError(f"'{name}' is missing; every temporal U-Net has this weight")
    (width, dim, kernel), channels = shapes[0], [shape[0] for shape in shapes]
    if any(c % width for c in channels):
        raise ValueError(f"its levels have {channels} channels; multiples of the first are expected")
    if width == 3 * dim:  # then our first residual path is the identity
        raise ValueError(f"it has {width} channels for {dim} entries of a timestep; a U-Net with 3 times as many "
                         "channels cannot be loaded")
    if levels < 1:
        raise ValueError(f"{levels} noise levels were given; at least 1 is expected")
    return dim, TemporalUNetConfig(width, tuple(c // width for c in channels), kernel, frequencies=0,
                                   time_scale=float(levels), time_shift=-1.0)


def _network(dim: int, horizon: int, config: TemporalUNetConfig, state: dict[str, Tensor],
             act_dim: int) -> TemporalUNet:
    state = {name: weight.float() for name, weight in state.items()}
    for name in LAST:
        state[name] = state[name].roll(-act_dim, 0)
    for name in (FIRST, SKIP):  # x comes first; the known values and the mask get weights of zero
        state[name] = F.pad(state[name].roll(-act_dim, 1), (0, 0, 0, 2 * dim))
    with torch.random.fork_rng(devices=()):  # initial weights use the global generator, which must not change
        network = TemporalUNet(dim, horizon, 0, config)
    network.load_state_dict(state)
    return network


def _check(path: Path, weights: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    for name in sorted({*weights, *expected}):
        if name not in expected:
            raise PretrainedError(f"{path}: '{name}' is unknown; a temporal U-Net without attention has no such weight")
        if name not in weights:
            raise PretrainedError(f"{path}: '{name}' is missing; shape {expected[name]} is expected")
        if (shape := tuple(weights[name].shape)) != expected[name]:
            raise PretrainedError(f"{path}: '{name}' has shape {shape}; {expected[name]} is expected")


def _their(name: str, names: Names) -> str:
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name
