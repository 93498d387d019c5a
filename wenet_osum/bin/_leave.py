"""The way out of a process that was one of several."""

from __future__ import annotations

import atexit
import os
import sys


def leave(status: int) -> None:
    """End the process with ``status``: exit handlers and buffers as ever, but not the interpreter's own teardown.

    The process group and DDP keep threads in C++. One that wakes while Python is being torn down aborts the process ("terminate called without an
    active exception"), and torchrun reports a finished run as failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
