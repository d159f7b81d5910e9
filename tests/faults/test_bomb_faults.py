"""FAULTS 15 and 17 for data: what a file declares is compared with its size before it is read, and libhdf5 is apart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny import tiny_episodes

from gentraj.data import DataError, apart, load_d4rl, load_episodes, load_npz, save_minari, save_npz

ROOT = Path(__file__).parents[2]
ROWS = 30_000_000

LOADER = """
import sys
import threading
import time
from pathlib import Path
from gentraj.data import DataError, load_episodes
def most():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
load_episodes(sys.argv[1])
before = most()
try:
    load_episodes(sys.argv[2])
except DataError as error:
    print(error)
print((most() - before) // 1024)
"""


def compressed(path: Path, rows: int) -> Path:
    zeros = np.zeros((rows, 10), np.float32)
    np.savez_compressed(path, observations=zeros, actions=zeros[:, :1], terminals=np.zeros(rows, bool))
    return path


def hdf5(path: Path, rows: int, **change: dict) -> Path:
    """A file in D4RL's layout that declares its arrays; none of them takes space in the file."""
    arrays = {"observations": {"shape": (rows, 10)}, "actions": {"shape": (rows, 1)}, "rewards": {"shape": (rows,)},
              "terminals": {"shape": (rows,), "dtype": bool}, "timeouts": {"shape": (rows,), "dtype": bool}} | change
    with h5py.File(path, "w") as file:
        for name, layout in arrays.items():
            file.create_dataset(name, **({"dtype": np.float32, "chunks": True} | layout))
    return path


@pytest.mark.parametrize(("name", "rows"), [("bomb.npz", 6_000_000), ("bomb.hdf5", ROWS)])  # 40 bytes each
def test_15_a_small_file_never_takes_much_memory(tmp_path: Path, name: str, rows: int) -> None:
    """A compressed npz of 0.2 MB with 240 MB of zeros, and an HDF5 file of a few kB that declares 1.2 GB and more."""
    good = save_npz(tiny_episodes(), tmp_path / "good.npz")
    if name.endswith("npz"):
        bomb = tmp_path / name
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("obs.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False,
                                                          "shape": (rows, 10)})
            for _ in range(rows // 30_000):
                member.write(bytes(40 * 30_000))
    else:
        bomb = hdf5(tmp_path / name, rows)
    assert bomb.stat().st_size < 3e6
    child = subprocess.run([sys.executable, "-c", LOADER, str(good), str(bomb)], capture_output=True, text=True,
                           env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert child.returncode == 0, child.stderr
    message, megabytes = child.stdout.splitlines()
    assert f"would become arrays of {40 * rows:,}"[:25] in message
    assert int(megabytes) < 60


@pytest.mark.filterwarnings("ignore:.* has no next_observations")
def test_15_data_that_compress_well_are_read(tmp_path: Path) -> None:
    """Up to 64 MiB in any case, and all that is not compressed."""
    assert load_episodes(compressed(tmp_path / "a.npz", 100_000)).num_steps == 99_999
    assert load_episodes(hdf5(tmp_path / "a.hdf5", 100_000)).num_steps == 99_999


def member(shape: tuple[int, ...], size: int, version: int = 1) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2, "little") + header + bytes(size)


@pytest.mark.parametrize(("data", "method"), [
    (member((10,), 36), zipfile.ZIP_STORED), (member((10,), 44), zipfile.ZIP_DEFLATED),
    (member((1 << 62, 8), 40), zipfile.ZIP_DEFLATED), (member((-1,), 40), zipfile.ZIP_DEFLATED),
    (member((10,), 40), zipfile.ZIP_LZMA), (member((10,), 40), zipfile.ZIP_BZIP2), (b"", zipfile.ZIP_STORED),
    (member((10,), 40, 9), zipfile.ZIP_STORED)])
def test_15_an_array_that_its_header_does_not_describe_is_refused(tmp_path: Path, data: bytes, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("obs.npy", data)
    with pytest.raises(DataError, match=r"a\.npz: cannot be read \(.*the file is damaged"):
        load_npz(tmp_path / "a.npz")


def test_16_pipes_and_devices_are_no_data(tmp_path: Path) -> None:
    for name in ("a.npz", "a.hdf5"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=f"{name}: (is not a plain file|no such file)"):
            load_episodes(tmp_path / name)
        (tmp_path / f"zero-{name}").symlink_to("/dev/zero")
        with pytest.raises(DataError, match=f"{name}: (is not a plain file|no such file)"):
            load_episodes(tmp_path / f"zero-{name}")


def test_16_the_users_own_data_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "link.npz").symlink_to(save_npz(tiny_episodes(), tmp_path / "a.npz"))
    assert load_episodes(tmp_path / "link.npz") == tiny_episodes()


@pytest.mark.parametrize(("change", "message"), [
    ({"rewards": {"shape": (10,), "dtype": "S100000000"}}, r"rewards has dtype \|S100000000; numbers are expected"),
    ({"terminals": {"shape": (10,), "dtype": "S10"}}, r"terminals has dtype \|S10; numbers are expected"),
    ({"rewards": {"shape": (10,), "chunks": (100_000_000,), "maxshape": (None,)}}, "arrays of 400,000,000 bytes"),
    ({"rewards": {"shape": (10,), "dtype": h5py.string_dtype()}}, "rewards has dtype object; numbers are expected"),
    ({"metadata/env_id": {"shape": (), "dtype": "S1000000000", "chunks": None}}, "metadata/env_id is no short text"),
])
def test_15_arrays_that_are_no_numbers_are_refused_before_they_are_read(tmp_path: Path, change: dict,
                                                                        message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.hdf5: .*{message}"):
        load_episodes(hdf5(tmp_path / "a.hdf5", 10, **change))


def test_15_a_minari_dataset_that_declares_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    save_minari(tiny_episodes(), "tiny-v0", description="tiny")
    with h5py.File(tmp_path / "tiny-v0/data/main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
        file.create_dataset("episode_1/rewards", (ROWS,), np.float32, chunks=True)
    with pytest.raises(DataError, match=r"main_data\.hdf5: its .* bytes would become arrays of "):
        load_episodes("tiny-v0")


@pytest.mark.parametrize(("code", "message"), [
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"reading it crashed \(exit -11\)"),
    ("import os; os._exit(3)", r"reading it crashed \(exit 3\)"),
    ("print('no JSON', flush=True); import time; time.sleep(60)", "reading it crashed"),
    ("bytearray(1 << 40)", r"reading it crashed \(exit 1\)"),
    ("import time; time.sleep(60)", "not read within"),
])
def test_17_a_crash_or_a_hang_of_libhdf5_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str,
                                                     message: str) -> None:
    """Training, too, reads HDF5 in a process of its own."""
    path = hdf5(tmp_path / "a.hdf5", 10)
    monkeypatch.setattr(apart, "CHILD", code)
    monkeypatch.setattr(apart, "PATIENCE", 0.5 if "within" in message else 300)
    with pytest.raises(DataError, match=rf"a\.hdf5: {message}") as caught:
        load_episodes(path)
    assert "\n" not in str(caught.value)


def test_17_a_crash_before_the_request_was_sent_is_one_line_too(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    path, timer = hdf5(tmp_path / "a.hdf5", 10), threading.Timer

    class Waiting(timer):  # is started between the process and the request
        def start(self) -> None:
            super().start()
            time.sleep(1)

    monkeypatch.setattr(apart, "CHILD", "import os; os._exit(3)")
    monkeypatch.setattr(apart.threading, "Timer", Waiting)
    with pytest.raises(DataError, match=r"a\.hdf5: reading it crashed \(exit 3\)"):
        load_episodes(path)


def test_17_the_process_that_reads_takes_no_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5(tmp_path / "a.hdf5", 1_000_000)
    monkeypatch.setattr(apart, "MEMORY", 1 << 20)
    monkeypatch.setattr(apart, "allowance", lambda path: 0)
    with pytest.raises(DataError, match=r"a\.hdf5: (cannot be read|reading it crashed)"):
        load_episodes(path)


def test_17_the_process_that_reads_ends_with_the_one_that_asked(tmp_path: Path) -> None:
    """Even by SIGKILL, and in the middle of the work."""
    code = ("import sys, time; from gentraj.data import reader\n"
            "reader.READERS = {'d4rl': lambda *_, **__: time.sleep(60)}\nreader.main()")
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert child.stdin
    child.stdin.write(b'{"reader": "d4rl", "path": "a", "arguments": {}, "memory": 1000000000}\n')
    child.stdin.close()  # as the system does when the process that asked dies
    assert child.wait() == 1


def test_17_what_is_read_apart_is_what_was_written(tmp_path: Path) -> None:
    """Bit for bit, with the warnings."""
    e, path = tiny_episodes(), tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        arrays = {"observations": e.obs[:125], "actions": e.act, "rewards": e.reward, "infos/qpos": e.obs[:125],
                  "terminals": e.terminated, "timeouts": e.truncated, "metadata/env_id": "Pusher-v5"}
        for key, value in arrays.items():
            file[key] = value
    with pytest.warns(UserWarning, match="a has no next_observations: the last step of 3 trajectories is dropped"):
        read = load_episodes(path)
    np.testing.assert_array_equal(read.act[:39], e.act[:39])
    np.testing.assert_array_equal(read.extras["qpos"], read.obs)
    assert read.obs.flags.writeable and read.name == "a"
    assert read.lengths.tolist() == [39, 24, 59]
    with pytest.raises(DataError, match="the lengths given sum to 3"):
        load_d4rl(path, [1, 2])
