"""Lock an output folder, so that a second run does not lose what the first one writes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:
    # There is no flock on this system.
    fcntl = None

# The file under flock, which the system releases when its process ends, however it ends.
LOCK = "lock"
# The file that stands in where flock is not supported. It outlives a process that is killed.
OWNER = "lock.owner"
UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class Taken(ValueError):
    """Another process writes into the folder; ``owner`` names it and its host, and is empty in the
    instant before that is written."""

    owner = ""


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Hold the lock of an output folder, which is made where it is missing.

    The lock is ``flock`` on ``lock``. Some network drives have no ``flock``; there it is the file
    ``lock.owner``, made with ``O_EXCL``. Both name host and process. Raises Taken when another
    process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _flocked(folder / LOCK)
    if descriptor is not None:
        with _open_until_end(descriptor, folder / LOCK):
            yield
        return

    _claim(folder / OWNER)
    try:
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)


@contextmanager
def held_on_this_host(folder: str | Path) -> Iterator[None]:
    """Hold the lock of an output folder against processes of this host alone.

    For work that must go on after the host it ran on is lost: a network drive may keep the lock of
    a machine that no longer exists. Raises Taken when a process of this host holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _flocked(folder / LOCK)
    except Taken as taken:
        if taken.owner.endswith(_host()):
            raise
        descriptor = None
    if descriptor is None:
        yield
        return
    with _open_until_end(descriptor, folder / LOCK):
        yield


@contextmanager
def _open_until_end(descriptor: int, path: Path) -> Iterator[None]:
    """Keep a locked file for the block."""
    try:
        yield
    finally:
        # Removed while it is still held: whoever opened it before sees that it is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _flocked(path: Path) -> int | None:
    """Lock the file and return its descriptor; None where ``flock`` is not supported.

    Raises Taken when another process has it.
    """
    if fcntl is None:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno in UNSUPPORTED:
                path.unlink(missing_ok=True)
                return None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise _taken(path, owner) from None

        # The holder before may have removed the file after it was opened here. Then the lock is on
        # a file that nobody else will find, and it has to be taken again.
        if _is_at(descriptor, path):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, _owner().encode(), 0)
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _claim(path: Path) -> None:
    """Make the file that says who writes here. Raises Taken when it is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        owner = path.read_text(errors="replace").strip()
        stale = f"; if that process no longer runs, delete {path} and start again"
        raise _taken(path, owner, stale) from None
    os.write(descriptor, _owner().encode())
    os.close(descriptor)


def _taken(path: Path, owner: str, further: str = "") -> Taken:
    """Return the error for a folder whose lock is ``path``."""
    fault = Taken(
        f"{path.parent} is being written by {owner or 'another process'}; wait until it has ended "
        f"and start again, or write into another folder{further}"
    )
    fault.owner = owner
    return fault


def _owner() -> str:
    return f"process {os.getpid()} {_host()}\n"


def _host() -> str:
    return f"on {socket.gethostname()}"
