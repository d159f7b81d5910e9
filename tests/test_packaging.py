"""The package keeps its promises about itself: what it needs is declared, and what it should not load is not loaded."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = CONFIG["project"]
SOURCES = sorted(path for room in ("gentraj", "envs", "agents") for path in (ROOT / room).rglob("*.py"))
OWN = {"gentraj"}
PACKAGE_OF = {"PIL": "pillow", "functorch": "torch", "pydantic_core": "pydantic"}  # of imports with another name
NAME = re.compile(r"^([A-Za-z0-9._-]+)")


def imports(path: Path) -> Iterator[str]:
    """Top-level names of every absolute import, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def test_every_import_is_declared():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    declared = {NAME.match(requirement)[1].lower().replace("-", "_") for group in groups for requirement in group}
    used = {name for path in SOURCES for name in imports(path)} - OWN - set(sys.stdlib_module_names)
    assert {PACKAGE_OF.get(name, name).lower() for name in used} <= declared


def test_the_core_imports_no_environment_library():
    outer = {"agents", "envs", "cli", "experiments", "runs", "studio", "testing", "__main__"}
    modules = [module.name for module in pkgutil.walk_packages([str(ROOT / "gentraj")], "gentraj.")]
    core = [name for name in modules if name.split(".")[1] not in outer]
    heavy = ["gymnasium", "gymnasium_robotics", "minari", "mujoco", "matplotlib", "gentraj.envs", "gentraj.agents",
             "huggingface_hub", "pyarrow", "lerobot", "d3rlpy", "tensorboard", "wandb"]
    code = f"import sys, {', '.join(core)}; sys.exit([m for m in {heavy} if m in sys.modules] or 0)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr.strip(), run.stderr


def layers() -> list[list[str]]:
    """Returns the layers of the import contract, from the commands down."""
    contract = CONFIG["tool"]["importlinter"]["contracts"][0]
    return [re.findall(r"[\w.]+", layer) for layer in contract["layers"]]


def test_every_room_has_its_place_in_the_layers():
    """import-linter checks only what its contract names."""
    rooms = {module.name for module in pkgutil.iter_modules([str(ROOT / "gentraj")], "gentraj.")}
    assert rooms - {"gentraj.__main__"} <= {room for layer in layers() for room in layer}


def test_no_modules_import_each_other_in_a_circle():
    """Not even inside functions or for type checkers."""
    graph = grimp.build_graph("gentraj", exclude_type_checking_imports=False)
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while free := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in free:
            del left[module]
    assert not left
