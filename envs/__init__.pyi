from .evaluation.rollout import Rollout, RolloutSettings, rollout
from .evaluation.stepping import EnvCrashed, EnvironmentFault
from .making import EnvironmentFactory, environment_factory
from .recording.baselines import RandomAgent
from .sb3_vector import SB3Vector
from .worlds.imagined import ImaginedConfig, WorldModelEnv, WorldModelVectorEnv

__all__ = [
    "EnvCrashed", "EnvironmentFactory", "EnvironmentFault", "ImaginedConfig", "RandomAgent", "Rollout",
    "RolloutSettings", "SB3Vector", "WorldModelEnv", "WorldModelVectorEnv", "environment_factory", "rollout",
]
