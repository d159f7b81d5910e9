"""How every command parses its options, names settings in messages and lays out its `--help`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from ..config import unused

if TYPE_CHECKING:
    from ..training.loop import TrainingConfig

T = TypeVar("T")
# Short forms of options; a message names the short form if it was given.
SHORT = {"training.steps": "--steps", "training.seed": "--seed"}


def parse(command: type[T], argv: Sequence[str], prog: str, *, default: T | None = None, description: str | None = None,
          hidden: Mapping[int, set[str]] | None = None) -> T:
    """Parses the options of a command with `tyro.cli`.

    Args:
        command: A dataclass; its fields are the options and its docstring is the description.
        argv: The words after the name of the command.
        prog: The name of the command in `--help`.
        default: The defaults of all options.
        description: A description in the place of the docstring.
        hidden: Names of settings that are not options, by the `id` of the default instance that has them.

    Raises ValueError if a value is refused; the message names options, not settings. Raises SystemExit after `--help`
    and for unknown options.
    """
    with options_named(command if default is None else default, argv):
        try:
            return tyro.cli(command, args=argv, prog=prog, description=description, registry=registry(hidden),
                            default=tyro.MISSING_NONPROP if default is None else default)
        except _Refused as error:
            raise ValueError(str(error)) from error


@contextmanager
def options_named(settings: Any, argv: Sequence[str]) -> Iterator[None]:
    """Rewrites errors raised within to name options: `--planner.steps` for `planner.steps` or `PlannerConfig.steps`."""
    try:
        yield
    except ValueError as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (in_options(error.args[0], settings, argv),)
        raise


def in_options(message: str, settings: Any, argv: Sequence[str]) -> str:
    """The message with every setting replaced by its option.

    A message that names only the class of a setting may mean several options; the one given in `argv` is preferred.
    """
    keys, owners = set[str](), dict[str, list[str]]()  # class name -> groups of that class
    for owner, key in dotted(settings):
        keys.add(key)
        group = key.rpartition(".")[0]
        if group not in owners.setdefault(owner, []):
            owners[owner].append(group)
    given = {word.partition("=")[0] for word in argv if word.startswith("--")}

    def option(match: re.Match[str]) -> str:
        owner, _, name = match[0].partition(".")
        candidates = [match[0], *(f"{group}.{name}".removeprefix(".") for group in owners.get(owner, ()))]
        options = [SHORT[key] if SHORT.get(key) in given else f"--{key.replace('_', '-')}"
                   for key in candidates if key in keys]
        return next((one for one in options if one in given), options[0] if options else match[0])

    return re.sub(r"(?<![\w./'-])\w+(?:\.[a-z]\w*)+(?![\w/])", option, message)


def with_short(args: Any, names: Sequence[str], training: TrainingConfig, argv: Sequence[str]) -> TrainingConfig:
    """The settings of the training, with those of `names` that were given by a short option such as --seed.

    Raises ValueError if the words `argv` give the long option another value.
    """
    given = {word.partition("=")[0].replace("_", "-") for word in argv}
    short = {name: value for name in names if (value := getattr(args, name)) is not None}
    for name, value in short.items():
        option, long = name.replace("_", "-"), getattr(training, name)
        if long != value and f"--training.{option}" in given:
            raise ValueError(f"--{option} is {value}, and --training.{option} is {long}; they are the same setting, so "
                             "give one of them")
    return dataclasses.replace(training, **short)


def dotted(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (class name, dotted key) of every setting and group of a dataclass, given as class or instance."""
    cls = settings if isinstance(settings, type) else type(settings)
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        value = getattr(settings, field.name, None)
        if value is None and isinstance(field.default_factory, type):
            value = field.default_factory()
        unnamed = any(getattr(extra, "name", None) == "" for extra in getattr(hints[field.name], "__metadata__", ()))
        key = prefix if unnamed else f"{prefix}{field.name}"
        if not unnamed:
            yield cls.__name__, key
        if dataclasses.is_dataclass(value):
            yield from dotted(value, key if unnamed else f"{key}.")


def registry(hidden: Mapping[int, set[str]] | None = None) -> ConstructorRegistry:
    """The rules by which tyro reads options. `hidden` is that of `parse`."""
    rules, hidden = ConstructorRegistry(), hidden or {}

    @rules.primitive_rule
    def whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        """Accepts 1e4 as a whole number too."""
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(nargs=1, metavar="INT", instance_from_str=lambda words: _whole(words[0]),
                                        is_instance=lambda value: type(value) is int,
                                        str_from_instance=lambda number: [str(number)])

    pending: list[object] = []  # guards against recursion: get_struct_spec asks all rules, this one too

    @rules.struct_rule
    def settings(info: StructTypeInfo) -> StructConstructorSpec | None:
        """Leaves hidden settings out, keeps the messages of `__post_init__` and joins the lines of help texts."""
        if pending or not dataclasses.is_dataclass(info.type):
            return None
        pending.append(info)
        spec = ConstructorRegistry.get_struct_spec(info)
        pending.clear()
        if not isinstance(spec, StructConstructorSpec):
            return None
        names = hidden.get(id(info.default), set())
        make = partial(dataclasses.replace, cast(Any, info.default)) if names else spec.instantiate
        return StructConstructorSpec(_wrapped(info.type, make),
                                     tuple(_as_paragraph(f) for f in spec.fields if f.name not in names))

    return rules


def without_effect(config: Any, shown: Any) -> dict[int, set[str]]:
    """The settings of `shown` that have no effect when all settings are those of `config`, as `parse` hides them."""
    hidden: dict[int, set[str]] = {}
    for key in unused(config):
        *groups, name = key.split(".")
        owner = reduce(lambda settings, group: getattr(settings, group, None), groups, shown)
        hidden.setdefault(id(owner), set()).add(name)
    return hidden


class _Refused(Exception):
    """Carries the message of a ValueError past tyro, which would reword it."""


def _as_paragraph(field: StructFieldSpec) -> StructFieldSpec:
    """The field with its help text as one paragraph; tyro would keep some of the line breaks of the source."""
    def paragraph() -> str | None:
        text = field.helptext() if callable(field.helptext) else field.helptext
        return text and " ".join(_of_users(text).split())

    return dataclasses.replace(field, helptext=paragraph)


def _wrapped(cls: type, make: Callable[..., Any]) -> Callable[..., Any]:
    def made(**settings: Any) -> Any:
        try:
            return make(**settings)
        except ValueError as error:
            raise _Refused(str(error)) from error

    doc = str(cls.__doc__)
    made.__doc__ = "" if doc.startswith(f"{cls.__name__}(") else _of_users(doc)  # dataclass's own, a signature
    return made


def _of_users(doc: str) -> str:
    """A docstring without the sentences that say what is raised: a command prints a line instead."""
    return re.sub(r"\s*\bRaises `?[A-Z]\w*Error`?\s[^.]*\.", "", doc)


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        with suppress(ValueError, OverflowError):
            if (number := int(float(word))) == float(word):
                return number
        raise ValueError(f"{word} is no whole number, such as 10000 or 1e4") from None
