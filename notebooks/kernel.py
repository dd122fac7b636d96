"""A kernel that ends, at once, with the process that started it, however that ended: `python -m notebooks.kernel`.

Only Linux has this. Elsewhere ipykernel's own watch ends a kernel within a second. On Linux that would not do: a kernel
whose parent ends while it imports, and which then belongs to another process than init, would stay for ever.
"""

import ctypes
import os
import runpy
import signal
import sys

LAUNCHER = "ipykernel_launcher"
"""The module that is a kernel elsewhere."""
SIGNAL_AT_PARENTS_DEATH = 1
"""Linux's PR_SET_PDEATHSIG; the parent is the thread that started this process, not only its process."""


def die_with(parent: int) -> None:
    """From now on this process is killed when its parent ends; it ends now if `parent` is no longer its parent."""
    ctypes.CDLL(None).prctl(SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    die_with(int(os.environ["JPY_PARENT_PID"]))
    sys.orig_argv = [LAUNCHER if word == "notebooks.kernel" else word for word in sys.orig_argv]
    runpy.run_module(LAUNCHER, run_name="__main__", alter_sys=True)
