"""The moving pictures of docs/gallery.md are drawn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.gallery import Args, main

PAGE = Path(__file__).parents[1] / "docs" / "gallery.md"


def test_every_moving_picture_is_small_and_shown_with_its_command() -> None:
    page, pictures = PAGE.read_text(), sorted((PAGE.parent / "gallery").iterdir())
    assert {f"gallery/{picture.name}" for picture in pictures} == set(re.findall(r"\((gallery/[^)]+)\)", page))
    assert all(picture.stat().st_size < 500_000 for picture in pictures)
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections if "![" in section and "```sh" not in section] == []


@pytest.mark.parametrize("picture", ["maze", "denoising"])
def test_a_picture_of_a_small_run_moves(picture: str, small_run: Path, tmp_path: Path,
                                        capsys: pytest.CaptureFixture) -> None:
    main(Args(picture, small_run, tmp_path, steps=24))
    with Image.open(tmp_path / f"{picture}.gif") as made:
        assert made.n_frames >= 2
    assert capsys.readouterr().out.startswith(f"{tmp_path / picture}.gif: ")
