"""Options about environments that every command takes: --import, --env-id and --env-kwargs.

`--import MODULE`, and Gymnasium's `--env-id MODULE:Id`, import a module in every process of the command. Only the user
names modules; data and run folders never do. `--env-kwargs KEY=VALUE...` are arguments of the environment of
`--env-id`: both become the environment's specification as JSON, which every command accepts in the place of an id.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process
from typing import Any

from ..process import IMPORTS

IMPORT, ENVIRONMENT, ARGUMENTS = "--import", "--env-id", "--env-kwargs"


@contextmanager
def environments(words: list[str]) -> Iterator[list[str]]:
    """Imports the named modules, here and in every process started within the block, and gives the other words.

    Raises ValueError for an option without its value and for arguments that the environment does not take; also raises
    what `import_named` raises.
    """
    before = os.environ.get(IMPORTS)
    try:
        yield _read(words, before)
    finally:
        os.environ.pop(IMPORTS, None)
        if before is not None:
            os.environ[IMPORTS] = before


def _read(words: list[str], before: str | None) -> list[str]:
    """The other words; the named modules are imported, beside those that `before` names already."""
    if not any(word.split("=")[0] in (IMPORT, ENVIRONMENT, ARGUMENTS) for word in words):
        return words
    left, modules, arguments, env_id = _split(words)
    if modules:
        from gentraj.envs.registration import import_named

        os.environ[IMPORTS] = ",".join(dict.fromkeys([*filter(None, (before or "").split(",")), *modules]))
        import_named()
    if arguments and env_id is None:
        raise ValueError(f"{ARGUMENTS} are arguments of an environment; give {ENVIRONMENT} too")
    if env_id is not None:
        left += [ENVIRONMENT, specification(env_id, arguments) if arguments else env_id]
    return left


def _split(words: list[str]) -> tuple[list[str], list[str], list[str], str | None]:
    """Splits the words into those of the command, the modules, the KEY=VALUE pairs and the environment's id."""
    left, modules, arguments, env_id, waiting = list[str](), list[str](), list[str](), None, list(words)
    while waiting:
        option, is_joined, value = (word := waiting.pop(0)).partition("=")
        if option not in (IMPORT, ENVIRONMENT, ARGUMENTS) or (option == ENVIRONMENT and not is_joined and not waiting):
            left.append(word)
        elif option == ARGUMENTS:
            arguments += [value] if is_joined else []
            while not is_joined and waiting and "=" in waiting[0] and not waiting[0].startswith("-"):
                arguments.append(waiting.pop(0))
            if not arguments:
                raise ValueError(f"{ARGUMENTS} needs KEY=VALUE, such as include_cfrc_ext_in_observation=False")
        else:
            value = value if is_joined else waiting.pop(0) if waiting else ""
            if option == IMPORT and (not value or value.startswith("-")):
                raise ValueError(f"{IMPORT} needs the name of a module, such as {IMPORT} my_environments")
            module, has_module, own_id = value.rpartition(":") if not value.startswith("{") else ("", "", value)
            modules += [value.removesuffix(".py")] if option == IMPORT else [module] if has_module else []
            env_id = own_id if option == ENVIRONMENT else env_id
    return left, modules, arguments, env_id


def specification(env_id: str, arguments: list[str]) -> str:
    """Gymnasium's EnvSpec of an environment with arguments KEY=VALUE, as JSON.

    Raises ValueError if the environment cannot be made with the arguments, and for those that have no effect when the
    JSON is read, such as a time limit that is taken for the length of a recording.
    """
    from gentraj.envs.making import environment_factory, longest_limit

    given = dict(map(_argument, arguments))
    factory = environment_factory(env_id, given)
    if (steps := given.get("max_episode_steps") or 0) > (most := longest_limit(factory.env_id)):
        raise ValueError(f"{ARGUMENTS} max_episode_steps={steps}: an episode of {factory.env_id} can be given at most "
                         f"{most} steps; register an environment of your own with this limit")
    try:
        factory().close()
    except Exception as error:  # an environment may raise anything
        raise ValueError(f"{ARGUMENTS} {' '.join(arguments)}: {factory.env_id} cannot be made with them "
                         f"({type(error).__name__}: {error})") from error
    read = environment_factory(factory.spec_json)  # raises for what reading it back would refuse, such as files
    if lost := [key for key in given if read.kwargs.get(key) != factory.kwargs.get(key)]:
        raise ValueError(f"{ARGUMENTS} {lost[0]}={given[lost[0]]}: {factory.env_id} is always made with "
                         f"{lost[0]}={read.kwargs.get(lost[0])} here; leave it out")
    return factory.spec_json


def _argument(text: str) -> tuple[str, Any]:
    """Reads KEY=VALUE."""
    from ..config import from_word

    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise ValueError(f"{ARGUMENTS} has '{text}'; KEY=VALUE is expected, such as healthy_reward=0.5")
    return key, from_word(value)


def imports_again() -> str:
    """The --import options of this call, for printing the command to call next."""
    named = os.environ.get(IMPORTS, "")
    return "".join(f" {IMPORT} {module}" for module in filter(None, named.split(",")))


def is_script_run_again() -> bool:
    """Whether a process that a command started is running the user's script, which calls that command, again."""
    return getattr(current_process(), "_inheriting", False)  # the flag by which multiprocessing refuses it


def refuse_script() -> str:
    """The message for a user's script whose call of gentraj is not guarded by `if __name__ == '__main__':`."""
    script = getattr(sys.modules.get("__mp_main__"), "__file__", None) or "your script"
    return (f"{script} is run again by every process that the command starts; put its call of gentraj under "
            f"`if __name__ == '__main__':`")
