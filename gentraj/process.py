"""What concerns a whole process: where it finds gentraj's packages, and that it ends with the process that started it.

`import gentraj` loads this module, so it imports what takes time only where that is used.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

IMPORTS = "GENTRAJ_IMPORT"  # environment variable with the modules of `gentraj --import`, separated by commas
PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


class PackageFinder:
    """An import hook that finds gentraj's `agents` and `envs` where another package of that name comes first on the
    path.

    `import agents` still imports the project's package and runs its `__init__.py`. gentraj's modules are then found in
    that package, too, before its own. A warning names the modules that both packages have.
    """

    NAMES = ("agents", "envs")

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in cls.NAMES:
            return None
        ours, spec = cls.folder(name), PathFinder.find_spec(name)
        if spec is None or spec.origin is None:  # not on the path, or only a folder without an __init__.py
            return spec_from_file_location(name, ours / "__init__.py", submodule_search_locations=[str(ours)])
        theirs = list(spec.submodule_search_locations or [])
        if not any(ours.samefile(one) for one in theirs if os.path.isdir(one)):
            spec.submodule_search_locations = [str(ours), *theirs]
            if both := cls.twice(name, theirs):
                warnings.warn(f"{theirs[0]} hides gentraj's folder of the same name, and both have {', '.join(both)}: "
                              "gentraj's are used; rename yours", stacklevel=2)
        return spec

    @staticmethod
    def folder(name: str) -> Path:
        """gentraj's own folder of this name."""
        return Path(__file__).resolve().parents[1] / name

    @classmethod
    def twice(cls, name: str, theirs: list[str]) -> list[str]:
        """The names of modules that both gentraj's folder and one of the other folders have."""
        own, *others = ({path.stem for path in Path(one).glob("[!_.]*") if path.suffix in ("", ".py")}
                        for one in (cls.folder(name), *theirs))
        return sorted(own & set().union(*others))

    @classmethod
    def join(cls, name: str) -> None:
        """Adds gentraj's folder to a package that was imported before gentraj.

        Raises ImportError if a module of the package that hides one of gentraj's has been imported already.
        """
        package = sys.modules.get(name)
        if package is None:
            return
        theirs = list(vars(package).get("__path__", []))
        if any(cls.folder(name).samefile(one) for one in theirs if os.path.isdir(one)):
            return
        package.__path__ = [str(cls.folder(name)), *theirs]
        for both in cls.twice(name, theirs):
            if f"{name}.{both}" in sys.modules:
                raise ImportError(f"{sys.modules[f'{name}.{both}'].__file__ or theirs[0]} hides gentraj's own module "
                                  f"{name}.{both}; rename yours")


def install() -> None:
    """Installs the import hook. Raises ImportError if a module that was imported before hides one of gentraj's."""
    sys.meta_path.insert(0, PackageFinder)  # pyright: ignore[reportArgumentType]
    for name in PackageFinder.NAMES:
        PackageFinder.join(name)


def is_alive(pid: int) -> bool:
    """Whether a process with this number exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the latter for a number that no process can have
        return False
    except PermissionError:  # the process belongs to another user
        pass
    return True


def end_with_parent(grace: float = 0.0) -> None:
    """Ends this process when its parent has died, even by SIGKILL: by SIGTERM, and at once `grace` seconds later.

    Without grace, Linux kills the process even where a call of C code never returns to Python.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return
    if not grace and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def end() -> None:
        parent.join()
        if grace:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
