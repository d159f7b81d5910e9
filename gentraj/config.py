"""Settings: frozen dataclasses, written as JSON and read back strictly. A typo is an error, never a default."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
MAX_BYTES = 1 << 24  # no settings file is larger; a hostile one is refused before it is read


class ConfigError(ValueError):
    """Settings that are not what is expected: one line naming the file and the dotted key."""


def require(config: Any, **bounds: tuple[float, float]) -> None:
    """Raises `ValueError` for a field outside its [low, high], NaN among them, and for an int field that is no int."""
    whole = {field.name for field in dataclasses.fields(config) if field.type in (int, "int")}
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not low <= value <= high or (name in whole and type(value) is not int):
            expected = "a whole number" if name in whole else "a number"
            expected += f" of at least {low:g}" if math.isinf(high) else f" from {low:g} to {high:g}"
            raise ValueError(f"{type(config).__name__}.{name} is {value}; {expected} is expected")


def require_choice(config: Any, **choices: Iterable[str]) -> None:
    """Raises `ValueError` for a field that holds none of the names it may hold, and lists them."""
    for name, known in choices.items():
        if (value := getattr(config, name)) not in known:
            raise ValueError(f"{type(config).__name__}.{name} is '{value}'; known: {', '.join(known)}")


def to_json(config: Any) -> dict[str, Any]:
    """A dataclass as what `json.loads` gives back: objects, lists, numbers, strings, null.

    Raises `ValueError` for NaN and infinity, which JSON has not.
    """
    return json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))


def from_json(cls: type[T], data: object, where: str = "config.json") -> T:
    """The dataclass `cls` from what `to_json` gave. Every field must be there and nothing else.

    Understands nested dataclasses, tuples, `dict[str, X]`, `X | None`, unions, `Literal` and plain values.
    Raises `ConfigError` naming `where` and the dotted key.
    """
    return _read_dataclass(cls, data, where, "")


def with_settings(config: T, settings: Mapping[str, Any], where: str) -> T:
    """The dataclass with other values at dotted keys, {"training.steps": 6000}; a value may be a whole object.

    Raises `ConfigError` as `from_json` does.
    """
    changed = to_json(config)
    for key, value in settings.items():
        *groups, name = key.split(".")
        place: Any = changed
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        known = place if isinstance(place, dict) else {}
        if name not in known:
            raise ConfigError(f"{where}: unknown key {key}; expected are {', '.join(known) or 'none'}")
        known[name] = value
    return from_json(type(config), changed, where)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `ConfigError` for anything else, see `parse_json`."""
    try:
        with path.open("rb") as file:
            return parse_json(file.read(MAX_BYTES + 1), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """One JSON object in UTF-8. Raises `ConfigError` for duplicate keys, NaN, infinity, deep nesting and other text."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{where}: is larger than {MAX_BYTES} bytes; a small JSON object is expected")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ConfigError(f"{where}: brackets are nested too deeply; a JSON object of settings is expected") from None
    except ValueError as error:
        raise ConfigError(f"{where}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: holds {reprlib.repr(value)}; a JSON object is expected")
    return value


def differences(old: object, new: object, key: str = "") -> Iterator[tuple[str, object, object]]:
    """(dotted key, old value, new value) of everything that differs between two JSON values; a missing one is None."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield key, old, new


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(n for n in names if names.count(n) > 1)}' is there twice")
    return made


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"{literal} is not a finite number")
    return value


def _read_dataclass(cls: type[T], value: object, where: str, key: str) -> T:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {key or 'the whole'} is {reprlib.repr(value)}; an object is expected")
    names = [f.name for f in dataclasses.fields(cls) if f.init]  # pyright: ignore[reportArgumentType]
    for name in [*value, *names]:
        if name not in names or name not in value:
            problem = "missing" if name in names else "unknown"
            raise ConfigError(f"{where}: {problem} key {_dot(key, name)}; expected are {', '.join(names)}")
    hints = get_type_hints(cls)
    read = {name: _read(hints[name], value[name], where, _dot(key, name)) for name in names}
    try:
        return cls(**read)
    except ValueError as error:  # the dataclass's own checks
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{error}") from error


def _read(kind: Any, value: Any, where: str, key: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, value, where, key)
    if origin in (Union, UnionType):
        return _read_union(args, value, where, key)
    if origin is Literal and any(value == a and type(value) is type(a) for a in args):
        return value
    if origin is dict and isinstance(value, dict):
        return {name: _read(args[1], item, where, _dot(key, name)) for name, item in value.items()}
    if origin is tuple and isinstance(value, list):
        kinds = args[:1] * len(value) if args[-1] is ... else args
        if len(kinds) == len(value):
            return tuple(_read(k, v, where, f"{key}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if (kind is float and isinstance(value, (int, float)) and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max):  # neither NaN nor infinite
        return float(value)
    if kind in (bool, int, str, NoneType) and type(value) is kind:  # a bool is no int here
        return value
    expected = kind.__name__ if isinstance(kind, type) and not args else str(kind).replace("typing.", "")
    raise ConfigError(f"{where}: {key} is {reprlib.repr(value)}; {expected} is expected")


def _read_union(kinds: tuple[Any, ...], value: Any, where: str, key: str) -> Any:
    problem = ConfigError()
    for kind in sorted(kinds, key=partial(_likeness, value)):  # the last problem is then the telling one
        try:
            return _read(kind, value, where, key)
        except ConfigError as error:
            problem = error
    raise problem


def _likeness(value: Any, kind: Any) -> int:
    """How much a value looks like that kind: how many keys it has in common with a dataclass; None comes last."""
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return len(value.keys() & {f.name for f in dataclasses.fields(kind)})
    return -1 if kind is NoneType else 0


def _dot(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
