"""An ant that walks in a given direction, which records data in OGBench's ant mazes.

It is trained as OGBench trains its own (Park et al. 2025, arXiv 2410.20092): by SAC (Haarnoja et al. 2018, arXiv
1812.05905), on the distance in a direction that is drawn anew every 100 steps. The file `ant.safetensors` beside this
module is what `python -m gentraj.envs.recording.walker --file FILE` writes in about half an hour of a free core.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import tyro
from safetensors.numpy import load_file, save_file

from gentraj.files import new_path
from gentraj.progress import bar
from gentraj.randomness import seeded

if TYPE_CHECKING:
    from stable_baselines3 import SAC

WEIGHTS = Path(__file__).with_name("ant.safetensors")
TRAIN_STEPS = 180_000
KEPT_STEPS = 100  # for which a direction is kept in training
TARGET_ENTROPY = -4.0  # -0.5 for each of the 8 entries of an action, as OGBench has it
POSITION = 2  # leading entries of an observation of the ant in a maze, which the walker does not see
SAVED_EVERY = 20_000  # steps


class Walker:
    """A policy that maps what an ant feels, and a direction, to its mean action."""

    def __init__(self) -> None:
        weights = load_file(WEIGHTS)
        self.layers = [(weights[f"{k}.weight"].astype(np.float32), weights[f"{k}.bias"].astype(np.float32))
                       for k in range(len(weights) // 2)]

    def act(self, obs_EO: np.ndarray, direction_E2: np.ndarray) -> np.ndarray:
        """(E, 8) actions in [-1, 1] for observations (E, 29) in a maze and unit vectors of directions."""
        x_ED = np.concatenate([obs_EO[:, POSITION:], direction_E2], 1).astype(np.float32)
        for weight, bias in self.layers[:-1]:
            x_ED = np.maximum(x_ED @ weight.T + bias, 0)
        weight, bias = self.layers[-1]
        return np.tanh(x_ED @ weight.T + bias)


def train(file: Path, steps: int = TRAIN_STEPS, seed: int = 0, *, progress: bool = True) -> None:
    """Trains an ant to walk in any direction, and writes its weights every 20,000 steps and at the end.

    Raises ImportError, in one line, without stable-baselines3 or ogbench.
    """
    try:
        import gymnasium
        import ogbench.online_locomotion  # noqa: F401  registers the environment
        from ogbench.online_locomotion.wrappers import GymXYWrapper
        from stable_baselines3 import SAC
    except ImportError as error:
        raise ImportError(f"training an ant needs {error.name}: pip install 'gentraj[sb3,ogbench]'") from error
    torch.set_num_threads(1)  # its networks are small, so that more threads wait for each other
    with seeded(seed), bar(steps, "training an ant to walk", shown=progress) as done:
        env = GymXYWrapper(gymnasium.make("online-ant-v0"), resample_interval=KEPT_STEPS)
        model = SAC("MlpPolicy", env, learning_starts=10_000, target_entropy=TARGET_ENTROPY, seed=seed, device="cpu")
        while model.num_timesteps < steps:
            more = min(SAVED_EVERY, steps - model.num_timesteps)
            model.learn(more, reset_num_timesteps=model.num_timesteps == 0)
            done.update(more)
            if ended := model.ep_info_buffer:
                done.set_postfix(return_mean=f"{np.mean([info['r'] for info in ended]):.1f}")
            save(model, file)
        env.close()


def save(model: SAC, file: Path) -> None:
    """Writes the layers of the mean action of a policy, in half precision."""
    actor: Any = model.policy.actor
    layers = [layer for layer in (*actor.latent_pi, actor.mu) if hasattr(layer, "weight")]
    weights = {}
    for k, layer in enumerate(layers):
        weights[f"{k}.weight"] = layer.weight.detach().numpy().astype(np.float16)
        weights[f"{k}.bias"] = layer.bias.detach().numpy().astype(np.float16)
    with new_path(file) as temporary:
        save_file(weights, temporary)


if __name__ == "__main__":
    tyro.cli(train)
