"""That a child process ends with the process that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

IMPORTS = "GENTRAJ_IMPORT"  # environment variable with the modules of `gentraj --import`, separated by commas
PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


def end_with_parent(grace: float = 0.0) -> None:
    """Ends this process when its parent has died, even by SIGKILL: by SIGTERM, and at once `grace` seconds later.

    Without grace, Linux kills the process even where a call of C code never returns to Python.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return
    if not grace and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def end() -> None:
        parent.join()
        if grace:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
