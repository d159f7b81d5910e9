"""Options about environments that every command takes: --import, --env-id and --env-kwargs.

`--import MODULE`, and Gymnasium's `--env-id MODULE:Id`, import a module in every process of the command. Only the user
names modules; data and run folders never do. `--env-kwargs KEY=VALUE...` are arguments of the environment of
`--env-id`: both become the environment's specification as JSON, which every command accepts in the place of an id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gentraj.envs.making import environment_factory, import_for_all, imported

from ..config import from_word
from ..process import IMPORTS

Given = dict[str, list[str]]
"""The words that were given for options, by their keys."""
ARGUMENTS = "env_kwargs"


@contextmanager
def environment(given: Given) -> Iterator[None]:
    """Imports the named modules, here and in every process started within the block, and makes the environment and its
    arguments one word.

    Raises ValueError for arguments that the environment does not take, and what `import_named` raises.
    """
    modules = [name.removesuffix(".py") for name in given.pop("import", [])]
    arguments = given.pop(ARGUMENTS, None)
    before = os.environ.get(IMPORTS)
    try:
        for module in modules:
            import_for_all(module)
        env_id = imported(" ".join(given.get("env_id", [])))
        if arguments is not None:
            env_id = specification(env_id, arguments)
        if env_id:
            given["env_id"] = [env_id]
        yield
    finally:
        os.environ.pop(IMPORTS, None)
        if before is not None:
            os.environ[IMPORTS] = before


def specification(env_id: str, arguments: list[str]) -> str:
    """Gymnasium's EnvSpec of an environment with arguments KEY=VALUE, as JSON.

    Raises ValueError if the environment cannot be made with the arguments, and for those that have no effect when the
    JSON is read, such as a time limit that is taken for the length of a recording.
    """
    if not env_id or not arguments:
        raise ValueError("--env-kwargs are arguments KEY=VALUE of an environment, and one of them is missing; give "
                         "--env-id too")
    given = {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--env-kwargs has '{text}'; KEY=VALUE is expected, such as healthy_reward=0.5")
        given[key] = from_word(value)
    factory = environment_factory(env_id, given)
    try:
        factory().close()
    except Exception as error:  # an environment may raise anything
        raise ValueError(f"--env-kwargs {' '.join(arguments)}: {factory.env_id} cannot be made with them "
                         f"({type(error).__name__}: {error})") from error
    read = environment_factory(factory.spec_json)  # raises for what reading it back would refuse, such as files
    made, again = ({**each.kwargs, "max_episode_steps": each.max_episode_steps} for each in (factory, read))
    for key in given:
        if made.get(key) != again.get(key):
            raise ValueError(f"--env-kwargs {key}={given[key]}: {factory.env_id} is always made with "
                             f"{key}={again.get(key)} here; leave it out")
    return factory.spec_json


def imports_again() -> str:
    """The --import options of this call, for printing the command to call next."""
    named = os.environ.get(IMPORTS, "")
    return "".join(f" --import {module}" for module in filter(None, named.split(",")))
