"""gentraj's own packages `agents` and `envs` beside a project's folders of the same names."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any


class Siblings:
    """Finds our `agents` and `envs` where a folder (or a module) of that name comes first on Python's path.

    `import agents` still gives that one, with whatever its `__init__.py` does; our modules are found in it too, before
    its own. One that has the name of one of ours is told.
    """

    NAMES = ("agents", "envs")

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in cls.NAMES:
            return None
        ours, spec = cls.folder(name), PathFinder.find_spec(name)
        if spec is None or spec.origin is None:  # nowhere on the path, or folders without an __init__.py
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
        return Path(__file__).resolve().parents[1] / name

    @classmethod
    def twice(cls, name: str, theirs: list[str]) -> list[str]:
        """The modules that are both in our folder and in theirs."""
        own, *others = ({path.stem for path in Path(one).glob("[!_.]*") if path.suffix in ("", ".py")}
                        for one in (cls.folder(name), *theirs))
        return sorted(own & set().union(*others))

    @classmethod
    def join(cls, name: str) -> None:
        """The same for one that was imported before gentraj. Raises ImportError where it is too late for that."""
        there = sys.modules.get(name)
        theirs = list(getattr(there, "__path__", []))
        if there is None or any(cls.folder(name).samefile(one) for one in theirs if os.path.isdir(one)):
            return
        there.__path__ = [str(cls.folder(name)), *theirs]
        for both in cls.twice(name, theirs):
            if f"{name}.{both}" in sys.modules:
                raise ImportError(f"{sys.modules[f'{name}.{both}'].__file__ or theirs[0]} hides gentraj's own module "
                                  f"{name}.{both}; rename yours")


def install() -> None:
    """From now on our modules are found. Raises ImportError where one of theirs hides ours already."""
    sys.meta_path.insert(0, Siblings)  # pyright: ignore[reportArgumentType]
    for name in Siblings.NAMES:
        Siblings.join(name)
