"""Try again after a wait, where a store, a program or a network drive fails for a moment.

Waits double from try to try and are drawn between nothing and their longest ("full jitter", M.
Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015), so that the processes of a
run do not come back all at once.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from urllib3.exceptions import InvalidHeader, MaxRetryError
from urllib3.response import HTTPResponse
from urllib3.util import Retry

from wenet_osum.config import StoreConfig
from wenet_osum.dataset.drop import STORE

DEFAULT_STORE = StoreConfig()
LONGEST_WAIT_S = 20
LONGEST_ASKED_S = 120  # of a wait that a server asks for by Retry-After
BUSY = frozenset((408, 429, *range(500, 600)))  # HTTP's answers that may be others in a moment
# what a network drive or a disk says while its server is away, or has moved the file
PASSING = frozenset(
    (
        errno.EIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    )
)
# the draws of training have their own generators; this one is no part of them, and differs between
# forked processes
_draw = random.SystemRandom()
Read = TypeVar("Read")


class Backoff(Retry):
    """urllib3's count of tries, with waits that are drawn."""

    def get_backoff_time(self) -> float:
        """Return how long to wait before the next try, s."""
        failed = sum(row.redirect_location is None for row in self.history)
        if not failed:
            return 0.0
        longest = self.backoff_factor * 2 ** (failed - 1)
        return _draw.uniform(0, min(self.backoff_max, longest))

    def wait(self, retry_after: str | None) -> None:
        """Wait before the next try, as long as a server's ``Retry-After`` asks where it has one
        that can be read."""
        headers = {"Retry-After": retry_after} if retry_after else None
        try:
            self.sleep(HTTPResponse(headers=headers))
        except (InvalidHeader, OverflowError):
            self.sleep()


def backoff_for(conf: StoreConfig, tries: int | None = None) -> Backoff:
    """Return the count for a read of so many tries, else of as many as ``conf`` says."""
    tries = tries or conf.tries
    return Backoff(
        total=tries - 1,
        backoff_factor=conf.wait_s,
        backoff_max=LONGEST_WAIT_S,
        retry_after_max=LONGEST_ASKED_S,
    )


def with_retries(
    read: Callable[[], Read],
    conf: StoreConfig = DEFAULT_STORE,
    passing: Callable[[Exception], bool] | None = None,
    tries: int | None = None,
) -> Read:
    """Return what ``read`` returns, asked again while its faults may pass.

    ``passing`` tells which do; default: the ``PASSING`` ones of a drive. Raises the last fault.
    """
    passing = passing or _is_passing
    left = backoff_for(conf, tries)
    while True:
        try:
            return read()
        except Exception as error:
            if not passing(error):
                raise
            try:
                left = left.increment(error=error)
            except MaxRetryError:
                raise error from None
            left.sleep()


def _is_passing(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in PASSING


def drive_fault(path: str, error: Exception) -> str:
    """Return the reason of a Drop for what is no fault of the data; empty for anything else."""
    if not _is_passing(error):
        return ""
    return f"{STORE}{Path(path).parent}: {error.strerror}"
