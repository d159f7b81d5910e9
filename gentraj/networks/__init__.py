"""Networks, pure `nn.Module`: no loss, no optimiser. Adding one = one file and one line here."""

from .temporal_unet import TemporalUNet, TemporalUNetConfig

NETWORKS = {TemporalUNetConfig: TemporalUNet}

__all__ = ["NETWORKS", "TemporalUNet", "TemporalUNetConfig"]
