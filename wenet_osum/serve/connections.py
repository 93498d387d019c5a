"""Connections that hold a descriptor and ask nothing: how many there may be, and for how long.

A client may open connections and send half a request, or never read an answer. Each of them takes
one of the process's descriptors, and without descriptors a server can neither accept nor read. So
there is room for a fixed number. A connection has a few seconds for the head of a request, and then
the time-out of a request. When there is no room left, the connection that has waited longest for a
head gives way to the new one: whoever asks at once is answered, however many others only sit there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 4096
ANSWER_S = 10.0  # beside the time-out of a request: how long its client may take to read the answer
LOG_EVERY_S = 60.0
# The route whose requests last as long as somebody speaks (streams.py has the other time-outs).
STREAM_PATH = "/v1/audio/stream"
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# Why the server closes a connection: the head of a request did not come in time; the rest of it did
# not come, or its answer was not read, in time; too many connections were open.
NO_HEAD, NO_END, NO_ROOM = "no_head", "no_end", "no_room"

log = logging.getLogger("uvicorn.error")


def raise_descriptor_limit() -> None:
    """Let this process open as many files as its hard limit allows; the usual soft one is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A system may refuse its own hard limit, as macOS does; then the soft one stays.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def room() -> int:
    """Return how many connections may be open: half of the descriptors, as files need some too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, soft // 2))


class Connections:
    """Holds what connections share: the room, who waits for a head, why some were closed."""

    def __init__(self, most: int, head_s: float, request_s: float, stream_s: float = 0.0) -> None:
        self.most = most
        self.head_s = head_s
        self.request_s = request_s
        # for a recording that is sent while it is made
        self.stream_s = stream_s or request_s
        self.open: set[Connection] = set()
        # In the order in which they began to wait. A dict, because a set has no order.
        self.waiting: dict[Connection, None] = {}
        self.closed: Counter[str] = Counter()  # by reason

    def add(self, connection: Connection) -> None:
        """Count a new connection in. Without room for it, close the one that has waited longest."""
        self.open.add(connection)
        self.waiting[connection] = None
        if len(self.open) > self.most:
            self.close(next(iter(self.waiting)), NO_ROOM)

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self.open.discard(connection)
        self.waiting.pop(connection, None)

    def close(self, connection: Connection, reason: str) -> None:
        """Close a connection at once, unsent bytes lost, and count it by its reason."""
        self.closed[reason] += 1
        self.remove(connection)
        connection.transport.abort()


class Connection(H11Protocol):
    """Uvicorn's HTTP/1.1 with a deadline: for a request's head, then for its end and answer."""

    def __init__(self, shared: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.shared = shared
        self.deadline: asyncio.TimerHandle | None = None
        self.answered: Any = None  # the request the deadline is for; None: a head is waited for

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._set_deadline(self.shared.head_s, NO_HEAD)
        self.shared.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Read on; more bytes of the same head do not move its deadline."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next head, or go on with one that came meanwhile."""
        super().on_response_complete()
        self._look()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Leave the connection to another protocol, which keeps its own time."""
        self._stop()
        super().handle_websocket_upgrade(event)

    def _look(self) -> None:
        """Set the deadline anew where a request has begun or ended since it was set."""
        if self not in self.shared.open:
            return
        running = self.cycle
        if running is not None and running.response_complete:
            running = None
        if running is self.answered:
            return
        self.answered = running
        if running is not None:
            self.shared.waiting.pop(self, None)
            seconds = self.shared.request_s
            if running.scope["path"] == STREAM_PATH:
                seconds = self.shared.stream_s
            self._set_deadline(seconds, NO_END)
            return
        # An answer may be written and still be on its way to a slow reader.
        self.shared.waiting[self] = None
        if self.transport.get_write_buffer_size():
            self._set_deadline(self.shared.request_s, NO_END)
        else:
            self._set_deadline(self.shared.head_s, NO_HEAD)

    def _set_deadline(self, seconds: float, reason: str) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
        self.deadline = self.loop.call_later(seconds, self.shared.close, self, reason)

    def _stop(self) -> None:
        self.shared.remove(self)
        if self.deadline is not None:
            self.deadline.cancel()


class RareLog:
    """An event loop's exception handler that tells of a lack of descriptors once in a while."""

    def __init__(self, every_s: float = LOG_EVERY_S) -> None:
        self.every_s = every_s
        self.next_at = 0.0
        self.untold = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what the loop could not do; anything but a lack of descriptors as asyncio does."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES):
            loop.default_exception_handler(context)
            return
        self.untold += 1
        if time.monotonic() < self.next_at:
            return
        what = "a connection could not be accepted (%s), %d times since this was last said"
        log.error(what, error.strerror, self.untold)
        self.next_at = time.monotonic() + self.every_s
        self.untold = 0
