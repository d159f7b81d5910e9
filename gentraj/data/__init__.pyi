from .commands import inspect
from .context import CONTEXTS, ContextConfig
from .d3rlpy import from_d3rlpy, save_d3rlpy, to_d3rlpy
from .d4rl import d4rl_reference, load_d4rl
from .episodes import Episodes, episodes_hash, problems
from .lerobot import load_lerobot
from .minari_io import load_minari
from .minari_writer import save_minari
from .npz import load_npz, save_npz
from .ogbench import load_ogbench
from .sources import load_episodes
from .splitting import concatenate, stitch
from .validation import DataError
from .windows import Windows

__all__ = ["CONTEXTS", "ContextConfig", "DataError", "Episodes", "Windows", "concatenate", "d4rl_reference",
           "episodes_hash", "from_d3rlpy", "inspect", "load_d4rl", "load_episodes", "load_lerobot", "load_minari",
           "load_npz", "load_ogbench", "problems", "save_d3rlpy", "save_minari", "save_npz", "stitch", "to_d3rlpy"]
