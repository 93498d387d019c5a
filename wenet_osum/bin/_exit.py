"""The way out of a process that was one of several."""

from __future__ import annotations

import atexit
import os
import sys


def fault(command: str, error: Exception, status: int) -> int:
    """Say a fault as a sentence; returns ``status``. Rank 0 speaks for all when all see the same fault; others name themselves."""
    rank = os.environ.get("RANK", "0")
    print(f"{command}{'' if rank == '0' else f' (rank {rank})'}: {error}", file=sys.stderr, flush=True)
    return status


def leave(status: int) -> None:
    """End the process with ``status``: exit handlers and buffers as ever, but not the interpreter's own teardown.

    The process group and DDP keep threads in C++. One that wakes while Python is being torn down aborts the process ("terminate called without an
    active exception"), and torchrun reports a finished run as failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
