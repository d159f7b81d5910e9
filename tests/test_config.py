"""Settings come back as they went, and nothing else comes back."""

from __future__ import annotations

import json
import math
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Interval
from hypothesis import given
from hypothesis import strategies as st

from gentraj.config import (
    ConfigError,
    Registry,
    differences,
    from_json,
    from_word,
    kind_of,
    parse_json,
    read_json,
    settings,
    to_json,
    to_word,
    with_settings,
)


@settings
class Inner:
    rate: float = 1e-3
    widths: tuple[int, ...] = (1, 2)
    pair: tuple[str, int] = ("a", 1)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate is negative")


@settings
class Grown:
    REMOVED: ClassVar[dict[str, object]] = {"warm": False, "updates": ...}

    rate: float = 1e-3


@settings
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
    ({"nme": 1}, "config.json: nme is unknown; did you mean 'name'"),
    ({"inner": {"x": 1}}, "inner.x is unknown.*expected are rate, widths, pair"),
    ({"inner": 3}, "inner is 3; .* Inner is expected"),
    ({"inner": {"rate": True}}, "inner.rate is True; .* number is expected"),
    ({"inner": {"rate": -1.0}}, "inner: rate is negative"),
    ({"inner": {"widths": [1, 2.5]}}, r"inner.widths\[1\] is 2.5; .* integer is expected"),
    ({"inner": {"pair": ["a"]}}, r"inner.pair\[1\]"),
    ({"table": {"k": {"rates": 1}}}, "table.k.rates is unknown; did you mean 'table.k.rate'"),
    ({"kind": "c"}, "kind is 'c'; 'a', 'b' or 3 is expected"),
    ({"limit": True}, "limit is True; .* integer is expected"),
])
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(Outer, change)


def test_what_a_person_writes_by_hand_is_read_as_the_whole() -> None:
    assert to_json(Outer(), defaults=False) == {} and from_json(Outer, {}) == Outer()
    changed = Outer(limit=3, inner=Inner(rate=2.0))
    assert to_json(changed, defaults=False) == {"limit": 3, "inner": {"rate": 2.0}}
    assert from_json(Outer, to_json(changed, defaults=False)) == changed


@settings
class Checked:
    share: Annotated[float, Interval(ge=0, le=1)] = 0.5
    count: Annotated[int, Ge(1)] = 3
    within: Inner = Inner()


@pytest.mark.parametrize(("values", "message"), [
    ({"share": 1.5}, "share is 1.5; at least 0 and at most 1 is expected"),
    ({"share": math.nan}, "share is nan"),
    ({"share": "1"}, "share is '1'; .* number is expected"),
    ({"count": 0}, "count is 0; at least 1 is expected"),
    ({"count": 2.0}, "count is 2.0; .* integer is expected")])
def test_settings_are_checked_where_they_are_made_and_where_they_are_read(values: dict, message: str) -> None:
    for make in (lambda: Checked(**values), lambda: replace(Checked(), **values)):
        with pytest.raises(ConfigError, match=f"Checked.{message}"):
            make()
    with pytest.raises(ConfigError, match=f"x: {message}"):
        from_json(Checked, values, "x")
    with pytest.raises(ConfigError, match=r"Checked\.count is 0; at least 1 is expected"):
        Checked(0.5, 0)
    assert Checked(share=1) == from_json(Checked, {"share": 1})


def test_settings_are_changed_by_their_dotted_keys() -> None:
    changed = with_settings(Outer(), {"maybe.rate": 2.0, "inner": {"widths": [3]}, "flag": True}, "x")
    assert changed == Outer(maybe=Inner(rate=2.0), inner=Inner(widths=(3,)), flag=True)
    with pytest.raises(ConfigError, match=r"^x: inner\.rates is unknown; did you mean 'inner.rate'"):
        with_settings(Outer(), {"inner.rates": 1}, "x")
    with pytest.raises(ConfigError, match=r"^--inner\.rate is 'a'"):
        with_settings(Outer(), {"inner.rate": "a"})


@pytest.mark.parametrize(("word", "value"), [
    ("1e4", 10_000), ("2.5", 2.5), ("None", None), ("True", True), ("[1, 2]", [1, 2]), ("goal", "goal")])
def test_words_of_the_command_line_are_values(word: str, value: Any) -> None:
    assert from_word(word) == value and type(from_word(word)) is type(value)
    assert from_word(to_word(value)) == value


@pytest.mark.parametrize(("text", "message"), [
    (b"", "is not valid JSON"),
    (b"[1]", r"holds \[1\]; a JSON object is expected"),
    (b'{"a": "\xff"}', "is not valid JSON.*utf-8"),
    (b'{"a": ' + b"[" * 100_000, "is not valid JSON"),
])
def test_hostile_json_is_one_clear_error(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=f"^{path}: .*{message}"):
        read_json(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_json(tmp_path / "config.json")


@settings
class Small:
    width: int = 1


@settings
class Large:
    width: int = 1


@settings
class Larger(Large):
    """A class with the settings of `Large` and another default."""

    width: int = 2


@settings
class Holder:
    either: Small | Large | None = None
    one: Large = Large()


SIZES: Registry = Registry({"small": (Small, int), "large": (Large, float), "larger": (Larger, float)})


@pytest.mark.parametrize("config", [Holder(Small(3)), Holder(Large(3), Larger(3)), Holder(None), Holder(Larger())])
def test_what_was_saved_is_looked_up_by_its_kind(config: Holder) -> None:
    """This holds for classes with the same settings, and for subclasses of a field's class."""
    assert from_json(Holder, to_json(config)) == config
    assert to_json(config)["one"]["kind"] == {Large: "large", Larger: "larger"}[type(config.one)]


def test_removed_settings_are_read_where_they_stand_for_what_the_class_does_now() -> None:
    assert from_json(Grown, {"rate": 1.0, "warm": False, "updates": 7}) == Grown(1.0)
    with pytest.raises(ConfigError, match="warm is unknown"):
        from_json(Grown, {"warm": True})
    with pytest.raises(TypeError):
        Grown(warm=False)  # pyright: ignore[reportCallIssue]



@pytest.mark.parametrize(("change", "message"), [
    ({"either": {"kind": "smal"}}, "x: either.kind is 'smal'; known: small, large, larger; did you mean 'small'"),
    ({"either": {"width": 1}}, "x: either.kind is None; known: small, large, larger"),
    ({"one": {"kind": "small"}}, "x: one.kind is 'small'; known: large, larger"),
    ({"one": {"kind": ["large"]}}, r"x: one.kind is \['large'\]; known"),
    ({"either": {"kind": "small", "with": 1}}, "x: either.with is unknown; did you mean 'either.width'"),
    ({"either": 3}, "x: either is 3; ")])
def test_an_unknown_kind_is_named_with_those_there_are(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(Holder, change, "x")


def test_a_kind_alone_stands_for_its_default_settings() -> None:
    assert from_json(Holder, {"one": "larger"}) == Holder(one=Larger())
    assert with_settings(Holder(), {"either": "small", "either.width": 4}, "x") == Holder(either=Small(4))


def test_a_kind_says_what_is_made_of_it() -> None:
    assert (kind_of(Larger()), kind_of(Holder()), SIZES.made_of(Small())) == ("larger", None, int)
    with pytest.raises(ValueError, match="Holder is not registered; known: small, large, larger"):
        SIZES.made_of(Holder())


def test_differences_are_dotted() -> None:
    old, new = {"a": 1, "b": {"c": [1], "d": 2}, "gone": 3}, {"a": 1, "b": {"c": [2], "d": 2}, "new": 4}
    assert list(differences(old, new)) == [("b.c", [1], [2]), ("gone", 3, None), ("new", None, 4)]
