"""Lock an output folder, so that a second run does not lose the answers of the first."""

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
WAIT = "wait until it has ended and start again to see its answers, or give another --out"
UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextmanager
def held(folder: str | Path) -> Iterator[None]:
    """Hold the lock of an output folder, which is made where it is missing.

    The lock is ``flock`` on ``lock``. Some network drives have no ``flock``; there it is the file
    ``lock.owner``, made with ``O_EXCL``. Both name host and process. Raises ValueError when
    another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _flocked(folder / LOCK) if fcntl else None
    if descriptor is not None:
        try:
            yield
        finally:
            # Removed while it is still held: whoever opened it before sees that it is gone.
            (folder / LOCK).unlink(missing_ok=True)
            os.close(descriptor)
        return

    _claim(folder / OWNER)
    try:
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)


def _flocked(path: Path) -> int | None:
    """Lock the file and return its descriptor; None where ``flock`` is not supported.

    Raises ValueError when another process has it.
    """
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
            raise ValueError(_taken(path, owner)) from None

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
    """Make the file that says who writes here. Raises ValueError when it is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        owner = path.read_text(errors="replace").strip()
        stale = f"if that process no longer runs, delete {path} and start again"
        raise ValueError(f"{_taken(path, owner)}; {stale}") from None
    os.write(descriptor, _owner().encode())
    os.close(descriptor)


def _taken(path: Path, owner: str) -> str:
    """Return the error's sentence; ``owner`` is empty in the instant before its name is written."""
    return f"{path.parent} is being written by {owner or 'another process'}; {WAIT}"


def _owner() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}\n"
