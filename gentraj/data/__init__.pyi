from .commands import inspect
from .context import CONTEXTS, ContextConfig
from .d3rlpy import from_d3rlpy, save_d3rlpy, to_d3rlpy
from .d4rl import d4rl_reference, load_d4rl
from .episodes import Episodes, episodes_hash, problems
from .minari_writer import save_minari
from .npz import save_npz
from .sources import load_episodes
from .splitting import concatenate, stitch
from .validation import DataError
from .windows import Windows

__all__ = ["CONTEXTS", "ContextConfig", "DataError", "Episodes", "Windows", "concatenate", "d4rl_reference",
           "episodes_hash", "from_d3rlpy", "inspect", "load_d4rl", "load_episodes", "problems", "save_d3rlpy",
           "save_minari", "save_npz", "stitch", "to_d3rlpy"]
