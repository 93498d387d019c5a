"""Open a socket, serve the application on it, and end so that everyone may finish."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from functools import partial

import uvicorn
from fastapi import FastAPI

from wenet_osum.serve.connections import Connection, RareLog

LOCAL = ("127.0.0.1", "localhost", "[::1]", "::1")
# Addresses that a browser takes in another form.
BROWSED = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}
LEFT_OPEN_S = 1  # what pages get that hold a connection open; the answers are given by then
# Clients accepted before the loop looks at them: a crowd must not take all descriptors in between.
ACCEPTED_AT_ONCE = 16


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free one. Raises ValueError when it cannot be had."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} must be from 0 to 65535; 0 takes a free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host {host!r} is no address: {error}") from None
    family, _, _, _, address = found[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(socket.SOMAXCONN)
    except OSError as error:
        listening.close()
        why = error.strerror or error
        advice = "give another --port, 0 takes a free one"
        raise ValueError(f"cannot listen on {host} port {port}: {why}; {advice}") from None
    return listening


def url(listening: socket.socket) -> str:
    """Return where a browser on this machine finds the server."""
    host, port = listening.getsockname()[:2]
    name = BROWSED.get(host, host)
    return f"http://{name}:{port}"


def names(host: str, allowed: list[str], api_key: str | None = None) -> tuple[str, ...] | None:
    """Return the names a server at ``host`` answers to: its own and the user's; None: any.

    Raises ValueError for a server that others reach, with neither. Any web page could have a user's
    browser ask it, by a name that was pointed here (DNS rebinding): no origin would differ.
    """
    if allowed or host in LOCAL:
        known = [*LOCAL[:3], host, *allowed]
        lowered = [name.lower() for name in known]
        return tuple(dict.fromkeys(lowered))
    if not api_key:
        raise ValueError(
            f"--host {host} lets other machines ask, so it needs a key (in the variable "
            "WENET_OSUM_API_KEY) or the names it is asked under (--allow_host NAME): else any web "
            "page could ask through the browser of its reader"
        )
    return None


class Server(uvicorn.Server):
    """Uvicorn's, which first lets the requests in flight be answered."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. The system may hold more waiting clients than are accepted in one go."""
        asyncio.get_running_loop().set_exception_handler(RareLog())
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(socket.SOMAXCONN)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests, wait for the others up to their time-out, then close.

        A second Ctrl-C ends the waiting.
        """
        service = self.config.app.state.service
        until = time.monotonic() + service.settings.timeout_s
        while service.in_flight and time.monotonic() < until:
            if self.force_exit:
                break
            await service.finished(0.2)
        service.closing = True
        await super().shutdown(sockets)


def make_server(app: FastAPI) -> Server:
    """Make a server that is quiet about requests: /metrics counts them, and closed connections."""
    config = uvicorn.Config(
        app,
        http=partial(Connection, app.state.service.connections),
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=LEFT_OPEN_S,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    return Server(config)


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    # uvicorn raises what it caught again when it is done: by then it has been obeyed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    make_server(app).run(sockets=[listening])
