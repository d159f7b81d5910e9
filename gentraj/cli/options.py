"""How every command parses its options and lays out its `--help`.

A command's own options are the fields of a dataclass, which tyro parses. Every other option of `gentraj train`,
`evaluate` and `distill` is a setting at its dotted key, such as `--policy.model.steps 10`: it is put into the settings
of the preset, the file or the run, which are then read as a file of settings is.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from difflib import get_close_matches
from functools import partial, reduce, wraps
from operator import attrgetter, or_
from pathlib import Path
from shlex import quote
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Never, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from ..config import OneOf, dotted_keys, from_word, groups_off, with_settings
from ..device import pick_device
from ..diffusion.diffusion_model import GridName, SamplerName
from ..progress import say
from ..runs.kinds.folder import RunFolder, check_trained
from ..runs.kinds.loading import load
from ..runs.kinds.run import Run
from ..runs.kinds.zoo import PREFIX
from ..trajectory import SamplingOptions

T = TypeVar("T")
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Device = Annotated[str | None, tyro.conf.arg(help=(
    "A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."))]
Step = Annotated[int | None, tyro.conf.arg(help=(
    "The training step of the checkpoint; by default the one that `gentraj choose --use` took, or else the newest."))]
NOTHING: Mapping[str, Never] = {}
HELP = {"-h", "--help"}


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """Settings of the sampler; by default those of the run."""

    sampler: SamplerName | None = None
    """The sampler, instead of the run's own."""
    grid: GridName | None = None
    """The spacing of the sampling steps, instead of the run's own."""
    eta: float | None = None
    """Amount of noise that is added while sampling, from 0 (deterministic) to 1, instead of the run's own."""

    def options(self, steps: int | None = None, temperature: float = 1.0) -> SamplingOptions:
        """These settings with a number of sampling steps and a temperature."""
        return SamplingOptions(self.sampler, steps, self.grid, self.eta, temperature)


def parse(command: type[T], argv: Sequence[str], prog: str, *, description: str | None = None,
          settings: Iterable[str] = ()) -> T:
    """Parses the options of a command, the fields of a dataclass, whose docstring is the description by default.

    `settings` are keys that are options, too. Raises ValueError if an option is unknown or missing, or its value is
    refused; the message names options, not settings. Raises SystemExit after `--help`.
    """
    with _in_one_line(prog, [_named(key) for key in settings], dict(_groups(command))):
        return tyro.cli(command, args=argv, prog=prog, description=description, registry=registry())


def parse_call(commands: Mapping[str, Callable[..., None]], argv: Sequence[str], prog: str,
               description: str) -> Callable[[], None]:
    """One of several commands, functions whose parameters are options, with what it is called with. Raises what `parse`
    raises."""
    later = {name: _later(command) for name, command in commands.items()}
    with _in_one_line(prog, commands):
        return tyro.extras.subcommand_cli_from_dict(later, args=argv, prog=prog, description=description,
                                                    registry=registry())


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """A function with the same parameters, which returns the call."""
    @wraps(command)
    def made(*args: object, **options: object) -> Callable[[], None]:
        return partial(command, *args, **options)

    return made


def _groups(command: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The names of the classes whose fields are options of a command, each with what these options begin with."""
    yield command.__name__, prefix
    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        if field.default_factory is not dataclasses.MISSING and dataclasses.is_dataclass(field.default_factory()):
            hint = hints[field.name]
            nameless = any(getattr(each, "name", None) == "" for each in getattr(hint, "__metadata__", ()))
            yield from _groups(type(field.default_factory()), prefix if nameless else f"{prefix}{field.name}.")


@contextmanager
def _in_one_line(prog: str, known: Iterable[str], groups: Mapping[str, str] = NOTHING) -> Iterator[None]:
    """Raises ValueError with one line in the place of what tyro prints about wrong options; `known` are further words
    that could have been meant. A setting is named as an option, in the group of its class."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except _Refused as error:
        message = re.sub(r"\b([A-Z]\w+)\.([a-z]\w*)", lambda match: _named(groups.get(match[1], "") + match[2]),
                         str(error))
        raise ValueError(message) from error
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(f"{_unboxed(said.getvalue(), known)}; `{prog} --help` lists the options") from None


def _unboxed(text: str, known: Iterable[str]) -> str:
    """What tyro says in a box of a title and sections: the first section in one line, and the nearest option."""
    lines = re.sub("\033\\[[0-9;]*m|[│|]", "", text).splitlines()
    sections = [""]
    for line in lines:
        if re.search("[─-]{3}", line):
            sections.append("")
        else:
            sections[-1] += f" {line.strip()}"
    said = sections[1].strip().rstrip(".")
    near = re.findall(r"Perhaps you meant:\s*(--[\w.-]+)", " ".join(sections[2:]))
    if unknown := re.match(r"Unrecognized options: ([^\s,=]+)", said):
        deeper = [option for option in known if option.endswith(f".{unknown[1].removeprefix('--')}")]
        near = [*deeper, *near, *get_close_matches(unknown[1], list(known))]
    elif choice := re.match(r"invalid choice '(.*?)'.*Expected one of \((.*)\)", said):
        near += get_close_matches(choice[1], re.findall("'(.*?)'", choice[2]))
    return f"{said}; did you mean {near[0]}?" if near else said


def split(argv: Sequence[str], keys: Collection[str], is_argument: Callable[[str], bool] = lambda word: False,
          short: Mapping[str, str] = NOTHING) -> tuple[list[str], dict[str, list[str]]]:
    """The words of a command's own options and its arguments, and the words of each setting, by its dotted key.

    `keys` are the settings without a dot, and `short` those with a short option: its name -> the dotted key. Words
    after a setting are its values, but for one that `is_argument` after the first.
    """
    words: list[str] = []
    given: dict[str, list[str]] = {}
    values = words
    for word in argv:
        if not re.match("--[a-z]", word):
            if values and is_argument(word):
                values = words
            values.append(word)
            continue
        option, equals, value = word.partition("=")
        name = option[2:].replace("-", "_")
        if "." not in name and name not in short and name.removeprefix("no_") not in keys:
            words.append(word)
            values = words
        elif equals:
            given[short.get(name, name)] = [value]
            values = words
        else:
            given[short.get(name, name)] = values = []
    return words, given


def is_run(word: str) -> bool:
    """Whether this is a run: its folder, or one of the zoo."""
    # Path.is_file raises an exception where a word is too long.
    return word.startswith(PREFIX) or os.path.isfile(os.path.join(word, RunFolder.CONFIG))


def load_trained(folder: Path, device: str | None, step: int | None = None) -> Run:
    """Loads a run, and says if its training is not finished.

    Raises ValueError for a run that is not trained at all, unless its step 0 is asked for.
    """
    run = load(folder, step=step, device=pick_device(device))
    if step is None:
        check_trained(run)
    steps = run.config.training.steps
    if step is None and run.step == RunFolder(run.folder).chosen():
        say(f"{run.folder} is taken at step {run.step:,} of {steps:,}, which was chosen")
    elif run.step < steps:
        say(f"{run.folder} is at step {run.step:,} of {steps:,}: its training is not finished; `gentraj train --resume "
            f"{quote(str(run.folder))}` goes on")
    return run


def with_options(config: T, given: Mapping[str, Sequence[str]]) -> T:
    """The settings with those that were given on the command line. Raises ValueError for an unknown or wrong one."""
    keys, changes = set(dotted_keys(config)), {}
    for key, words in given.items():
        positive = re.sub(r"(^|\.)no_", r"\1", key)
        current = attrgetter(positive)(config) if positive in keys else None
        if key != positive and positive in keys and not words:
            changes[positive] = False if isinstance(current, bool) else None
        else:
            changes[key] = _value(words, current)
    return with_settings(config, changes)


def print_settings(config: object) -> None:
    """Prints the settings as options, each with its type, its value and what it is, for `--help`."""
    with suppress(SystemExit):
        tyro.cli(type(config), args=["--help"], default=config, prog="settings", description="",
                 config=(tyro.conf.AvoidSubcommands,), registry=registry())
    off = [_named(key) for key in groups_off(config)]
    if off:
        print("Groups of settings that are off. Each of these options turns one on, and --help then shows it: "
              f"{' '.join(off)}")


def print_help(command: type, prog: str, config: object | None) -> None:
    """Prints the options of a command, then the settings of what the command line names, if it names something; ends
    the process as tyro's `--help` does."""
    try:
        parse(command, ["--help"], prog)
    finally:
        if config is not None:
            print_settings(config)


def registry() -> ConstructorRegistry:
    """The rules by which tyro reads options."""
    rules = ConstructorRegistry()

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
    def checked(info: StructTypeInfo) -> StructConstructorSpec | None:
        """Keeps the messages of refused settings, makes each help text one paragraph and a name of a table a choice."""
        if pending or not dataclasses.is_dataclass(info.type):
            return None
        pending.append(info)
        spec = ConstructorRegistry.get_struct_spec(info)
        pending.clear()
        if not isinstance(spec, StructConstructorSpec):
            return None
        return StructConstructorSpec(_refusing(spec.instantiate), tuple(map(_as_option, spec.fields)))

    return rules


class _Refused(Exception):
    """Carries the message of a ValueError past tyro, which would reword it."""


def _value(words: Sequence[str], current: Any) -> Any:
    """The value of a setting whose value was `current`. Without words, a flag is set and a group has its defaults."""
    if not words:
        return True if isinstance(current, bool) else {}
    if isinstance(current, str) and len(words) == 1:
        return words[0]
    # An environment may be given by its EnvSpec, which is JSON but the text of a setting.
    values = [word if word.startswith("{") else from_word(word) for word in words]
    return values if len(values) > 1 or isinstance(current, tuple) else values[0]


def _as_option(field: StructFieldSpec) -> StructFieldSpec:
    """The field with its choices, and without the line breaks of the source in its help text."""
    def paragraph() -> str:
        text = field.helptext() if callable(field.helptext) else field.helptext
        return " ".join((text or "").split())

    return dataclasses.replace(field, type=_with_choices(field.type), helptext=paragraph)


def _with_choices(hint: Any) -> Any:
    """The type with the names that its tables hold now."""
    for each in getattr(hint, "__metadata__", ()):
        if isinstance(each, OneOf):
            return Literal[tuple(each.table)]
    inner = tuple(map(_with_choices, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, inner)
    return GenericAlias(dict, inner) if get_origin(hint) is dict else hint


def _refusing(make: Callable[..., object]) -> Callable[..., object]:
    @wraps(make)
    def made(**settings: object) -> object:
        try:
            return make(**settings)
        except ValueError as error:
            raise _Refused(str(error)) from error

    return made


def _named(key: str) -> str:
    """The option of a setting."""
    return f"--{key.replace('_', '-')}"


def _whole(word: str) -> int:
    number = from_word(word)
    if type(number) is not int:
        raise ValueError(f"{word} is no whole number, such as 10000 or 1e4")
    return number
