"""What `gentraj sample` writes is what `run.sample` returns, for a start, a goal and a time of arrival."""

from pathlib import Path

import pytest
import torch
from small import gentraj

from gentraj.runs import load


def test_the_function_samples_what_the_command_writes(small_run: Path, tmp_path: Path) -> None:
    samples = load(small_run).sample((1, -1), 3, goal=torch.tensor([-1, 1]), arrival=9, seed=4)
    assert samples.obs_NHO.shape == (3, 32, 4) and samples.act_NHA.shape == (3, 32, 0) and samples.stride == 5
    assert (samples.obs_NHO[:, 0, :2] == torch.tensor([1, -1])).all()
    assert (samples.obs_NHO[:, 9, :2] == torch.tensor([-1, 1])).all()
    samples.save(tmp_path / "function.npz")
    words = ("--num", 3, "--start", 1, -1, "--goal", -1, 1, "--arrival", 9, "--seed", 4)
    assert gentraj("sample", small_run, *words, "--out", tmp_path / "command.npz") == 0
    assert (tmp_path / "function.npz").read_bytes() == (tmp_path / "command.npz").read_bytes()


@pytest.mark.parametrize(("given", "message"), [
    ({"arrival": 3}, "give goal=, too"),
    ({"guidance": 3.0}, "needs a context"), ({"start": (1.0, 1.0, 0.0)}, "start= has 3 numbers; 4"),
    ({"context": (1.0,)}, r"context= has 1 numbers; 0 \(no context\) are expected")])
def test_what_does_not_fit_the_run_is_refused(given: dict, message: str, small_run: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(small_run).sample(num=2, **given)


@pytest.mark.parametrize("start", ["left", (torch.zeros(2), torch.zeros(1)), [[1], [2, 3]]])
def test_a_start_is_an_array_of_numbers(start: object, small_run: Path) -> None:
    with pytest.raises(TypeError, match="the start is"):
        load(small_run).sample(start)  # pyright: ignore[reportArgumentType]
