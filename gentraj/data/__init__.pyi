from .d4rl import d4rl_reference, save_d4rl
from .episodes import DataError, Episodes, episodes_hash, problems, save_npz
from .goals import HindsightConfig
from .hindsight import HindsightWindows, windows_of
from .minari_io import save_minari
from .sources import inspect, load_episodes
from .splitting import concatenate, stitch
from .tables import read_table
from .windows import CONTEXTS, ContextConfig, Windows

__all__ = ["CONTEXTS", "ContextConfig", "DataError", "Episodes", "HindsightConfig", "HindsightWindows", "Windows",
           "concatenate", "d4rl_reference", "episodes_hash", "inspect", "load_episodes", "problems", "read_table",
           "save_d4rl", "save_minari", "save_npz", "stitch", "windows_of"]
