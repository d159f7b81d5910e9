"""Options about environments that every command takes: --import, --env-id and --env-kwargs.

`--import MODULE`, and Gymnasium's `--env-id MODULE:Id`, import a module in every process of the command. Only the user
names modules; data and run folders never do. `--env-kwargs KEY=VALUE...` are arguments of the environment of
`--env-id`: both become the environment's specification as JSON, which every command accepts in the place of an id.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ..process import IMPORTS

ARGUMENTS = "--env-kwargs"


class _Parser(ArgumentParser):
    """A parser whose errors are raised."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))


@contextmanager
def environments(words: list[str]) -> Iterator[list[str]]:
    """Imports the named modules, here and in every process started within the block, and gives the other words.

    Raises ValueError for an option without its value and for arguments that the environment does not take; also raises
    what `import_named` raises.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--import", dest="modules", action="append", default=[])
    parser.add_argument("--env-id")
    parser.add_argument(ARGUMENTS, nargs="+", default=[], metavar="KEY=VALUE")
    before = os.environ.get(IMPORTS)
    try:
        given, left = parser.parse_known_args(words)
        yield left + _settle(given, before)
    finally:
        os.environ.pop(IMPORTS, None)
        if before is not None:
            os.environ[IMPORTS] = before


def _settle(given: Namespace, before: str | None) -> list[str]:
    """Imports the named modules, beside those that `before` names already, and returns the words of the environment."""
    env_id, modules = given.env_id, [name.removesuffix(".py") for name in given.modules]
    if env_id is not None and ":" in env_id and not env_id.startswith("{"):
        module, _, env_id = env_id.rpartition(":")
        modules.append(module)
    if modules:
        from gentraj.envs.making import import_named

        os.environ[IMPORTS] = ",".join(dict.fromkeys([*filter(None, (before or "").split(",")), *modules]))
        import_named()
    if env_id is None:
        if given.env_kwargs:
            raise ValueError(f"{ARGUMENTS} are arguments of an environment; give --env-id too")
        return []
    return ["--env-id", specification(env_id, given.env_kwargs) if given.env_kwargs else env_id]


def specification(env_id: str, arguments: list[str]) -> str:
    """Gymnasium's EnvSpec of an environment with arguments KEY=VALUE, as JSON.

    Raises ValueError if the environment cannot be made with the arguments, and for those that have no effect when the
    JSON is read, such as a time limit that is taken for the length of a recording.
    """
    from gentraj.envs.making import environment_factory

    from ..config import from_word

    given = {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"{ARGUMENTS} has '{text}'; KEY=VALUE is expected, such as healthy_reward=0.5")
        given[key] = from_word(value)
    factory = environment_factory(env_id, given)
    try:
        factory().close()
    except Exception as error:  # an environment may raise anything
        raise ValueError(f"{ARGUMENTS} {' '.join(arguments)}: {factory.env_id} cannot be made with them "
                         f"({type(error).__name__}: {error})") from error
    read = environment_factory(factory.spec_json)  # raises for what reading it back would refuse, such as files
    made, again = ({**each.kwargs, "max_episode_steps": each.max_episode_steps} for each in (factory, read))
    for key in given:
        if made.get(key) != again.get(key):
            raise ValueError(f"{ARGUMENTS} {key}={given[key]}: {factory.env_id} is always made with "
                             f"{key}={again.get(key)} here; leave it out")
    return factory.spec_json


def imports_again() -> str:
    """The --import options of this call, for printing the command to call next."""
    named = os.environ.get(IMPORTS, "")
    return "".join(f" --import {module}" for module in filter(None, named.split(",")))
