"""`gentraj --import MODULE`: environments of your own in every process of a command.

The user names the modules, by the option or by `--env-id MODULE:Id` as Gymnasium does; data and run folders never do.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import current_process

OPTION, ENVIRONMENT = "--import", "--env-id"


def take_imports(words: list[str]) -> list[str]:
    """Imports the modules that the words name, here and in processes that are started, and returns the other words.

    Raises ValueError for an option without its module, and what `import_named` raises.
    """
    if not any(word.split("=")[0] in (OPTION, ENVIRONMENT) for word in words):
        return words
    left, named = _parted(words)
    if named:
        from envs.rendering.headless import IMPORTS, import_named

        os.environ[IMPORTS] = ",".join(dict.fromkeys([*filter(None, os.environ.get(IMPORTS, "").split(",")), *named]))
        import_named()
    return left


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of the command, and the modules."""
    left, named, waiting = list[str](), list[str](), list(words)
    while waiting:
        word = waiting.pop(0)
        option, is_whole, value = word.partition("=")
        if option not in (OPTION, ENVIRONMENT) or (not is_whole and not waiting and option == ENVIRONMENT):
            left.append(word)
            continue
        value = value if is_whole else waiting.pop(0) if waiting else ""
        if option == OPTION:
            if not value or value.startswith("-"):
                raise ValueError(f"{OPTION} needs the name of a module, such as {OPTION} my_environments")
            named.append(value.removesuffix(".py"))
        else:
            module, is_parted, env_id = value.rpartition(":")
            named += [module] if is_parted else []
            left += [option, env_id]
    return left, named


def said_again() -> str:
    """The option, for a command that is to be called next."""
    named = os.environ.get("GENTRAJ_IMPORT", "")
    return "".join(f" {OPTION} {module}" for module in filter(None, named.split(",")))


def is_script_run_again() -> bool:
    """Whether a process that a command started runs the user's script, which calls that command, once more."""
    return getattr(current_process(), "_inheriting", False)  # what multiprocessing itself asks, to refuse it


def refuse_script() -> str:
    script = getattr(sys.modules.get("__mp_main__"), "__file__", None) or "your script"
    return (f"{script} is run again by every process that the command starts; put its call of gentraj under "
            f"`if __name__ == '__main__':`")
