"""Networks: pure `nn.Module`, without losses and optimisers. To add one, write one file and add one line here."""

from typing import TYPE_CHECKING, Union

from ..config import Registry
from .dit import DiT, DiTConfig
from .mlp import ValueEnsemble
from .perceptron import Perceptron, PerceptronConfig, ResidualMLP, ResidualMLPConfig
from .temporal_unet import TemporalUNet, TemporalUNetConfig

NETWORKS = Registry({
    "temporalunet": (TemporalUNetConfig, TemporalUNet),
    "dit": (DiTConfig, DiT),
    "residualmlp": (ResidualMLPConfig, ResidualMLP),
    "perceptron": (PerceptronConfig, Perceptron),
})
"""The networks of trajectories by their kinds: the class of the settings, and the class of the network."""

if TYPE_CHECKING:
    NetworkConfig = TemporalUNetConfig | DiTConfig | ResidualMLPConfig | PerceptronConfig
    """The settings of any of these networks."""
else:
    NetworkConfig = Union[NETWORKS.configs]  # noqa: UP007  the settings of the networks above

__all__ = ["NETWORKS", "DiT", "DiTConfig", "NetworkConfig", "Perceptron", "PerceptronConfig", "ResidualMLP",
           "ResidualMLPConfig", "TemporalUNet", "TemporalUNetConfig", "ValueEnsemble"]
