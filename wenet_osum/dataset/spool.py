"""Whole shards in files that all processes of a node share, each made once.

They lie in a folder of this user in TMPDIR. A process that is at work holds a shared lock on the
folder, which the system releases when the process ends, however it ends. So the last process to end
removes the folder, and where all were killed, the next one to begin does.

A lock for each shard makes one process write it while the others wait. When the files exceed a
limit, those that were opened longest ago are removed; who reads from one may read on.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from wenet_osum.files import replaced

try:
    import fcntl
except ImportError:
    # There is no flock on this system.
    fcntl = None

IN_USE = "in_use"  # the file under the lock of all processes
LOCKS = 64  # files under which shards are written: those that share one wait for each other
SHARD = ".shard"  # how the names of files end


def spooled(name: str, write: Callable[[IO[bytes]], None], limit: int) -> int:
    """Return a descriptor of the file of a shard, which ``write`` makes where it is not there.

    ``limit`` is what all files may take, bytes; the one asked for stays whatever its size. Raises
    OSError, and what ``write`` raises.
    """
    folder = hold()
    digest = hashlib.sha1(name.encode()).hexdigest()
    path = folder / (digest + SHARD)
    number = int(digest, 16) % LOCKS
    with _locked(folder / f"lock{number}"):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            descriptor = _made(path, write)
            make_room(folder, limit, path)
    # the time of its last use
    os.utime(descriptor)
    return descriptor


def _made(path: Path, write: Callable[[IO[bytes]], None]) -> int:
    """Make the file of a shard, which appears whole or not at all. Returns its descriptor."""
    with replaced(path) as part:
        with open(part, "wb") as file:
            write(file)
        return os.open(part, os.O_RDONLY)


def make_room(folder: Path, limit: int, keep: Path) -> None:
    """Remove files, the least recently used first, until the rest takes ``limit`` bytes."""
    found = []
    with _locked(folder / "room"):
        for path in folder.glob("*" + SHARD):
            state = path.stat()
            found.append((path == keep, state.st_mtime_ns, state.st_size, path))
        found.sort()
        total = sum(size for _, _, size, _ in found)
        for kept, _, size, path in found:
            if total <= limit or kept:
                break
            path.unlink()
            total -= size


def is_removed(descriptor: int) -> bool:
    """Tell whether a file has been removed: its bytes are free once nobody has it open."""
    return os.fstat(descriptor).st_nlink == 0


def place() -> Path:
    """Return the folder of this user on this node."""
    name = f"wenet_osum-spool-{socket.gethostname()}-{os.getuid()}"
    return Path(tempfile.gettempdir()) / name


@functools.cache
def hold() -> Path:
    """Take part in the folder until this process, and those forked from it, have ended.

    Call it in the main process before data processes are forked, which then have nothing to remove.
    Raises OSError.
    """
    if fcntl is None:
        raise OSError(0, "shards that are printed whole need a system with flock")
    folder = place()
    lock = None
    while lock is None:
        lock = _take_part(folder)
    atexit.register(_leave, folder, lock, os.getpid())
    return folder


def _take_part(folder: Path) -> int | None:
    """Return the descriptor of a shared lock; None when the folder was removed meanwhile."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(1, "belongs to another user; set TMPDIR", str(folder))
    try:
        lock = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None

    # alone: whatever lies here was left by processes that were killed
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clear(folder)
    fcntl.flock(lock, fcntl.LOCK_SH)

    # who removed the folder between those lines holds the lock of a file that is no more
    if is_removed(lock):
        os.close(lock)
        return None
    return lock


def _leave(folder: Path, lock: int, owner: int) -> None:
    """Remove the folder, unless another process is at work in it."""
    # a forked process shares the lock of the one that it comes from
    if os.getpid() != owner:
        return
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clear(folder)
        # who waits for the lock of this file begins a folder of its own
        (folder / IN_USE).unlink(missing_ok=True)
        folder.rmdir()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != IN_USE:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, alone."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
