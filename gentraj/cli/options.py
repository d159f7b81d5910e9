"""What a command is, how it reads its options, and how it lays out its `--help`.

A command is a class of settings: its fields are its options, its docstring is its help, and its call does it. Its words
are read here and nowhere else; what they mean, the types of the fields and settings say. tyro writes the help.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from math import inf
from operator import attrgetter, or_
from pathlib import Path
from shlex import quote
from types import GenericAlias, UnionType
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import tyro
from pydantic import PositiveInt
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from ..config import (
    NO_WORD,
    Misuse,
    OneOf,
    Word,
    alternatives,
    dotted_keys,
    from_json,
    groups_off,
    settings,
    types_of,
    unknown_option,
    with_settings,
)
from ..data.sources import is_path
from ..data.tables import is_table
from ..device import pick_device
from ..diffusion.diffusion_model import GridName, SamplerName
from ..experiments.pools import LocalProcesses, Pool, RayTasks
from ..progress import say
from ..runs.kinds.folder import RunFolder, check_trained
from ..runs.kinds.loading import load
from ..runs.kinds.run import Run
from ..runs.kinds.zoo import PREFIX
from ..trajectory import SamplingOptions
from .environments import ARGUMENTS, Given, environment

T = TypeVar("T")
GROUP: Any = tyro.conf.arg(name="")  # of a field whose settings are options without its name
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Device = Annotated[str | None, tyro.conf.arg(help=(
    "A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."))]
CheckpointStep = Annotated[int | None, tyro.conf.arg(help=(
    "The training step of the checkpoint; by default the one that `gentraj choose --use` took, or else the newest."))]
RayAddress = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")]
HELP = {"-h", "--help"}
REPEATED = {"import"}  # options of one word that may be given several times
JOINED = {"dataset"}  # options whose several values are one word; of others that are given twice, the last one counts


def named(key: str) -> str:
    """The option of a setting."""
    return f"--{key.replace('_', '-')}"


@settings
class Command:
    """A command, whose fields are its options."""

    SHORT: ClassVar[Mapping[str, str]] = {}
    """Other names of keys."""

    def __call__(self) -> None:
        """Does what the command is for."""
        raise NotImplementedError

    @classmethod
    def more_help(cls, given: Given) -> Callable[[], None] | None:
        """What prints the rest of the help, where this much is given. Raises ValueError for wrong settings."""
        return None

    @staticmethod
    def is_argument(word: str) -> bool:
        """Whether a word behind a value of a setting is an argument, and no further value: here a run."""
        # Path.is_file raises an exception where a word is too long.
        return word.startswith(PREFIX) or os.path.isfile(os.path.join(word, RunFolder.CONFIG))


@settings
class Configuring(Command):
    """A command that has all settings of something for options, too."""

    given: Annotated[Given, tyro.conf.Suppress] = dataclasses.field(default_factory=dict, kw_only=True)
    """The options that are none of the command's own."""


@settings
class Training(Configuring):
    """A command that trains, and has all settings of what it trains for options."""

    SHORT: ClassVar[Mapping[str, str]] = {name: f"training.{name}" for name in
                                          ("steps", "seed", "eval_every", "eval_episodes")}

    @classmethod
    def configured(cls, config: T, given: Given) -> T:
        """The settings with those that were given. Raises ValueError for an unknown or wrong one."""
        own = options_of(cls)
        others = {key: words for key, words in given.items() if key not in own}
        return with_options(config, others, also=[*own, *cls.SHORT])


@settings
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


@settings
class JobsOptions:
    """Where jobs run."""

    jobs: PositiveInt | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    ray: RayAddress = None
    """Run the jobs on Ray (extra scale): at an address such as auto or host:6379, or without one on a cluster of this
    machine. All its machines must share the folder that is written to. A job whose worker is lost is repeated."""


def pool_of(options: JobsOptions, folder: Path) -> Pool:
    """The pool for jobs that write into the folder. Raises ImportError if Ray is asked for and missing."""
    if options.ray is None:
        return LocalProcesses(options.jobs)
    if len(options.ray) > 1:
        raise ValueError(f"--ray is {' '.join(options.ray)}; give one address, or none for a cluster of this machine")
    return RayTasks(folder, *options.ray, number=options.jobs)


def call(command: type[Command], argv: Sequence[str], prog: str) -> None:
    """Does what a command is for, with the options that it is given, or prints its help.

    Raises ValueError for an option that is unknown, missing or refused, and what the command raises.
    """
    words = [word for word in argv if word not in HELP]
    try:
        given = read(command, words)
        with environment(given):
            values = values_of(command, given)
            if len(words) < len(argv):
                _print_help(command, command.more_help(given), prog)
                return
            missing = [f"{option.name} ({_about(command, key)})" for key, option in options_of(command).items()
                       if option.is_required and key not in given]
            if missing:
                raise Misuse(f"missing: {', '.join(missing)}")
            from_json(command, values, "")()
    except Misuse as error:
        raise ValueError(f"{error}; `{prog} --help` lists the options") from None


class Option(NamedTuple):
    """An option or an argument of a command."""

    name: str
    """What it is called on the command line."""
    number: float
    """How many words it takes: 0 if it is a flag, 1, or any number."""
    is_argument: bool = False
    is_required: bool = False


ENVIRONMENT = {"import": Option("--import", 1), ARGUMENTS: Option(named(ARGUMENTS), inf)}
"""The options of every command about environments."""


def options_of(command: type) -> dict[str, Option]:
    """The options and the arguments of a command, by their keys."""
    found: dict[str, Option] = {}
    for field in dataclasses.fields(command):
        key, hint = field.name, types_of(command)[field.name]
        kinds, marks = alternatives(hint), _marks(hint)
        if GROUP in marks:
            found |= options_of(kinds[0])
        elif tyro.conf.Suppress not in marks:
            number = inf if any(get_origin(kind) is tuple for kind in kinds) else 1
            if bool in kinds:
                number = 0
            metavars = [mark.metavar for mark in marks if isinstance(mark, type(GROUP))]
            is_argument = tyro.conf.Positional in marks
            is_required = field.default is field.default_factory is dataclasses.MISSING
            found[key] = Option(metavars[0] if is_argument else named(key), number, is_argument, is_required)
    return found


def read(command: type[Command], words: Sequence[str]) -> Given:
    """The words of each option that is given and, by the name of its field, of each argument; for a flag True or False.

    Raises ValueError for an option without a value and for an argument that is not expected.
    """
    options = options_of(command) | ENVIRONMENT
    arguments, groups = _by_option(words)
    given: Given = {}
    for option, following in groups:
        name, equals, value = option.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        key = command.SHORT.get(key, key)
        positive = key.removeprefix("no_")
        number = _number_of_values(command, options, key, following)
        values = following[:number]
        if key in options and options[key].is_argument:
            raise Misuse(f"{name} is unknown; {options[key].name} is an argument, which stands by itself")
        if equals:
            values, number = [value], 0
        elif positive in options and options[positive].number == 0:
            key, values = positive, [str(key == positive)]
        elif key in options and options[key].number == 1 and not values:
            raise Misuse(f"{name} has no value")
        if key in REPEATED or (key in options and options[key].number == inf):
            values = given.get(key, []) + values
        elif key in JOINED and key in given:
            raise Misuse(f"{name} is given twice; '+' joins several, as in {name} {'+'.join(given[key] + values)}")
        given[key] = values
        arguments += following[number:]
    for key, argument in options.items():
        if argument.is_argument and arguments:
            number = int(min(argument.number, len(arguments)))
            given[key], arguments = arguments[:number], arguments[number:]
    if arguments:
        names = " ".join(option.name for option in options.values() if option.is_argument)
        word, meant = arguments[0], ""
        if is_path(word) or is_table(word):
            meant = f"; if it holds the data, give --dataset {quote(word)}"
        raise Misuse(f"'{word}' is an argument too many; expected: {names or 'none'}{meant}")
    return given


def _by_option(words: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The words before all options, and each option with the words behind it. Raises ValueError for a word with one
    dash."""
    before: list[str] = []
    groups: list[tuple[str, list[str]]] = []
    following = before
    for word in words:
        if re.match("-[A-Za-z]", word) and word != "-inf":
            raise ValueError(f"{word} is no option; options have two dashes and a whole name, such as --seed, and "
                             "--help lists them")
        if re.match("--[a-z]", word):
            following = []
            groups.append((word, following))
        else:
            following.append(word)
    return before, groups


def _number_of_values(command: type[Command], options: Mapping[str, Option], key: str, words: Sequence[str]) -> int:
    """How many of the words behind an option are its values."""
    if key in options:
        return int(min(options[key].number, len(words)))
    if key.startswith("no_"):
        return 0
    return next((i for i, word in enumerate(words) if i and command.is_argument(word)), len(words))


def values_of(command: type[Command], given: Given) -> dict[str, Any]:
    """The values of the fields that are given. Raises ValueError if one is unknown, or a setting of a group is refused.
    """
    values: dict[str, Any] = {}
    left, known = dict(given), [*options_of(command)]
    for field in dataclasses.fields(command):
        key = field.name
        if GROUP in _marks(types_of(command)[key]):
            group: Any = field.default_factory()  # pyright: ignore[reportCallIssue]
            known += dotted_keys(group)
            names = {each.name for each in dataclasses.fields(group)}
            own = {name: left.pop(name) for name in [*left] if name.partition(".")[0] in names}
            values[key] = with_options(group, own)
        elif key in left:
            values[key] = _value(left.pop(key))
    if issubclass(command, Configuring):
        values["given"] = left
    elif left:
        raise unknown_option(next(iter(left)), known)
    return values


def below(group: str, given: Given) -> Given:
    """The words of the options below the name of a group."""
    return {key.removeprefix(f"{group}."): words for key, words in given.items() if key.startswith(f"{group}.")}


def _value(words: Sequence[str]) -> Word | list[Word]:
    if len(words) == 1:
        return Word(words[0])
    return [Word(word) for word in words]


def with_options(config: T, given: Given, group: str = "", also: Iterable[str] = ()) -> T:
    """The settings with those that were given on the command line, where they are options below the name of their
    `group`. Raises ValueError for an unknown or wrong one; `also` are other options that could have been meant."""
    keys, changes = set(dotted_keys(config)), {}
    for key, words in given.items():
        positive = re.sub(r"(^|\.)no_", r"\1", key)
        is_flag = positive in keys and isinstance(attrgetter(positive)(config), bool)
        if words:
            changes[key] = _value(words)
        elif positive in keys and positive != key:
            changes[positive] = False if is_flag else None
        else:
            changes[key] = True if is_flag else NO_WORD
    return with_settings(config, changes, group=group, also=also)


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


@dataclasses.dataclass(frozen=True)
class _Shown(Generic[T]):
    """Settings in a help text."""

    settings: T


def print_settings(config: object, group: str = "") -> None:
    """Prints the settings as options, below the name of their `group`, each with its type, its value and what it is."""
    shown: Any = _Shown[Annotated[type(config), tyro.conf.arg(name=group)]]  # pyright: ignore[reportInvalidTypeForm]
    with suppress(SystemExit):
        tyro.cli(shown, args=["--help"], default=_Shown(config), prog="settings", description="",
                 config=(tyro.conf.AvoidSubcommands,), registry=registry())
    off = [named(key) for key in groups_off(config, group and f"{group}.")]
    if off:
        print("Groups of settings that are off. Each of these options turns one on, and --help then shows it: "
              f"{' '.join(off)}")


def _about(command: type[Command], key: str) -> str:
    """The first sentence of the help text of an option."""
    spec = ConstructorRegistry.get_struct_spec(StructTypeInfo.make(command, tyro.MISSING, in_union_context=False))
    if not isinstance(spec, StructConstructorSpec):
        return ""
    return first_sentence(next(_help_text(field) for field in spec.fields if field.name == key))


def first_sentence(text: str | None) -> str:
    """The first sentence of a text, up to a colon if it has one."""
    return re.split(r"[.:;]\s", " ".join((text or "").split()))[0].removesuffix(".")


def _print_help(command: type[Command], more: Callable[[], None] | None, prog: str) -> None:
    """Prints the options of a command, and more."""
    with suppress(SystemExit):
        tyro.cli(command, args=["--help"], prog=prog, registry=registry())
    if more is not None:
        more()


def registry() -> ConstructorRegistry:
    """The rules by which tyro writes the help."""
    rules = ConstructorRegistry()
    pending: list[object] = []  # guards against recursion: get_struct_spec asks all rules, this one too

    @rules.struct_rule
    def described(info: StructTypeInfo) -> StructConstructorSpec | None:
        """Makes each help text one paragraph and a name of a table a choice."""
        if pending or not dataclasses.is_dataclass(info.type):
            return None
        pending.append(info)
        spec = ConstructorRegistry.get_struct_spec(info)
        pending.clear()
        if not isinstance(spec, StructConstructorSpec):
            return None
        return dataclasses.replace(spec, fields=tuple(map(_as_option, spec.fields)))

    return rules


def _as_option(field: StructFieldSpec) -> StructFieldSpec:
    """The field with its choices, and without the line breaks of the source in its help text."""
    return dataclasses.replace(field, type=_with_choices(field.type),
                               helptext=lambda: " ".join(_help_text(field).split()))


def _help_text(field: StructFieldSpec) -> str:
    """The help text of a field, as its type or else the source has it."""
    text: Any = next((mark.help for mark in _marks(field.type) if isinstance(mark, type(GROUP)) and mark.help),
                     field.helptext)
    if callable(text):
        text = text()
    return text or ""


def _with_choices(hint: Any) -> Any:
    """The type with the names that its tables hold now."""
    for each in _marks(hint):
        if isinstance(each, OneOf):
            return Literal[tuple(each.table)]
    inner = tuple(map(_with_choices, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, inner)
    return GenericAlias(dict, inner) if get_origin(hint) is dict else hint


def _marks(hint: Any) -> tuple[Any, ...]:
    """What is annotated to a type."""
    return getattr(hint, "__metadata__", ())
