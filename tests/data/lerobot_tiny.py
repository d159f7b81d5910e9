"""The tiny LeRobot dataset of the tests: `python tests/data/lerobot_tiny.py OUT` writes it by the real library.

lerobot 0.4.4 wrote the folder `lerobot-tiny` beside this file, of which only what gentraj reads is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

LENGTHS = (5, 3, 4)
WIDTHS = {"observation.state": 3, "observation.environment_state": 2, "action": 2, "next.reward": 1}


def frames() -> dict[str, np.ndarray]:
    """The numbers of all frames, (12, width) each; the last frame of an episode is done."""
    rng, N = np.random.default_rng(0), sum(LENGTHS)
    numbers = {key: rng.normal(size=(N, width)).astype(np.float32) for key, width in WIDTHS.items()}
    return numbers | {"next.done": np.isin(np.arange(N), np.cumsum(LENGTHS) - 1)[:, None]}


def write(out: Path, arrays: dict[str, np.ndarray], lengths: tuple[int, ...], images: bool = True) -> None:
    """Writes a dataset by the real library, with one more image in each frame."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {key: {"dtype": str(array.dtype), "shape": array.shape[1:], "names": None}
                for key, array in arrays.items()}
    picture = {"observation.images.top": {"dtype": "image", "shape": (8, 8, 3), "names": ["height", "width", "rgb"]}}
    dataset = LeRobotDataset.create("tests/tiny", fps=10, features=features | (picture if images else {}), root=out,
                                    use_videos=False)
    ends, N = np.cumsum(lengths), sum(lengths)
    for i in range(N):
        image = {"observation.images.top": np.full((8, 8, 3), i, np.uint8)} if images else {}
        dataset.add_frame({key: array[i] for key, array in arrays.items()} | image | {"task": "touch"})
        if i + 1 in ends:
            dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    write(Path(sys.argv[1]), frames(), LENGTHS)
