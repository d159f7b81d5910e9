"""Bad data stop with one line that names the place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import tiny_episodes

from gentraj.data import DataError, Episodes, Windows, load_episodes, save_d4rl, save_npz
from gentraj.trajectory import TrajectorySpec

FIELDS = ("obs", "act", "reward", "goal")
few = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def with_goal(e: Episodes) -> Episodes:
    return replace(e, extras={"goal": e.obs + 1}, goal_dims=(0, 1))


@given(st.sampled_from(FIELDS), st.integers(0, 2), st.data(), st.sampled_from([np.nan, np.inf, -np.inf, 1e39]))
def test_one_bad_number_is_found_wherever_it_is(field, episode, data, value):
    e = with_goal(tiny_episodes())
    more = field in ("obs", "goal")
    step = data.draw(st.integers(0, int(e.lengths[episode]) - 1 + more))
    array = (e.extras["goal"] if field == "goal" else getattr(e, field)).astype(np.float64)
    array[e.starts[episode] + episode * more + step] = value  # 1e39 is finite, but not as float32
    change = {"extras": {"goal": array}} if field == "goal" else {field: array}
    with pytest.raises(DataError, match=rf"^mine: episode {episode}, step {step}: {field}(\[0\])? is (-?inf|nan) "):
        replace(e, name="mine", **change)


@pytest.mark.parametrize(("change", "message"), [
    (lambda e: {"obs": e.obs[:-3]}, r"obs has shape \(125, 2\); 3 episodes of 125 steps in all need \(128, width\)"),
    (lambda e: {"lengths": np.int64(3)}, r"lengths has shape \(\); a number for each"),
    (lambda e: {"reward": e.act}, r"reward has shape \(125, 1\); 3 episodes of 125 steps in all need \(125,\)"),
    (lambda e: {"goal_dims": (0, 2)}, r"goal_dims is \(0, 2\); entries of an observation of width 2"),
    (lambda e: {"goal_dims": (0,), "extras": {"goal": e.obs}}, r"goal has width 2; goal_dims \(0,\) need 1"),
    (lambda e: {"reward": np.ma.masked_array(e.reward, np.arange(125) == 1)}, "reward has masked entries"),
    (lambda e: {"obs": np.full(e.obs.shape, "a")}, "obs has .* dtype <U1; numbers are expected"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_shapes_that_do_not_fit_name_what_was_given_and_expected(change, message):
    with pytest.raises(DataError, match=message):
        replace(tiny_episodes(), **change(tiny_episodes()))


def test_an_episode_of_length_0_is_refused_and_of_length_1_is_not():
    e = tiny_episodes()
    with pytest.raises(DataError, match="episode 1 has 0 steps; at least 1 is expected"):
        replace(e, lengths=np.array([40, 0, 85]))
    with pytest.raises(DataError, match=r"lengths has shape \(0,\)"):
        replace(e, lengths=np.zeros(0))
    one = Episodes(np.ones((2, 2)), np.ones((1, 1)), [0], [False], [True], [1])  # pyright: ignore[reportArgumentType]
    batch = Windows(one, TrajectorySpec(2, 1, 4)).batch(0, 0, 3)
    assert batch.mask_BHD[0].int().tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("key", ["terminated", "truncated"])
def test_a_flag_inside_an_episode_is_refused(key):
    e = tiny_episodes()
    flags = getattr(e, key).copy()
    flags[[41, 50]] = True
    with pytest.raises(DataError, match=rf"episode 1, step 1: {key} is true inside .*\(steps affected: 2; "):
        replace(e, **{key: flags})


def flipped(path: Path, position: float, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[int(position * (len(raw) - 1))] ^= 1 << bit
    path.write_bytes(raw)


places = st.floats(0, 1)


@few
@given(places, st.integers(0, 7))
def test_a_flipped_bit_in_an_npz_is_refused_or_harmless(tmp_path, position, bit):
    path = save_npz(tiny_episodes(), tmp_path / "a.npz")
    flipped(path, position, bit)
    try:
        assert load_episodes(path) == tiny_episodes()  # a bit of the archive that carries no data, such as a date
    except DataError as error:
        assert "a.npz" in str(error) or str(error).startswith("a:")


@few
@given(places)
def test_a_truncated_file_is_refused_by_its_name(tmp_path, position):
    for path in (save_npz(tiny_episodes(), tmp_path / "a.npz"), save_d4rl(tiny_episodes(), tmp_path / "a.hdf5")):
        raw = path.read_bytes()
        path.write_bytes(raw[: int(position * (len(raw) - 1))])
        with pytest.raises(DataError, match=rf"{path.name}: (cannot be read|is no zip of arrays)"):
            load_episodes(path)


class Canary:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["x" * 300 + "/y.hdf5", "\0", "~nobody-here/y.npz"])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(DataError):
        load_episodes(name)


def test_a_pickle_in_an_npz_is_not_executed(tmp_path):
    path = save_npz(tiny_episodes(), tmp_path / "a.npz")
    np.savez(path, **(dict(np.load(path)) | {"obs": np.array([Canary(tmp_path / "canary")], dtype=object)}))  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=r"a\.npz: .* Python objects \(pickles\), which can run code"):
        load_episodes(path)
    assert not (tmp_path / "canary").exists()
