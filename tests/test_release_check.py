"""`make release-check` follows requirements without extras, and notices a wheel that is not what it should be."""

from __future__ import annotations

import importlib.util
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
assert SPEC is not None and SPEC.loader is not None
release = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release)


def test_the_requirements_of_gentraj_are_followed_without_its_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [each.name.lower() for each in release.required(project["dependencies"])]
    assert {"torch", "numpy", "huggingface_hub"} <= {name.replace("-", "_") for name in names}  # by minari[hf]
    assert not {"pytest", "ray", "accelerate", "onnx"} & set(names)


def test_the_wheel_must_hold_the_tracked_files_and_be_the_same_from_the_sdist(tmp_path: Path):
    wheels = [tmp_path / name for name in ("one.whl", "same.whl", "other.whl")]
    for path, text in zip(wheels, ("1", "1", "2"), strict=True):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo("gentraj/a.py"), text)
    one, same, other = wheels
    release.check_wheel(one, same, {"gentraj/a.py", "tests/b.py"})
    with pytest.raises(release.ReleaseError, match=r"builds another one\.whl"):
        release.check_wheel(one, other, {"gentraj/a.py"})
    with pytest.raises(release.ReleaseError, match=r"differ by 1 files: agents/c\.py"):
        release.check_wheel(one, same, {"gentraj/a.py", "agents/c.py"})
