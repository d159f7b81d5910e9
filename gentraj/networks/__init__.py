"""Networks, pure `nn.Module`: no loss, no optimiser. Adding one = one file and one line here."""

from .dit import DiT, DiTConfig
from .residual_mlp import ResidualMLP, ResidualMLPConfig
from .temporal_unet import TemporalUNet, TemporalUNetConfig

# Settings are read back from JSON by their keys: no two configs may have the same field names.
NETWORKS = {
    TemporalUNetConfig: TemporalUNet,
    DiTConfig: DiT,
    ResidualMLPConfig: ResidualMLP,
}

__all__ = ["NETWORKS", "DiT", "DiTConfig", "ResidualMLP", "ResidualMLPConfig", "TemporalUNet", "TemporalUNetConfig"]
