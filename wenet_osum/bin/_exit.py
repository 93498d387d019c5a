"""The end of a process that may be one of several."""

from __future__ import annotations

import atexit
import os
import sys


def fault(command: str, error: Exception, status: int) -> int:
    """Print a fault as a sentence; returns ``status``.

    Rank 0 speaks for all when all see the same fault; the others name themselves.
    """
    rank = os.environ.get("RANK", "0")
    who = command
    if rank != "0":
        who = f"{command} (rank {rank})"
    print(
        f"{who}: {error}",
        file=sys.stderr,
        flush=True,
    )
    return status


def leave(status: int) -> None:
    """End the process with ``status``: exit handlers and buffers as always, but not the
    interpreter's own teardown.

    The process group and DDP keep threads in C++. One that wakes while Python is being torn down
    aborts the process ("terminate called without an active exception"), and torchrun reports a
    finished run as failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
