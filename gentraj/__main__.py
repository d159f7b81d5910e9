"""Runs the command `gentraj` as `python -m gentraj`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
