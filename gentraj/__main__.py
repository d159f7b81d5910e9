"""`python -m gentraj` is `gentraj`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
