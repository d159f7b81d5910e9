"""Settings: frozen dataclasses that are checked where they are made, written as JSON and read back strictly.

A setting's range stands beside it (`Annotated[float, Ge(0)]`). A key that nobody knows, a value of another type and a
value outside its range are errors that name the dotted key, the value and what is expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import GroupedMetadata, Interval
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import CoreSchema, no_info_plain_validator_function

from .files import write_file

T = TypeVar("T")
C = TypeVar("C")
M = TypeVar("M")
JsonObject = dict[str, Any]
KIND = "KIND"  # the attribute of a class of settings that says its kind
CONSTANTS = {"None": None, "True": True, "False": False, "inf": math.inf, "-inf": -math.inf}
"""Values that are written otherwise than in JSON, by their words on the command line."""
NoneType = type(None)
Fraction = Annotated[float, Interval(ge=0, le=1)]
BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
OUTSIDE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}  # pydantic's errors of a range
CHECKS = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def escaped(message: str) -> str:
    """A message on one line, although a key or a name of a hostile file in it may have several."""
    return "\\n".join(str(message).splitlines())


class ConfigError(ValueError):
    """Settings cannot be used; the message is one line that names the file and the dotted key."""

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


class Misuse(ConfigError):
    """Words of the command line of which the options of a command cannot be made."""


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Makes a class of settings: a frozen dataclass whose values are checked against their types and ranges.

    Its constructor raises `ConfigError`, and TypeError for a setting that is missing or unknown. The string below a
    field is its help text on the command line.
    """
    made = checked_dataclass(frozen=True, config=CHECKS)(cls)
    initialise = made.__init__

    @wraps(initialise)
    def __init__(self: Any, *args: Any, **values: Any) -> None:
        try:
            initialise(self, *args, **values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name, *inside = map(str, first["loc"] or [""])
            if name.isdigit():  # the value was given by its position
                name = dataclasses.fields(cls)[int(name)].name  # pyright: ignore[reportArgumentType]
            if first["type"] == "value_error":  # two settings that contradict each other
                raise ConfigError(first["msg"].removeprefix("Value error, ")) from None
            if first["type"] == "unexpected_keyword_argument":
                raise TypeError(f"{cls.__name__} has no setting {name}") from None
            if first["type"] == "missing" and not inside:
                raise TypeError(f"{cls.__name__} needs the setting {name}") from None
            index = "".join(f"[{each}]" for each in inside if each.isdigit())  # others name the types of a union
            raise ConfigError(f"{cls.__name__}.{name}{index} {_problem(first, types_of(cls).get(name))}") from None

    made.__init__ = __init__
    return made  # pyright: ignore[reportReturnType]


@dataclasses.dataclass(frozen=True, eq=False)
class OneOf:
    """`Annotated[str, OneOf(TABLE)]` is the type of a setting that names an entry of a table, also a later one."""

    table: Mapping[str, object]

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        return no_info_plain_validator_function(self._checked)

    def _checked(self, name: object) -> object:
        if isinstance(name, str) and name in self.table:
            return name
        *others, last = map(repr, self.table)
        raise PydanticCustomError("unknown_name", "{expected}", {"expected": f"{', '.join(others)} or {last}"})


class Registry(dict[str, tuple[type[C], type[M]]], Generic[C, M]):
    """Alternatives by their kind: the class of the settings, and the class that is built from them.

    The kind is written as `kind` into the JSON of such settings, and they are read back by it: a field for settings of
    a class holds those of every class that is derived from it and registered, here or elsewhere.
    """

    def __init__(self, table: Mapping[str, tuple[type[C], type[M]]]):
        super().__init__()
        for kind, (config, made) in table.items():
            self[kind] = config, made

    def __setitem__(self, kind: str, classes: tuple[type[C], type[M]]) -> None:
        super().__setitem__(kind, classes)
        type.__setattr__(classes[0], KIND, kind)

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


def kind_of(config: Any) -> str | None:
    """The kind of these settings, or None if their class is registered nowhere."""
    return vars(type(config)).get(KIND)


def check_known(names: Sequence[str], known: Iterable[str], what: str) -> None:
    """Raises ValueError for an unknown name, a name that is given twice, and if no name is given.

    `what` is what the names stand for, such as "preset".
    """
    for name in names:
        if name not in known:
            raise ValueError(_unknown(name, known, what))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"each {what} is expected once, and at least one; {', '.join(names) or 'none'} was given")


class Named(dict[str, T]):
    """Things by their names. For an unknown name it raises a KeyError that suggests a similar one."""

    def __init__(self, things: Mapping[str, T], what: str):
        super().__init__(things)
        self.what = what

    def __missing__(self, name: str) -> T:
        raise KeyError(_unknown(name, self, self.what))


def _unknown(name: object, known: Iterable[str], what: str) -> str:
    """That there is no such name, with one that is spelt nearly so, or else all."""
    return f"unknown {what} '{name}'" + (_nearest(str(name), known) or f"; known: {', '.join(known)}")


class Word(str):
    """A word of the command line, whose setting says what it means: 5 may be a number, a text or a path."""


NO_WORD = Word()  # of an option that stands alone


def from_word(word: str) -> Any:
    """The value of a word by itself: JSON, True, False, None or inf; any other word is text. 1e4 is 10000."""
    if word in CONSTANTS:
        return CONSTANTS[word]
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_word(value: Any) -> str:
    """A value as a word of the command line, which `from_word` reads."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {json.dumps(constant): word for word, constant in CONSTANTS.items()}.get(text, text)


def to_json(config: Any, *, defaults: bool = True) -> Any:
    """Settings as the types of JSON: objects, lists, numbers, strings and null.

    Settings of a registry begin with their `kind`. Without `defaults`, those that have their default are left out, as
    in a file that a person writes; `from_json` reads both.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        kind = kind_of(config)
        found: JsonObject = {} if kind is None else {"kind": kind}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if defaults or value != _default(field):
                found[field.name] = to_json(value, defaults=defaults)
        return found
    if isinstance(config, dict):
        return {name: to_json(value, defaults=defaults) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_json(value, defaults=defaults) for value in config]
    return config


def from_json(cls: type[T], data: object, where: str = "config.json") -> T:
    """Reads settings from the result of `to_json`. A key that is left out has its default, and no other key is allowed.

    Where settings of several classes are possible, the `kind` in the data decides; the kind alone stands for its
    default settings. A class may have a dict REMOVED of settings that earlier versions had, each with the value that
    stands for what the class does now, or with ... if its value does not matter: these are read and left out. Raises
    `ConfigError`, which begins with `where` and names the dotted key.
    """
    return _read_settings([cls], data, _Place(where))


def with_settings(config: T, changes: Mapping[str, Any], where: str = "", group: str = "",
                  also: Iterable[str] = ()) -> T:
    """The settings with the given values at dotted keys, such as {"training.steps": 6000}.

    A value may be a whole JSON object, a kind alone, or a `Word`. A key below a group that is None begins with the
    defaults of the group. Raises `ConfigError` as `from_json` does; without `where`, the settings are named as options,
    below the name of their `group` if they have one. `also` are other options that could have been meant.
    """
    if not changes:
        return config
    root = _Place(where, group, (*dotted_keys(config, group and f"{group}."), *also))
    changed = to_json(config)
    for key in sorted(changes, key=lambda key: key.count(".")):  # a group before what is in it
        *groups, name = key.split(".")
        place = changed
        for group in groups:
            if group in place and not place[group]:  # None, or an option without words
                place[group] = {}
            elif isinstance(place.get(group), str):  # a kind alone
                place[group] = {"kind": place[group]}
            place = place.get(group)
            if not isinstance(place, dict):
                raise root.unknown(key)
        place[name] = changes[key]
    return _read_settings([type(config)], changed, root)


def unknown_option(key: str, known: Iterable[str]) -> ConfigError:
    """That there is no such option, with the one of the known keys that is spelt nearly so."""
    return _Place("", settings=tuple(known)).unknown(key)


def read_json(path: Path) -> JsonObject:
    """Reads a file with one JSON object. Raises `ConfigError` for anything else, see `parse_json`."""
    try:
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json(data: bytes, where: str) -> JsonObject:
    """Parses one JSON object in UTF-8. Raises `ConfigError` for any other text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
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


def dotted_keys(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings and groups of settings."""
    for field in dataclasses.fields(config):
        yield f"{prefix}{field.name}"
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from dotted_keys(value, f"{prefix}{field.name}.")


def groups_off(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of the groups of settings that are None."""
    for field in dataclasses.fields(config):
        key, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from groups_off(value, f"{key}.")
        elif value is None and any(map(dataclasses.is_dataclass, alternatives(types_of(type(config))[field.name]))):
            yield key


@dataclasses.dataclass(frozen=True)
class _Place:
    """A dotted key, for messages, behind the name of its file; as an option where there is no file."""

    where: str
    key: str = ""
    settings: tuple[str, ...] = ()
    """The dotted keys of all settings, where they are known."""

    def __str__(self) -> str:
        return f"{self.where}: {self.name or 'the whole'}" if self.where else self.name

    @property
    def name(self) -> str:
        return self.key if self.where else f"--{self.key.replace('_', '-')}"

    def below(self, name: str | int) -> _Place:
        if isinstance(name, int):
            return dataclasses.replace(self, key=f"{self.key}[{name}]")
        return dataclasses.replace(self, key=f"{self.key}.{name}" if self.key else name)

    def unknown(self, name: str, fields: Iterable[str] = ()) -> ConfigError:
        """That there is no such setting among these fields, with one whose last word is spelt nearly so."""
        given = self.below(name)
        keys = [*(self.below(each).key for each in fields), *self.settings]
        near = difflib.get_close_matches(_last(given.key), set(map(_last, keys)), n=1)
        keys = [key for key in keys if _last(key) in near]
        meant = difflib.get_close_matches(given.key, keys, n=1, cutoff=0)
        hint = "".join(f"; did you mean '{_Place(self.where, key).name}'?" for key in meant)
        expected = f"; expected are {', '.join(fields)}" if fields else ""
        message = f"{given} is unknown{hint}{expected}"
        if self.where:
            return ConfigError(message)
        return Misuse(message)


def _read_settings(classes: Sequence[type], data: object, place: _Place) -> Any:
    """Reads settings of one of these classes, or of a registered class that is derived from one of them."""
    kinds = {kind: cls for each in classes for cls in _derived(each) if (kind := vars(cls).get(KIND)) is not None}
    if isinstance(data, str) and kinds:
        data = {"kind": data}
    if not isinstance(data, dict):
        raise ConfigError(f"{place} is {reprlib.repr(data)}; an object is expected")
    values, cls = dict(data), classes[0]
    if kinds:
        kind = values.pop("kind", next(iter(kinds)) if len(kinds) == 1 else None)
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(f"{place.below('kind')} is {reprlib.repr(kind)}; known: {', '.join(kinds)}"
                              f"{_nearest(str(kind), kinds)}")
        cls = kinds[kind]
    fields, hints = {field.name: field for field in dataclasses.fields(cls) if field.init}, types_of(cls)
    removed = getattr(cls, "REMOVED", {})
    for name in [name for name in values if name not in fields]:
        if name not in removed or removed[name] not in (values[name], ...):
            raise place.unknown(name, fields)
        del values[name]
    for name, field in fields.items():
        if name not in values and _default(field) is dataclasses.MISSING:
            raise ConfigError(f"{place.below(name)} is missing; expected are {', '.join(fields)}")
    read = {name: _converted(hints[name], value, place.below(name)) for name, value in values.items()}
    try:
        return cls(**read)
    except ValueError as error:  # of one setting, which its class names, or of several that contradict each other
        message, owner = str(error), f"{cls.__name__}."
        if message.startswith(owner):
            name, _, problem = message.removeprefix(owner).partition(" ")
            raise ConfigError(f"{place.below(name)} {problem}") from error
        where = str(place) if place.key else place.where
        raise ConfigError(f"{where}: {message}" if where else message) from error


def _converted(hint: Any, value: Any, place: _Place) -> Any:
    """The value with tuples in the place of lists, paths in that of texts, and settings in that of objects and kinds.
    """
    kinds = alternatives(hint)
    if isinstance(value, Word):
        value = _meant(kinds, value)
    if isinstance(value, str) and Path in kinds:
        return Path(value)
    for kind in kinds:
        origin, args = get_origin(kind), get_args(kind)
        if origin is tuple and isinstance(value, list):
            kinds = args[:1] * len(value) if args[-1] is ... else [*args, *[Any] * len(value)]
            return tuple(_converted(k, item, place.below(i))
                         for i, (k, item) in enumerate(zip(kinds, value, strict=False)))
        if origin is dict and isinstance(value, dict):
            return {name: _converted(args[1], item, place.below(name)) for name, item in value.items()}
    classes = [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    if classes and isinstance(value, dict | str):
        return _read_settings(classes, value, place)
    return value


def _meant(kinds: Sequence[Any], word: Word) -> Any:
    """What a word of the command line means as one of these types."""
    several = any(get_origin(kind) is tuple for kind in kinds)
    if word is NO_WORD:
        return [] if several else {}
    if word == "None" and NoneType in kinds:
        return None
    if several and all(kind is NoneType or get_origin(kind) is tuple for kind in kinds):
        return [word]
    is_text = any(kind in (str, Path) or get_origin(kind) is Literal for kind in kinds)
    return str(word) if is_text and not {bool, int, float} & set(kinds) else from_word(word)


def alternatives(hint: Any) -> list[Any]:
    """The types of a union, without their ranges."""
    if get_origin(hint) is Annotated:
        return alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [kind for each in get_args(hint) for kind in alternatives(each)]
    return [hint]


def _problem(error: ErrorDetails, hint: object) -> str:
    """What is wrong with a value of this type, and what is expected."""
    expected = error["msg"].removeprefix("Input should be ")
    if error["type"] in OUTSIDE:
        expected = " and ".join(_bounds(hint))
    return f"is {reprlib.repr(error['input'])}; {expected} is expected{_nearest(str(error['input']), _choices(hint))}"


def _choices(hint: object) -> Iterator[str]:
    """The names among which a type chooses."""
    for each in getattr(hint, "__metadata__", ()):
        if isinstance(each, OneOf):
            yield from each.table
    for inner in get_args(hint):
        if get_origin(hint) is Literal:
            yield str(inner)
        else:
            yield from _choices(inner)


def _bounds(hint: object) -> Iterator[str]:
    """The range of a type, such as "at least 0" and "at most 1"."""
    for limits in getattr(hint, "__metadata__", ()):
        for limit in limits if isinstance(limits, GroupedMetadata) else [limits]:
            yield from (f"{words} {getattr(limit, key):g}" for key, words in BOUNDS.items() if hasattr(limit, key))
    for inner in get_args(hint):
        yield from _bounds(inner)


def _derived(cls: type) -> Iterator[type]:
    yield cls
    for each in cls.__subclasses__():
        yield from _derived(each)


def _nearest(name: str, known: Iterable[str]) -> str:
    spelt = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), spelt, n=1)
    return f"; did you mean '{spelt[near[0]]}'?" if near else ""


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@cache
def types_of(cls: type) -> JsonObject:
    """The types of the settings, with their ranges."""
    return get_type_hints(cls, include_extras=True)
