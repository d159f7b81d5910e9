"""Options of every command: how numbers may be written, how messages name settings, which options are shown."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, reduce
from typing import Any, TypeVar, cast, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from ..config import unused

T = TypeVar("T")
# What stands for another option: the short one is named where it was given.
SHORT = {"training.steps": "--steps", "training.seed": "--seed"}


def parse(command: type[T], argv: Sequence[str], prog: str, *, default: T | None = None, description: str | None = None,
          hidden: Mapping[int, set[str]] | None = None) -> T:
    """The options of a command, as `tyro.cli` reads them. `hidden` are names of settings that are no options, by the
    id of the instance that they are of.

    Raises ValueError for values that are refused, with the names of options in the place of those of settings.
    """
    with options_named(command if default is None else default, argv):
        more = {} if default is None else {"default": default}
        try:
            return tyro.cli(command, args=argv, prog=prog, description=description, registry=registry(hidden),
                            **cast(Any, more))
        except _Refused as error:
            raise ValueError(str(error)) from error


@contextmanager
def options_named(settings: Any, argv: Sequence[str]) -> Iterator[None]:
    """What goes wrong within speaks of options: `--planner.steps`, not `planner.steps` or `PlannerConfig.steps`."""
    try:
        yield
    except ValueError as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (in_options(error.args[0], settings, argv),)
        raise


def in_options(message: str, settings: Any, argv: Sequence[str]) -> str:
    """A message in which every setting that has an option is called by it.

    Of several settings that a message may speak of, as it names their class, the one that was given is meant.
    """
    keys, owners = set[str](), dict[str, list[str]]()  # the name of a class -> the groups that are of it
    for owner, key in dotted(settings):
        keys.add(key)
        group = key.rpartition(".")[0]
        if group not in owners.setdefault(owner, []):
            owners[owner].append(group)
    given = {word.partition("=")[0] for word in argv if word.startswith("--")}

    def option(match: re.Match[str]) -> str:
        owner, _, name = match[0].partition(".")
        meant = [match[0], *(f"{group}.{name}".removeprefix(".") for group in owners.get(owner, ()))]
        options = [SHORT[key] if SHORT.get(key) in given else f"--{key.replace('_', '-')}"
                   for key in meant if key in keys]
        return next((one for one in options if one in given), options[0] if options else match[0])

    return re.sub(r"(?<![\w./'-])\w+(?:\.[a-z]\w*)+(?![\w/])", option, message)


def dotted(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name of the class, dotted key) of every setting, of groups too, of a dataclass or of its defaults."""
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
    """How tyro reads options."""
    rules, hidden = ConstructorRegistry(), hidden or {}

    @rules.primitive_rule
    def whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        """1e4 is one too."""
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(nargs=1, metavar="INT", instance_from_str=lambda words: _whole(words[0]),
                                        is_instance=lambda value: type(value) is int,
                                        str_from_instance=lambda number: [str(number)])

    asking: list[object] = []

    @rules.struct_rule
    def settings(info: StructTypeInfo) -> StructConstructorSpec | None:
        """What tyro makes of a dataclass otherwise, without what is hidden, and refused as the dataclass says it."""
        if asking or not dataclasses.is_dataclass(info.type):
            return None
        asking.append(info)
        spec = ConstructorRegistry.get_struct_spec(info)
        asking.clear()
        if not isinstance(spec, StructConstructorSpec):
            return None
        names = hidden.get(id(info.default), set())
        make = partial(dataclasses.replace, cast(Any, info.default)) if names else spec.instantiate
        return StructConstructorSpec(_made(info.type, make), tuple(f for f in spec.fields if f.name not in names))

    return rules


def without_effect(config: Any, shown: Any) -> dict[int, set[str]]:
    """As `hidden` of `parse`: of the settings `shown` those that change nothing where all are as in `config`."""
    found: dict[int, set[str]] = {}
    for key in unused(config):
        *groups, name = key.split(".")
        found.setdefault(id(reduce(lambda of, group: getattr(of, group, None), groups, shown)), set()).add(name)
    return found


class _Refused(Exception):
    """A ValueError that tyro does not know and so says nothing about."""


def _made(cls: type, make: Callable[..., Any]) -> Callable[..., Any]:
    def made(**settings: Any) -> Any:
        try:
            return make(**settings)
        except ValueError as error:
            raise _Refused(str(error)) from error

    own = str(cls.__doc__)
    made.__doc__ = "" if own.startswith(f"{cls.__name__}(") else own  # which dataclasses write where there is none
    return made


def _whole(word: str) -> int:
    """Raises ValueError, of which tyro tells."""
    try:
        return int(word)
    except ValueError:
        with suppress(ValueError, OverflowError):
            if (number := int(float(word))) == float(word):
                return number
        raise ValueError(f"{word} is no whole number, such as 10000 or 1e4") from None
