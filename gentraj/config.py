"""Settings: frozen dataclasses that are written as JSON and read back strictly. A misspelt key is an error."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from .files import FileRefused, read_file, write_file

T = TypeVar("T")
C = TypeVar("C")
M = TypeVar("M")
CONSTANTS = {"None": None, "True": True, "False": False}  # as tyro writes them on the command line
LATER = "later"  # the mark of settings that `later` makes
MAX_BYTES = 1 << 24  # no settings file is larger, so a hostile file is refused before it is read


def escaped(message: str) -> str:
    """A message on one line, although a key or a name of a hostile file in it may have several."""
    return "\\n".join(str(message).splitlines())


class ConfigError(ValueError):
    """Settings cannot be used; the message is one line that names the file and the dotted key."""

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


class Kinds(dict[str, tuple[type[C], type[M]]], Generic[C, M]):
    """A table of alternatives: kind -> (class of the settings, class that is built from them).

    The kind is written as `kind` into the JSON of such settings, and they are read back by it.
    """

    def __init__(self, table: Mapping[str, tuple[type[C], type[M]]]):
        super().__init__(table)
        _TABLES.append(self)

    @property
    def configs(self) -> tuple[type[C], ...]:
        """The classes of the settings."""
        return tuple(config for config, _ in self.values())

    def kind(self, config: C) -> str:
        """The kind of these settings. Raises ValueError for settings that are not in this table."""
        for kind, (listed, _) in self.items():
            if listed is type(config):
                return kind
        raise ValueError(f"{type(config).__name__} is not registered; known: {', '.join(self)}")

    def made_of(self, config: C) -> Callable[..., M]:
        """The class that is built from these settings. Raises ValueError for settings that are not in this table."""
        return self[self.kind(config)][1]


_TABLES: list[Kinds[Any, Any]] = []


def kind_of(config: Any) -> str | None:
    """The kind of these settings in the table that lists their class, or None if no table does."""
    return next((name for table in _TABLES for name, (listed, _) in table.items() if listed is type(config)), None)


@runtime_checkable
class ListsUnused(Protocol):
    """Settings of which some have no effect beside the others."""

    def unused(self) -> Mapping[str, str]:
        """The settings that have no effect: dotted key -> reason."""
        ...


@runtime_checkable
class ReadsFormer(Protocol):
    """Settings that are read from what earlier releases saved, too."""

    @classmethod
    def from_former(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings of today for those that were saved; settings of today are returned as they are."""
        ...


def later(default: T) -> T:
    """The default of a setting that a file may lack, such as one that was added after runs had been saved.

    Settings that lack it are read with the default, which must mean what was done before there was the setting.
    """
    return cast(T, dataclasses.field(default=default, metadata={LATER: True}))


def unused(config: Any) -> dict[str, str]:
    """The settings that have no effect beside the others: dotted key -> reason.

    The dataclass and the dataclasses in it list their own (`ListsUnused`). A key includes all keys below it.
    """
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    reasons = dict(config.unused()) if isinstance(config, ListsUnused) else {}
    for name, value in settings.items():
        if dataclasses.is_dataclass(value) and name not in reasons:
            reasons |= {f"{name}.{key}": why for key, why in unused(value).items()}
    return reasons


def require_effect(config: Any, changed: str) -> None:
    """Raises ValueError if the setting `changed` (a dotted key) has no effect beside the others."""
    require_use(changed, unused(config))


def require_use(changed: str, why: Mapping[str, str]) -> None:
    """Raises ValueError if the setting `changed` (a dotted key) is among those without an effect, with the reason."""
    if place := within(changed, why):
        raise ValueError(f"{changed} changes nothing here: {why[place]}; leave it out")


def within(key: str, keys: Iterable[str]) -> str | None:
    """The first of the dotted keys that equals `key` or includes it; None if there is none."""
    return next((one for one in keys if key == one or key.startswith(f"{one}.")), None)


def require(config: Any, **bounds: tuple[float, float]) -> None:
    """Raises `ValueError` for a field that is NaN, infinite or outside its [low, high], and for a non-integer in an int
    field."""
    whole = {field.name for field in dataclasses.fields(config) if field.type in (int, "int")}
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        # no file of settings can hold infinity
        if not low <= value <= high or abs(value) == math.inf or (name in whole and type(value) is not int):
            number = "a finite number" if abs(value) == math.inf else "a number"
            expected = "a whole number" if name in whole else number
            expected += f" of at least {low:g}" if math.isinf(high) else f" from {low:g} to {high:g}"
            raise ValueError(f"{type(config).__name__}.{name} is {value}; {expected} is expected")


def require_choice(config: Any, **choices: Iterable[str]) -> None:
    """Raises `ValueError`, listing the choices, for a field that holds none of its choices."""
    for name, names in choices.items():
        if (value := getattr(config, name)) not in names:
            raise ValueError(f"{type(config).__name__}.{name} is '{value}'; known: {', '.join(names)}")


def check_known(names: Sequence[str], known: Iterable[str], what: str) -> None:
    """Raises ValueError for an unknown name, a name that is given twice, and if no name is given.

    `what` is what the names stand for, such as "preset".
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"unknown {what} '{name}'; known: {', '.join(known)}{hint}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"each {what} is expected once, and at least one; {', '.join(names) or 'none'} was given")


def from_word(word: str) -> Any:
    """The value of a word of the command line: JSON, True, False or None; any other word is text."""
    try:
        return CONSTANTS[word] if word in CONSTANTS else json.loads(word)
    except ValueError:
        return word


def to_word(value: Any) -> str:
    """A value as a word of the command line, which `from_word` reads."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {json.dumps(constant): word for word, constant in CONSTANTS.items()}.get(text, text)


def to_json(config: Any) -> dict[str, Any]:
    """Converts a dataclass to the types of JSON: objects, lists, numbers, strings and null.

    Settings from a table of kinds begin with their `kind`. Raises `ValueError` for NaN and infinity, which JSON cannot
    represent.
    """
    return json.loads(json.dumps(_plain(config), allow_nan=False))


def lasting(config: Any) -> dict[str, Any]:
    """The settings as `to_json` converts them, without those of `later` that have their defaults.

    They are the same for a run that was saved before such a setting was added.
    """
    return json.loads(json.dumps(_plain(config, short=True), allow_nan=False))


def from_json(cls: type[T], data: object, where: str = "config.json") -> T:
    """Reads the dataclass `cls` from the result of `to_json`. Every field is required, except those of `later`, and no
    other key is allowed.

    Fields may be nested dataclasses, tuples, `dict[str, X]`, `X | None`, unions, `Literal` and plain values. Where
    several classes are possible, the `kind` in the data decides. Raises `ConfigError`, naming `where` and the dotted
    key.
    """
    return _read_settings((cls,), data, where, "")


def with_settings(config: T, settings: Mapping[str, Any], where: str) -> T:
    """The dataclass with the given values at dotted keys, such as {"training.steps": 6000}.

    A value may be a whole JSON object. Raises `ConfigError` as `from_json` does.
    """
    changed = to_json(config)
    for key, value in settings.items():
        *groups, name = key.split(".")
        place: Any = changed
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        present = place if isinstance(place, dict) else {}
        if name not in present:
            raise ConfigError(f"{where}: unknown key {key}; expected are {', '.join(present) or 'none'}")
        present[name] = value
    return from_json(type(config), changed, where)


def read_json(path: Path, *, follow: bool = False) -> dict[str, Any]:
    """Reads a file with one JSON object. Raises `ConfigError` for anything else, see `parse_json`.

    A link is refused unless `follow` allows it, as for files that the user names.
    """
    try:
        return parse_json(read_file(path, MAX_BYTES, follow=follow), str(path))
    except FileRefused as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Parses one JSON object in UTF-8.

    Raises `ConfigError` for duplicate keys, NaN, infinity, deep nesting, large data and any other text.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{where}: is larger than {MAX_BYTES} bytes; a small JSON object is expected")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text, and raises ValueError
    except RecursionError:
        raise ConfigError(f"{where}: brackets are nested too deeply; a JSON object of settings is expected") from None
    except ValueError as error:
        raise ConfigError(f"{where}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: holds {reprlib.repr(value)}; a JSON object is expected")
    return value


def write_json(path: Path, fields: Mapping[str, Any]) -> Path:
    """Writes a JSON object as a whole file and returns its path. Raises ValueError for numbers that are not finite."""
    return write_file(path, json.dumps(fields, indent=2, allow_nan=False).encode())


def differences(old: object, new: object, key: str = "") -> Iterator[tuple[str, object, object]]:
    """Yields (dotted key, old value, new value) for each difference between two JSON values; a missing value is
    None."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield key, old, new


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(n for n in names if names.count(n) > 1)}' occurs twice")
    return unique


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"{literal} is not a finite number")
    return value


def _plain(value: Any, *, short: bool = False) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = kind_of(value)
        settings = {field.name: _plain(getattr(value, field.name), short=short) for field in dataclasses.fields(value)
                    if not (short and field.metadata.get(LATER) and getattr(value, field.name) == field.default)}
        return settings if kind is None else {"kind": kind} | settings
    if isinstance(value, dict):
        return {name: _plain(item, short=short) for name, item in value.items()}
    return [_plain(item, short=short) for item in value] if isinstance(value, list | tuple) else value


def _read_settings(classes: tuple[type, ...], value: object, where: str, key: str) -> Any:
    """Reads one of these dataclasses, or of the dataclasses that are derived from them."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {key or 'the whole'} is {reprlib.repr(value)}; an object is expected")
    kinds = {name: config for table in _TABLES for name, (config, _) in table.items() if issubclass(config, classes)}
    if not kinds:
        return _read_dataclass(classes[0], value, where, key)
    kind, place = value.get("kind"), _dot(key, "kind")
    if not isinstance(kind, str) or kind not in kinds:
        near = difflib.get_close_matches(str(kind), kinds, n=1)
        given = f"{place} is {reprlib.repr(kind)}" if "kind" in value else f"missing key {place}"
        raise ConfigError(f"{where}: {given}; known: {', '.join(kinds)}"
                          + (f"; did you mean '{near[0]}'?" if near else ""))
    return _read_dataclass(kinds[kind], {name: value[name] for name in value if name != "kind"}, where, key)


def _read_dataclass(cls: type[Any], value: Mapping[str, Any], where: str, key: str) -> Any:
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    settings: Any = cls
    value = settings.from_former(value) if isinstance(settings, ReadsFormer) else value
    value = {f.name: _plain(f.default) for f in dataclasses.fields(cls) if f.metadata.get(LATER)} | dict(value)
    for name in [*value, *names]:
        if name not in names or name not in value:
            problem = "missing" if name in names else "unknown"
            raise ConfigError(f"{where}: {problem} key {_dot(key, name)}; expected are {', '.join(names)}")
    hints = _hints(cls)
    read = {name: _read(hints[name], value[name], where, _dot(key, name)) for name in names}
    try:
        return cls(**read)
    except ValueError as error:  # from the dataclass's own checks
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{error}") from error


def _read(kind: Any, value: Any, where: str, key: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_settings((kind,), value, where, key)
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
    if kind in (bool, int, str, NoneType) and type(value) is kind:  # type() tells a bool from an int
        return value
    expected = kind.__name__ if isinstance(kind, type) and not args else str(kind).replace("typing.", "")
    raise ConfigError(f"{where}: {key} is {reprlib.repr(value)}; {expected} is expected")


def _read_union(kinds: tuple[Any, ...], value: Any, where: str, key: str) -> Any:
    """Reads one of several types. Those that are not dataclasses differ in JSON, so at most one of them fits."""
    classes = tuple(kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind))
    plain = sorted((kind for kind in kinds if kind not in classes), key=lambda kind: kind is not NoneType)
    problem = ConfigError()
    for kind in plain if not classes or not isinstance(value, dict) else ():
        try:
            return _read(kind, value, where, key)
        except ConfigError as error:
            problem = error
    if classes:
        return _read_settings(classes, value, where, key)
    raise problem


_hints = cache(get_type_hints)  # there are few classes of settings


def _dot(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
