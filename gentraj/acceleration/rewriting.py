"""Networks rewritten in operations for which OpenVINO has fast kernels, with the same weights and the same outputs."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.embedding import FactoredNetwork
from ..networks.temporal_unet import ConvTranspose


def rewritten(network: FactoredNetwork) -> FactoredNetwork:
    """A copy of the network in which some modules are replaced by others that compute the same.

    OpenVINO takes most of a call of a U-Net with one row for its transposed convolutions, and most of a call with many
    rows in bfloat16 for the normalisation of groups.
    """
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, ConvTranspose):
                setattr(parent, name, SubPixelConv(module))
            elif isinstance(module, nn.GroupNorm):
                setattr(parent, name, GroupMoments(module))
    return network


class SubPixelConv(nn.Module):
    """A transposed convolution of kernel 4, stride 2 and padding 1 as a convolution of kernel 3 (Shi et al. 2016).

    y[2t] = w_1 x[t] + w_3 x[t-1] and y[2t+1] = w_2 x[t] + w_0 x[t+1] are two outputs of one convolution at t.
    """

    def __init__(self, transposed: ConvTranspose):
        super().__init__()
        w_0, w_1, w_2, w_3 = transposed.weight.detach().transpose(0, 1).unbind(-1)
        even, odd = torch.stack([w_3, w_1, 0 * w_1], -1), torch.stack([0 * w_2, w_2, w_0], -1)
        self.weight = nn.Parameter(torch.cat([even, odd])[:, :, None], requires_grad=False)
        self.bias = None if transposed.bias is None else nn.Parameter(transposed.bias.detach().repeat(2), False)

    def forward(self, h_RC1H: Tensor) -> Tensor:
        even_odd_RC1H = F.conv2d(h_RC1H, self.weight, self.bias, padding=(0, 1)).chunk(2, dim=1)
        return torch.stack(even_odd_RC1H, -1).flatten(-2)


class GroupMoments(nn.Module):
    """Normalisation of groups by their mean and variance, each written as a mean."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.norm = norm

    def forward(self, h_RC1H: Tensor) -> Tensor:
        h_RGX = h_RC1H.reshape(h_RC1H.shape[0], self.norm.num_groups, -1)
        centred_RGX = h_RGX - h_RGX.mean(-1, keepdim=True)
        variance_RG1 = (centred_RGX * centred_RGX).mean(-1, keepdim=True)
        z_RC1H = (centred_RGX / (variance_RG1 + self.norm.eps).sqrt()).view_as(h_RC1H)
        return z_RC1H * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]
