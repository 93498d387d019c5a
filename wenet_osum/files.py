"""Write files so that they appear whole or not at all, whenever a process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, whose file takes the place of it in the end.

    Its folder is made if need be. When the block raises, the temporary file is removed, and what
    was at ``path`` stays. The name holds the process id: two processes do not tear one file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, errors: str = "strict") -> None:
    """Write a UTF-8 text file, whole or not at all.

    ``errors`` says what becomes of what UTF-8 cannot hold (lone surrogates), as ``open`` takes it.
    """
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors, newline="\n")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with replaced(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Let one process at a time into the block, for work that ends in the file ``path``.

    The others wait, on this machine and, where a shared file system has locks, on all. The lock
    goes with its process, however that ends. Where no lock can be had, as in a folder that cannot
    be written, every process comes in at once. Who has waited must look whether the work is done:
    the lock file is removed in the end, so a latecomer may hold another one.
    """
    lock = Path(f"{path}.lock")
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(lock, "ab"))
            held.callback(lock.unlink, missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
