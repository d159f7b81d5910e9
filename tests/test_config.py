"""Settings come back as they went, and nothing else comes back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentraj.config import (
    ConfigError,
    Kinds,
    differences,
    from_json,
    kind_of,
    parse_json,
    read_json,
    require,
    to_json,
    unused,
    within,
)


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    widths: tuple[int, ...] = (1, 2)
    pair: tuple[str, int] = ("a", 1)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate is negative")


@dataclass(frozen=True)
class Outer:
    name: str = "run"
    kind: Literal["a", "b", 3] = "a"
    limit: int | None = None
    mixed: int | str = 1
    flag: bool = False
    inner: Inner = Inner()
    maybe: Inner | None = None
    table: dict[str, Inner] = field(default_factory=dict)
    anything: Any = None


inners = st.builds(Inner, rate=st.floats(0, allow_infinity=False), widths=st.lists(st.integers()).map(tuple),
                   pair=st.tuples(st.text(), st.integers()))
outers = st.builds(Outer, name=st.text(), kind=st.sampled_from(["a", "b", 3]), limit=st.none() | st.integers(),
                   mixed=st.integers() | st.text(), flag=st.booleans(), inner=inners, maybe=st.none() | inners,
                   table=st.dictionaries(st.text(), inners))


@given(outers)
def test_round_trip(config: Outer) -> None:
    text = json.dumps(to_json(config))
    assert from_json(Outer, parse_json(text.encode(), "x")) == config


@pytest.mark.parametrize(("change", "message"), [
    ({"nme": 1}, "config.json: unknown key nme; expected are name, "),
    ({"inner": {**to_json(Inner()), "x": 1}}, "unknown key inner.x"),
    ({"inner": {}}, "missing key inner.rate"),
    ({"inner": 3}, "inner is 3; an object is expected"),
    ({"maybe": {**to_json(Inner()), "rate": "fast"}}, "maybe.rate is 'fast'; float is expected"),
    ({"inner": {**to_json(Inner()), "rate": float("nan")}}, "inner.rate is nan"),
    ({"inner": {**to_json(Inner()), "rate": 10**400}}, "inner.rate is 1000"),
    ({"inner": {**to_json(Inner()), "rate": True}}, "inner.rate is True"),
    ({"inner": {**to_json(Inner()), "rate": -1.0}}, "inner: rate is negative"),
    ({"inner": {**to_json(Inner()), "widths": [1, 2.5]}}, r"inner.widths\[1\] is 2.5; int is expected"),
    ({"inner": {**to_json(Inner()), "pair": ["a"]}}, r"inner.pair is \['a'\]; tuple\[str, int\] is expected"),
    ({"table": {"k": {}}}, "missing key table.k.rate"),
    ({"kind": "c"}, r"kind is 'c'; Literal\['a', 'b', 3\] is expected"),
    ({"flag": 1}, "flag is 1; bool is expected"),
    ({"limit": True}, "limit is True; int is expected"),
    ({"name": None}, "name is None; str is expected"),
])
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(Outer, to_json(Outer()) | change)


def test_a_key_with_a_default_must_be_there_too() -> None:
    data = to_json(Outer())
    del data["flag"]
    with pytest.raises(ConfigError, match="missing key flag"):
        from_json(Outer, data)


@pytest.mark.parametrize(("text", "message"), [
    (b"", "is not valid JSON"),
    (b"[1]", r"holds \[1\]; a JSON object is expected"),
    (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
    (b'{"a": NaN}', "NaN is not a finite number"),
    (b'{"a": -Infinity}', "-Infinity is not a finite number"),
    (b'{"a": 1e999}', "1e999 is not a finite number"),
    (b'{"a": "\xff"}', "is not valid JSON.*utf-8"),
    (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    (b'{"a": ' + b"1" * 10_000 + b"}", "is not valid JSON"),
    (b" " * (1 << 25), "is larger than"),
])
def test_hostile_json_is_one_clear_error(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=f"^{path}: .*{message}"):
        read_json(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_json(tmp_path / "config.json")


def test_not_a_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Inner(rate=float("inf")))


@dataclass(frozen=True)
class Bounded:
    share: float = 0.5
    count: int = 3
    size: float = 1.0

    def __post_init__(self) -> None:
        require(self, share=(0, 1), count=(1, math.inf), size=(0, math.inf))


@pytest.mark.parametrize(("settings", "message"), [
    ({"share": 1.5}, "Bounded.share is 1.5; a number from 0 to 1 is expected"),
    ({"share": math.nan}, "Bounded.share is nan; a number from 0 to 1 is expected"),
    ({"size": math.inf}, "Bounded.size is inf; a finite number of at least 0 is expected"),
    ({"count": 0}, "Bounded.count is 0; a whole number of at least 1 is expected"),
    ({"count": 2.0}, "Bounded.count is 2.0; a whole number of at least 1 is expected"),
    ({"count": True}, "Bounded.count is True; a whole number"),
])
def test_a_number_out_of_range_is_refused_with_its_range(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bounded(**settings)
    assert Bounded(share=0) and Bounded(share=1, count=10**9)  # the bounds themselves are within


@dataclass(frozen=True)
class Small:
    width: int = 1


@dataclass(frozen=True)
class Large:
    width: int = 1


@dataclass(frozen=True)
class Larger(Large):
    """A class with the settings of `Large` and another default."""

    width: int = 2


@dataclass(frozen=True)
class Holder:
    either: Small | Large | None = None
    one: Large = Large()


SIZES: Kinds = Kinds({"small": (Small, int), "large": (Large, float), "larger": (Larger, float)})


@pytest.mark.parametrize("config", [Holder(Small(3)), Holder(Large(3), Larger(3)), Holder(None), Holder(Larger())])
def test_what_was_saved_is_looked_up_by_its_kind(config: Holder) -> None:
    """This holds for classes with the same settings, and for subclasses of a field's class."""
    assert from_json(Holder, to_json(config)) == config
    assert to_json(config)["one"]["kind"] == {Large: "large", Larger: "larger"}[type(config.one)]


@pytest.mark.parametrize(("change", "message"), [
    ({"either": {"kind": "smal", "width": 1}}, "x: either.kind is 'smal'; known: small, large, larger; did you mean "),
    ({"either": {"width": 1}}, "x: missing key either.kind; known: small, large, larger$"),
    ({"one": {"kind": "small", "width": 1}}, "x: one.kind is 'small'; known: large, larger$"),
    ({"one": {"kind": ["large"], "width": 1}}, r"x: one.kind is \['large'\]; known"),
    ({"either": {"kind": "small", "with": 1}}, "x: unknown key either.with; expected are width"),
    ({"either": 3}, "x: either is 3; an object is expected")])
def test_an_unknown_kind_is_named_with_those_there_are(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(Holder, to_json(Holder()) | change, "x")


def test_a_kind_says_what_is_made_of_it() -> None:
    assert (kind_of(Larger()), kind_of(Holder()), SIZES.made_of(Small())) == ("larger", None, int)
    with pytest.raises(ValueError, match="Holder is not registered; known: small, large, larger"):
        SIZES.made_of(Holder())


@dataclass(frozen=True)
class Fit:
    method: Literal["exact", "walk"] = "exact"
    steps: int = 3

    def unused(self) -> dict[str, str]:
        return {"steps": "the method is exact"} if self.method == "exact" else {}


@dataclass(frozen=True)
class Fits:
    fit: Fit = Fit()
    other: Fit = Fit("walk")


def test_settings_without_effect_are_found_wherever_they_lie() -> None:
    assert unused(Fits()) == {"fit.steps": "the method is exact"}
    assert within("fit.steps", ["fit"]) == "fit" and within("fitting.steps", ["fit"]) is None


def test_differences_are_dotted() -> None:
    old, new = {"a": 1, "b": {"c": [1], "d": 2}, "gone": 3}, {"a": 1, "b": {"c": [2], "d": 2}, "new": 4}
    assert list(differences(old, new)) == [("b.c", [1], [2]), ("gone", 3, None), ("new", None, 4)]
