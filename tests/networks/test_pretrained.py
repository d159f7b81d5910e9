"""Published weights: a `diffusers` model as its own library saves it, and Diffuser's network restated here."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_1d import UNet1DModel
from safetensors.torch import save_file
from torch import Tensor

from gentraj.networks import TemporalUNet
from gentraj.networks.pretrained import PretrainedError, load_diffuser, load_unet1d

LEVELS, HORIZON = 20, 8
Weights = dict[str, Tensor]


def ours(network: TemporalUNet, x: Tensor, n: Tensor, levels: int = LEVELS) -> Tensor:
    """The loaded network at integer levels, given nothing known."""
    with torch.no_grad():
        return network(x, torch.zeros_like(x), torch.zeros(x.shape, dtype=torch.bool), (n + 1) / levels)


def trajectories(dim: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, HORIZON, dim, generator=torch.Generator().manual_seed(0))


# -- diffusers


def unet1d(channels: tuple[int, ...], dim: int = 6) -> UNet1DModel:
    """Makes the published U-Net of Diffuser's locomotion tasks at other widths; no weight keeps its initial value."""
    model = UNet1DModel(
        in_channels=dim, out_channels=dim, block_out_channels=channels, time_embedding_type="positional",
        down_block_types=("DownResnetBlock1D",) * len(channels), mid_block_type="MidResTemporalBlock1D",
        up_block_types=("UpResnetBlock1D",) * (len(channels) - 1), out_block_type="OutConv1DBlock", act_fn="mish",
        use_timestep_embedding=True, flip_sin_to_cos=False, freq_shift=1.0, layers_per_block=1)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    unet1d((8, 16)).save_pretrained(tmp_path, safe_serialization=True)
    return tmp_path


def change(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(("channels", "dim"), [((8, 16, 32, 64), 6), ((16, 64, 32), 1)])
def test_a_diffusers_model_gives_its_own_outputs(tmp_path: Path, channels: tuple[int, ...], dim: int) -> None:
    model = unet1d(channels, dim)
    model.save_pretrained(tmp_path, safe_serialization=True)
    network, model = load_unet1d(tmp_path, HORIZON, LEVELS).double(), model.double()
    x, n = trajectories(dim).double(), torch.tensor([0, 1, 7, 19])
    with torch.no_grad():
        theirs = model(x.transpose(1, 2), n).sample.transpose(1, 2)
    torch.testing.assert_close(ours(network, x, n), theirs, rtol=0, atol=1e-6)  # the times are embedded in float32


def test_what_is_loaded_is_the_network_of_its_settings_and_ignores_what_is_known(saved: Path) -> None:
    network = load_unet1d(saved, HORIZON, LEVELS)
    again = TemporalUNet(6, HORIZON, 0, network.config)
    again.load_state_dict(network.state_dict())
    x, n = trajectories(6), torch.tensor([3])
    assert torch.equal(ours(again, x, n), ours(network, x, n))
    with torch.no_grad():
        known = network(x, torch.randn_like(x), torch.ones(x.shape, dtype=torch.bool), (n + 1) / LEVELS)
    assert torch.equal(known, ours(network, x, n))


def test_actions_first_become_observations_first(saved: Path) -> None:
    x, n = trajectories(6).double(), torch.tensor([5])  # in float32 the order of a sum shows for some weights
    reordered = load_unet1d(saved, HORIZON, LEVELS, act_dim=2).double()
    theirs = ours(load_unet1d(saved, HORIZON, LEVELS).double(), x, n)
    torch.testing.assert_close(ours(reordered, torch.cat([x[..., 2:], x[..., :2]], -1), n),
                               torch.cat([theirs[..., 2:], theirs[..., :2]], -1))
    with pytest.raises(PretrainedError, match="has 6 entries; 7 of them cannot be actions"):
        load_unet1d(saved, HORIZON, LEVELS, act_dim=7)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("down_block_types", ["DownResnetBlock1D", "AttnDownBlock1D"], "down_block_types is .*AttnDownBlock1D"),
    ("mid_block_type", "ValueFunctionMidBlock1D", "mid_block_type is 'ValueFunctionMidBlock1D'; MidResTemporal"),
    ("flip_sin_to_cos", True, "flip_sin_to_cos is True; False is expected"),
    ("down_block_types", None, "down_block_types is None"),
])
def test_another_network_of_diffusers_is_refused_naming_the_block(saved: Path, name: str, value: object,
                                                                  message: str) -> None:
    change(saved, **{name: value})
    with pytest.raises(PretrainedError, match=rf"config\.json: {message}"):
        load_unet1d(saved, HORIZON, LEVELS)


def test_a_pickle_is_never_opened(saved: Path) -> None:
    path = saved / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(PretrainedError, match=r"\.bin: is a pickle, which is never loaded; save the model again"):
        load_unet1d(saved, HORIZON, LEVELS)


# -- Diffuser


def layout(dim: int, width: int, multipliers: tuple[int, ...], kernel: int = 5) -> Weights:
    """Random weights under the names of Diffuser's published TemporalUnet."""
    g, weights = torch.Generator().manual_seed(0), {}

    def layer(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = torch.randn(shape, generator=g) / max(1, torch.tensor(shape[1:]).prod()) ** 0.5
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[1] if ".3.conv" in name else shape[0], generator=g)

    def block(name: str, i: int, o: int) -> None:
        for k, channels in ((0, i), (1, o)):
            layer(f"{name}.blocks.{k}.block.0", o, channels, kernel)
            layer(f"{name}.blocks.{k}.block.2", o)
        layer(f"{name}.time_mlp.1", o, width)
        if i != o:
            layer(f"{name}.residual_conv", o, i, 1)

    channels = [dim, *(width * m for m in multipliers)]
    last = len(multipliers) - 1
    layer("time_mlp.1", 4 * width, width)
    layer("time_mlp.3", width, 4 * width)
    for level, (i, o) in enumerate(pairwise(channels)):
        block(f"downs.{level}.0", i, o)
        block(f"downs.{level}.1", o, o)
        if level < last:
            layer(f"downs.{level}.3.conv", o, o, 3)
    block("mid_block1", channels[-1], channels[-1])
    block("mid_block2", channels[-1], channels[-1])
    for k, level in enumerate(range(last, 0, -1)):
        block(f"ups.{k}.0", 2 * channels[level + 1], channels[level])
        block(f"ups.{k}.1", channels[level], channels[level])
        layer(f"ups.{k}.3.conv", channels[level], channels[level], 4)
    layer("final_conv.0.block.0", width, width, kernel)
    layer("final_conv.0.block.2", width)
    layer("final_conv.1", dim, width, 1)
    return weights


def diffuser(w: Weights, x_RHD: Tensor, n_R: Tensor) -> Tensor:
    """That network as functions of its weights (Janner et al. 2022, appendix C)."""

    def affine(name: str) -> tuple[Tensor, Tensor]:
        return w[f"{name}.weight"], w[f"{name}.bias"]

    def convolution(h: Tensor, name: str) -> Tensor:
        kernel = w[f"{name}.block.0.weight"].shape[-1]
        h = F.conv1d(h, *affine(f"{name}.block.0"), padding=kernel // 2)
        return F.mish(F.group_norm(h, 8, *affine(f"{name}.block.2")))

    def block(h: Tensor, name: str) -> Tensor:
        inner = convolution(h, f"{name}.blocks.0") + F.linear(F.mish(time), *affine(f"{name}.time_mlp.1"))[..., None]
        beside = F.conv1d(h, *affine(f"{name}.residual_conv")) if f"{name}.residual_conv.weight" in w else h
        return convolution(inner, f"{name}.blocks.1") + beside

    half = w["time_mlp.1.weight"].shape[1] // 2
    angle = n_R[:, None] * 10_000 ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
    time = torch.cat([angle.sin(), angle.cos()], -1).float()
    time = F.linear(F.mish(F.linear(time, *affine("time_mlp.1"))), *affine("time_mlp.3"))
    h, skips, level = x_RHD.transpose(1, 2), [], 0
    while f"downs.{level}.0.time_mlp.1.weight" in w:
        h = block(block(h, f"downs.{level}.0"), f"downs.{level}.1")
        skips.append(h)
        if f"downs.{level}.3.conv.weight" in w:
            h = F.conv1d(h, *affine(f"downs.{level}.3.conv"), stride=2, padding=1)
        level += 1
    h = block(block(h, "mid_block1"), "mid_block2")
    for k in range(level - 1):
        h = block(block(torch.cat([h, skips[-1 - k]], 1), f"ups.{k}.0"), f"ups.{k}.1")
        h = F.conv_transpose1d(h, *affine(f"ups.{k}.3.conv"), stride=2, padding=1)
    return F.conv1d(convolution(h, "final_conv.0"), *affine("final_conv.1")).transpose(1, 2)


@pytest.fixture
def weights() -> Weights:
    return layout(6, 8, (1, 2))


def load(folder: Path, weights: Weights, horizon: int = HORIZON, levels: int = LEVELS) -> TemporalUNet:
    save_file(weights, folder / "unet.safetensors")
    return load_diffuser(folder / "unet.safetensors", horizon, levels)


@pytest.mark.parametrize(("dim", "width", "multipliers", "kernel"), [
    (14, 32, (1, 4, 8), 5), (3, 8, (1,), 3), (2, 16, (1, 1, 3), 7)])
@pytest.mark.parametrize("levels", [20, 256])  # as published
def test_diffusers_layout_gives_what_the_paper_says(tmp_path: Path, dim: int, width: int, multipliers: tuple[int, ...],
                                                    kernel: int, levels: int) -> None:
    weights, x = layout(dim, width, multipliers, kernel), trajectories(dim)
    n = torch.tensor([0, 1, levels // 2, levels - 1])
    theirs = diffuser(weights, x, n)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours(load(tmp_path, weights, levels=levels), x, n, levels), theirs, rtol=0, atol=1e-5)


def test_the_state_of_its_gaussian_diffusion_is_read_too(tmp_path: Path, weights: Weights) -> None:
    whole = {f"model.{name}": w for name, w in weights.items()} | {"betas": torch.rand(LEVELS),
                                                                  "loss_fn.weights": torch.ones(HORIZON, 6)}
    x, n = trajectories(6), torch.tensor([4])
    assert torch.equal(ours(load(tmp_path, whole), x, n), ours(load(tmp_path, weights), x, n))
    with pytest.raises(PretrainedError, match="was trained with 20 noise levels; 100 were given"):
        load(tmp_path, whole, levels=100)


def test_half_precision_is_read_as_float32(tmp_path: Path, weights: Weights) -> None:
    network = load(tmp_path, {name: w.half() for name, w in weights.items()})
    assert {p.dtype for p in network.parameters()} == {torch.float32}


# -- what is refused


@pytest.mark.parametrize(("name", "value", "message"), [
    ("mid_block1.time_mlp.1.bias", None, "'mid_block1.time_mlp.1.bias' is missing; shape \\(16,\\)"),
    ("downs.0.0.blocks.0.block.0.weight", None, "'downs.0.0.blocks.0.block.0.weight' is missing; every temporal"),
    ("downs.1.2.fn.fn.to_qkv.weight", torch.zeros(1), "'downs.1.2.fn.fn.to_qkv.weight' is unknown; .*attention"),
    ("time_mlp.3.weight", torch.zeros(8, 31), "'time_mlp.3.weight' has shape \\(8, 31\\); \\(8, 32\\) is expected"),
    ("downs.0.0.blocks.0.block.0.weight", torch.zeros(8, 0, 5), "has shape \\(8, 0, 5\\)"),
    ("downs.1.0.blocks.0.block.0.weight", torch.zeros(12, 8, 5), "levels have \\[8, 12\\] channels; multiples"),
    ("downs.0.0.blocks.0.block.0.weight", torch.zeros(8, 6, 4), "an odd kernel"),
    ("final_conv.1.bias", torch.full((6,), torch.nan), "'final_conv.1.bias' is torch.float32 or not finite"),
])
def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path, weights: Weights, name: str,
                                                            value: Tensor | None, message: str) -> None:
    weights.pop(name, None)
    with pytest.raises(PretrainedError, match=rf"unet\.safetensors: .*{message}") as caught:
        load(tmp_path, weights if value is None else weights | {name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("horizon", "levels", "message"), [(7, LEVELS, "horizon 7 cannot be halved"),
                                                            (HORIZON, 0, "0 noise levels were given")])
def test_a_horizon_or_levels_that_do_not_fit_are_refused(tmp_path: Path, weights: Weights, horizon: int, levels: int,
                                                         message: str) -> None:
    with pytest.raises(PretrainedError, match=message):
        load(tmp_path, weights, horizon, levels)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01."])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "unet.safetensors"
    path.write_bytes(content)
    with pytest.raises(PretrainedError, match=r"unet\.safetensors: is not a safetensors file"):
        load_diffuser(path, HORIZON, LEVELS)
