"""Networks: pure `nn.Module`, without losses and optimisers. To add one, write one file and add one line here."""

from torch import nn

from ..config import Registry
from .dit import DiT, DiTConfig
from .embedding import NetworkConfig
from .mlp import ValueEnsemble
from .perceptron import Perceptron, PerceptronConfig, ResidualMLP, ResidualMLPConfig
from .temporal_unet import TemporalUNet, TemporalUNetConfig

NETWORKS: Registry[NetworkConfig, nn.Module] = Registry({
    "temporalunet": (TemporalUNetConfig, TemporalUNet),
    "dit": (DiTConfig, DiT),
    "residualmlp": (ResidualMLPConfig, ResidualMLP),
    "perceptron": (PerceptronConfig, Perceptron),
})
"""The networks of trajectories by their kinds: the class of the settings, and the class of the network."""

__all__ = ["NETWORKS", "DiT", "DiTConfig", "NetworkConfig", "Perceptron", "PerceptronConfig", "ResidualMLP",
           "ResidualMLPConfig", "TemporalUNet", "TemporalUNetConfig", "ValueEnsemble"]
