"""The moving pictures of docs/gallery.md are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.gallery import Args, main


@pytest.mark.parametrize("picture", ["maze", "denoising"])
def test_a_picture_of_a_small_run_moves(picture: str, small_run: Path, tmp_path: Path,
                                        capsys: pytest.CaptureFixture) -> None:
    main(Args(picture, small_run, tmp_path, steps=24))
    with Image.open(tmp_path / f"{picture}.gif") as made:
        assert made.n_frames >= 2
    assert capsys.readouterr().out.startswith(f"{tmp_path / picture}.gif: ")
