"""`benchmarks/speed.py`: what it makes of times, and that the manual says what it measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import speed
from benchmarks.speed_cases import HOPPER, MAZE, model_of
from benchmarks.speed_peers import CPU, Case, Setup, diffusers_unet

ROOT = Path(__file__).parents[2]


class Work:
    """Calls that take a given time of a clock that nothing else moves, and are written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now, self.order = 0.0, list[str]()
        monkeypatch.setattr(speed, "clock", lambda device: self.now)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        left = list(seconds)

        def work() -> None:
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def test_calls_take_turns_and_the_first_round_is_not_counted(work: Work) -> None:
    times = speed.by_turns({"a": work.call("a", 50, 2), "b": work.call("b", 70, 1)}, 4, 1e9, CPU)
    assert work.order == ["a", "b"] * 5 and times == {"a": [2] * 4, "b": [1] * 4}


def test_no_round_begins_when_time_is_up_but_there_are_three(work: Work) -> None:
    assert speed.by_turns({"a": work.call("a", 1)}, 9, 5.5, CPU) == {"a": [1] * 5}
    assert speed.by_turns({"a": work.call("a", 1)}, 9, 0.0, CPU) == {"a": [1] * 3}


def test_a_speed_up_is_the_median_over_the_rounds_of_the_ratio(work: Work) -> None:
    case = Case("work", {"peer": lambda setup: work.call("peer", 0, 2, 4, 60)},
                lambda setup: {"eager": work.call("eager", 0, 1, 2, 3), "fast": work.call("fast", 1)})
    found = speed.beside_peers(case, Setup(), 3, 1e9)
    assert found["peers"] == ["peer"] and found["rounds"] == 3 and found["ms"]["eager"]["median"] == 2000
    assert found["speedup"]["peer"]["eager"] == {"low": 2, "median": 2, "high": 11}
    assert found["speedup"]["peer"]["fast"]["median"] == 4


@pytest.mark.parametrize("name", ["ddim/hopper/1", "update/fql"])
def test_a_case_is_measured(name: str, tmp_path: Path) -> None:
    speed.main(speed.Options((name,), (), rounds=1, seconds=0, out=tmp_path / "cpu.json"))
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert found["machine"]["threads"] == 1 and found["cases"][name]["ms"]["eager"]["low"] > 0


def test_the_manual_says_what_was_measured() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    found = json.loads((ROOT / "benchmarks" / "results" / "speed" / "cpu.json").read_text())
    assert speed.with_tables(found, page) == page


def test_networks_of_peers_are_of_the_same_size() -> None:
    for setting in (HOPPER, MAZE):
        networks = model_of(setting).network, diffusers_unet(setting, torch.device("cpu"))
        ours, its = (sum(p.numel() for p in network.parameters()) for network in networks)
        assert abs(ours - its) < 0.03 * its
