"""What a long work tells people while it runs, on stderr: stdout is for results."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Progress for people goes to stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)
