"""Published weights: a `diffusers` model, which restates Diffuser's network, under Diffuser's names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_1d import UNet1DModel
from safetensors.torch import save_file
from torch import Tensor

from gentraj.networks import TemporalUNet
from gentraj.networks.temporal_unet import PretrainedError, load_diffuser

LEVELS, HORIZON = 20, 8
Weights = dict[str, Tensor]
NAMES = (  # patterns in the names of `diffusers`, and their replacements in Diffuser's
    (r"time_mlp\.linear_1", "time_mlp.1"), (r"time_mlp\.linear_2", "time_mlp.3"), (r"time_emb\.", "time_mlp.1."),
    (r"(down|up)_blocks\.(\d+)\.resnets", r"\1s.\2"), (r"mid_block\.resnets\.0", "mid_block1"),
    (r"mid_block\.resnets\.1", "mid_block2"), (r"(down|up)_blocks\.(\d+)\.\1sample", r"\1s.\2.3"),
    (r"conv_in\.conv1d", "blocks.0.block.0"), (r"conv_in\.group_norm", "blocks.0.block.2"),
    (r"conv_out\.conv1d", "blocks.1.block.0"), (r"conv_out\.group_norm", "blocks.1.block.2"),
    (r"out_block\.final_conv1d_1", "final_conv.0.block.0"), (r"out_block\.final_conv1d_gn", "final_conv.0.block.2"),
    (r"out_block\.final_conv1d_2", "final_conv.1"),
)


def ours(network: TemporalUNet, x: Tensor, n: Tensor, known: Tensor | None = None) -> Tensor:
    """The loaded network at integer levels, given nothing known, or everything."""
    with torch.no_grad():
        mask = torch.full(x.shape, known is not None)
        return network(x, torch.zeros_like(x) if known is None else known, mask, (n + 1) / LEVELS)


def trajectories(dim: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, HORIZON, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


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


def published(model: UNet1DModel) -> Weights:
    """Its weights under Diffuser's names."""
    renamed = dict[str, Tensor]()
    for name, weight in model.state_dict().items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = weight
    return renamed


def load(folder: Path, weights: Weights, horizon: int = HORIZON, act_dim: int = 0) -> TemporalUNet:
    save_file(weights, folder / "unet.safetensors")
    return load_diffuser(folder / "unet.safetensors", horizon, LEVELS, act_dim=act_dim)


@pytest.mark.parametrize(("channels", "dim"), [((8, 16, 32, 64), 6), ((16, 64, 32), 1), ((8, 16), 8)])
def test_it_gives_the_outputs_of_the_network_that_it_is(tmp_path: Path, channels: tuple[int, ...], dim: int) -> None:
    model, x, n = unet1d(channels, dim), trajectories(dim), torch.tensor([0, 1, 7, 19])
    network = load(tmp_path, published(model)).double()
    with torch.no_grad():
        theirs = model.double()(x.transpose(1, 2), n).sample.transpose(1, 2)
    torch.testing.assert_close(ours(network, x, n), theirs, rtol=0, atol=1e-6)  # the times are embedded in float32
    assert torch.equal(ours(network, x, n, known=torch.randn_like(x)), ours(network, x, n))


def test_actions_first_become_observations_first(tmp_path: Path) -> None:
    x, n, weights = trajectories(6), torch.tensor([5]), published(unet1d((8, 16)))
    theirs = ours(load(tmp_path, weights).double(), x, n)
    reordered = ours(load(tmp_path, weights, act_dim=2).double(), torch.cat([x[..., 2:], x[..., :2]], -1), n)
    torch.testing.assert_close(reordered, torch.cat([theirs[..., 2:], theirs[..., :2]], -1))


def test_the_state_of_a_gaussian_diffusion_is_read_too_in_half_precision(tmp_path: Path) -> None:
    weights = {name: w.half() for name, w in published(unet1d((8, 16))).items()}
    whole = {f"model.{name}": w for name, w in weights.items()} | {"betas": torch.rand(LEVELS),
                                                                  "loss_fn.weights": torch.ones(HORIZON, 6)}
    x, n = trajectories(6), torch.tensor([4])
    assert torch.equal(ours(load(tmp_path, whole).double(), x, n), ours(load(tmp_path, weights).double(), x, n))
    with pytest.raises(PretrainedError, match="was trained with 19 noise levels; 20 were given"):
        load(tmp_path, whole | {"betas": torch.rand(19)})


@pytest.mark.parametrize(("change", "message"), [
    (lambda weights: weights.pop("mid_block1.time_mlp.1.bias"), "mid_block1.time_mlp.1.bias"),
    (lambda weights: weights.update({"downs.1.2.fn.fn.to_qkv.weight": torch.zeros(1)}), "no place for 'downs.1.2.fn"),
    (lambda weights: weights.update({"time_mlp.3.weight": torch.zeros(8, 31)}), "time.3.weight")])
def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path, change, message: str) -> None:
    weights = published(unet1d((8, 16)))
    change(weights)
    with pytest.raises(PretrainedError, match=rf"unet\.safetensors: does not hold .*{message}") as caught:
        load(tmp_path, weights)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(PretrainedError, match=r"unet\.safetensors: does not hold"):
        load_diffuser(path, HORIZON, LEVELS)
