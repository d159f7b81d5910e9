"""`benchmarks/speed.py`: what it makes of times, and that the manual says what it measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import speed, speed_growth, speed_memory, timing
from benchmarks.speed_page import with_tables
from benchmarks.speed_peers import import_diffuser
from benchmarks.timing import CPU, Case, PeerMissing, Setup

ROOT = Path(__file__).parents[2]


class Work:
    """Calls that take a given time of a clock that nothing else moves, and are written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now, self.order = 0.0, list[str]()
        monkeypatch.setattr(timing, "clock", lambda device: self.now)
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
    times = timing.by_turns({"a": work.call("a", 50, 2), "b": work.call("b", 70, 1)}, 4, 1e9, CPU)
    assert work.order == ["a", "b"] * 5 and times == {"a": [2] * 4, "b": [1] * 4}


def test_no_round_begins_when_time_is_up_but_there_are_three(work: Work) -> None:
    assert timing.by_turns({"a": work.call("a", 1)}, 9, 5.5, CPU) == {"a": [1] * 5}
    assert timing.by_turns({"a": work.call("a", 1)}, 9, 0.0, CPU) == {"a": [1] * 3}


def test_a_speed_up_is_the_median_over_the_rounds_of_the_ratio(work: Work, capsys: pytest.CaptureFixture) -> None:
    def missing(setup: Setup) -> Callable[[], None]:
        raise PeerMissing("it is not installed")

    case = Case("work", {"peer": lambda setup: work.call("peer", 0, 2, 4, 60), "other": missing},
                lambda setup: {"eager": work.call("eager", 0, 1, 2, 3), "fast": work.call("fast", 1)})
    found = speed.beside_peers(case, Setup(), 3, 1e9)
    assert found["peers"] == ["peer"] and found["rounds"] == 3 and found["ms"]["eager"]["median"] == 2000
    assert found["speedup"]["peer"]["eager"] == {"low": 2, "median": 2, "high": 11}
    assert found["speedup"]["peer"]["fast"]["median"] == 4
    assert "other is left out: it is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponents_of_a_power_are_it_and_a_fixed_cost_lowers_them(power: float) -> None:
    sizes = (1, 4, 16, 64)
    exact = speed_growth.exponents(sizes, [3 * n**power for n in sizes])
    assert list(exact.values()) == pytest.approx([power, power], abs=1e-3)
    if power:
        overall, last = speed_growth.exponents(sizes, [20 + n**power for n in sizes]).values()
        assert overall < last < power


def test_cases_are_chosen_by_wildcards_and_unknown_ones_refused() -> None:
    assert {"plan/hopper/1", "ddim/hopper/1"} <= speed.chosen(("*/hopper/1",)).keys()
    assert not {name for name in speed.chosen(("plan/*",)) if not name.startswith("plan/")}
    with pytest.raises(ValueError, match=r"no case matches 'plans/\*'; known: plan/hopper/1, "):
        speed.chosen(("plan/*", "plans/*"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    speed.main(speed.Options(("ddim/hopper/1",), (), rounds=1, seconds=0, out=tmp_path / "cpu.json"))
    return tmp_path / "cpu.json"


def test_the_results_are_kept_with_the_machine_and_fill_the_tables_of_a_page(results: Path, tmp_path: Path) -> None:
    found = json.loads(results.read_text())
    assert {"cpu", "commit", "threads", "versions", "date"} <= found["machine"].keys()
    case = found["cases"]["ddim/hopper/1"]
    assert case["peers"] == ["diffusers"] and case["speedup"]["diffusers"]["eager"]["low"] > 0
    page = tmp_path / "page.md"
    page.write_text("# Speed\n\n<!-- speed: peers -->\n<!-- end -->\n\nthe rest\n")
    speed.main(speed.Options(results=results, table=page))
    once = page.read_text()
    assert "| one plan by DDIM, horizon 32, 5 steps | diffusers |" in once and once.endswith("\n\nthe rest\n")
    speed.main(speed.Options(results=results, table=page))
    assert page.read_text() == once


@pytest.mark.parametrize(("text", "message"), [
    ("no marks", "the page has no marks <!-- speed: TABLE -->"),
    ("<!-- speed: growth -->\n<!-- end -->", "the table 'growth', which is not among these results"),
    ("<!-- speed: prices -->\n<!-- end -->", "the table 'prices', which is not among these results")])
def test_a_page_that_cannot_be_filled_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_tables({"machine": {}, "cases": {"a": {}}, "growth": {}}, text)


def test_the_manual_says_what_was_measured() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    found = json.loads((ROOT / "benchmarks" / "results" / "speed" / "cpu.json").read_text())
    assert with_tables(found, page) == page


def test_the_work_whose_growth_is_measured_can_be_done_at_its_least_size() -> None:
    for growth in speed_growth.GROWTH.values():
        growth.call(growth.sizes[0])()


def test_memory_is_measured_in_a_process_that_has_only_imported() -> None:
    found = speed_memory.child(decisions=1)
    assert found["imports"] > 0 and 0 < found["planner"] <= found["planning"]


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A folder as Diffuser's, whose packages cannot be imported as they need simulators."""
    before = dict(sys.modules)
    files = {"__init__.py": "import no_such_simulator", "utils/__init__.py": "import no_such_renderer",
             "utils/arrays.py": "to_np = 1", "utils/progress.py": "Silent = 2", "sampling/__init__.py": "raise OSError",
             "sampling/functions.py": "from diffuser.models import Unet as name",
             "models/__init__.py": "import diffuser.utils as utils\nUnet = utils.to_np + utils.Silent"}
    for name, text in files.items():
        path = tmp_path / "diffuser" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def test_models_of_a_checkout_of_diffuser_are_imported_without_its_simulators(checkout: Path) -> None:
    models, functions = import_diffuser(checkout)
    assert models.Unet == functions.name == 3
    with pytest.raises(PeerMissing, match=r"has no diffuser/models; give --diffuser a checkout"):
        import_diffuser(checkout / "elsewhere")


def test_a_plan_of_every_case_is_made_of_the_same_sizes_by_every_peer() -> None:
    """Their networks have the same number of parameters to a few per cent."""
    from benchmarks.speed_cases import HOPPER, MAZE, model_of
    from benchmarks.speed_peers import diffusers_unet

    for setting in (HOPPER, MAZE):
        ours, its = (sum(p.numel() for p in network.parameters())
                     for network in (model_of(setting).network, diffusers_unet(setting, torch.device("cpu"))))
        assert abs(ours - its) < 0.03 * its
