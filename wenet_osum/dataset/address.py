"""Bytes from http(s) addresses: object stores and plain file servers.

Each process keeps its connections. What may pass is tried again (patience.py): the answers
408, 429 and 5xx, time-outs, connections that break, bodies that end early. Anything else, such as
403 or 404, is a Drop at once. The reason of a Drop begins with ``STORE`` and names host and answer.

Answers to a range follow RFC 9110, section 14: 206 with ``Content-Range``, 416 beyond the end, or
200 from a server without ranges.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import time
import urllib.request
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util import parse_url

from wenet_osum.config import StoreConfig
from wenet_osum.dataset.drop import STORE, Drop
from wenet_osum.dataset.patience import BUSY, DEFAULT, Patience, patience

WHOLE, PART, BEYOND = 200, 206, 416  # HTTP's answers to a range
CONNECT_S = 10  # longest wait for a connection
SLOWEST = 1 << 16  # bytes per second, below which an answer counts as timed out
CHUNK = 1 << 20  # bytes read at once, at most
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# what may end a body before its end
BROKEN = (ProtocolError, IncompleteRead, ReadTimeoutError, TimeoutError, SSLError)
LATE = (ConnectTimeoutError, ReadTimeoutError, TimeoutError)

# a line for each try would drown the progress; what is lost in the end is counted
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

# hosts that have used up all tries: they get one a read until they answer
_worn: set[str] = set()


class NoRanges(Drop):
    """A server that sends the whole file where a range was asked."""

    def __init__(self, url: str, size: int | None) -> None:
        """Take the bytes of the whole file, None where the server does not say."""
        advice = "list its shards as pipe:curl -s -f ADDRESS, or serve them with ranges"
        super().__init__(_reason(url, f"it sends whole files for ranges; {advice}"), url)
        self.size = size


def is_url(path: str) -> bool:
    """Tell whether a path in a list is an address."""
    return path.startswith(("http://", "https://"))


def host_of(url: str) -> str:
    """Return host and port of an address, without a name or password."""
    _, _, host = urlsplit(url).netloc.rpartition("@")
    return host


def fetch(url: str, offset: int = 0, size: int | None = None, conf: StoreConfig = DEFAULT) -> bytes:
    """Read an address, or ``size`` bytes of it from ``offset``; fewer where it ends before.

    Raises Drop when it cannot be read, NoRanges when the server sends all of it for a range.
    """
    asked = None if size is None else (offset, offset + size - 1)
    try:
        host = host_of(url)
        left = patience(conf, 1 if host in _worn else None)
        data = None
        while data is None:
            left, data = _try(url, asked, conf, left)
    except MaxRetryError as error:
        _worn.add(host)
        raise Drop(_reason(url, _plain(error.reason, conf)), url) from None
    except Drop:
        raise
    except (HTTPError, ValueError) as error:
        raise Drop("address cannot be read", f"{url}: {error}") from None
    _worn.discard(host)
    return data


def _try(
    url: str, asked: tuple[int, int] | None, conf: StoreConfig, left: Patience
) -> tuple[Patience, bytes | None]:
    """Ask until an answer begins, and read it; None for one that broke off, after a wait.

    ``asked`` are the first and the last byte. Raises MaxRetryError when no try is left.
    """
    headers = {}
    if asked:
        first, last = asked
        headers["Range"] = f"bytes={first}-{last}"
    timeout = urllib3.Timeout(connect=min(CONNECT_S, conf.timeout_s), read=conf.timeout_s)
    connections = _connections(os.getpid(), _proxy(url), conf.connections)
    answer = connections.request(
        "GET",
        url,
        headers=headers,
        retries=left,
        timeout=timeout,
        preload_content=False,
        decode_content=False,
    )
    left = answer.retries or left
    try:
        return left, _content(answer, url, asked, conf)
    except BROKEN as error:
        answer.close()
        left = left.increment("GET", url, error=error)
        left.sleep()
        return left, None


def _content(
    answer: BaseHTTPResponse, url: str, asked: tuple[int, int] | None, conf: StoreConfig
) -> bytes:
    """Return the body of an answer that is what was asked.

    Raises Drop for a refusal, MaxRetryError for one that was repeated to the end.
    """
    status = answer.status
    if status == PART and asked:
        return _part(answer, asked, conf)
    if status == WHOLE and asked:
        # it has begun to send a shard, of which nobody wants the rest
        answer.close()
        length = answer.headers.get("Content-Length")
        raise NoRanges(url, int(length) if length else None)
    if status == WHOLE:
        return _body(answer, conf)
    answer.drain_conn()
    if status == BEYOND and asked:
        return b""
    told = f"{status} {answer.reason}"
    if status in BUSY:
        raise MaxRetryError(None, url, ResponseError(told))
    raise Drop(_reason(url, told), url)


def _part(answer: BaseHTTPResponse, asked: tuple[int, int], conf: StoreConfig) -> bytes:
    """Return the body of a 206. Raises ProtocolError when it is not the range that was asked."""
    told = answer.headers.get("Content-Range", "")
    found = RANGE.fullmatch(told)
    if found is None:
        raise ProtocolError(f"Content-Range {told!r}")

    # a range that goes beyond the end of the file ends there
    first, last = asked
    if found[3] != "*":
        last = min(last, int(found[3]) - 1)
    if (int(found[1]), int(found[2])) != (first, last):
        raise ProtocolError(f"{told}, asked were {asked}")
    data = _body(answer, conf)
    if len(data) != last + 1 - first:
        raise ProtocolError(f"{len(data)} bytes of {told}")
    return data


def _body(answer: BaseHTTPResponse, conf: StoreConfig) -> bytes:
    """Read to the end, and let the connection be used again.

    Raises ProtocolError for a body shorter than its Content-Length, TimeoutError for a slow one.
    """
    began = time.monotonic()
    pieces = []
    size = 0
    while piece := answer.read1(CHUNK):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() - began > conf.timeout_s + size / SLOWEST:
            raise TimeoutError
    answer.drain_conn()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@functools.cache
def _connections(process: int, proxy: str | None, kept: int) -> urllib3.PoolManager:
    """Return the connections of a process, of which so many are kept for each host.

    Two processes that read from one connection would get each other's answers.
    """
    if proxy:
        auth = parse_url(proxy).auth
        named = urllib3.make_headers(proxy_basic_auth=auth) if auth else None
        return urllib3.ProxyManager(proxy, maxsize=kept, proxy_headers=named)
    return urllib3.PoolManager(maxsize=kept)


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for an address."""
    parts = urlsplit(url)
    return _proxy_of(parts.scheme, parts.hostname or "")


@functools.cache
def _proxy_of(scheme: str, host: str) -> str | None:
    if urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(scheme)


def _reason(url: str, told: str) -> str:
    return f"{STORE}{host_of(url)}: {told}"


def _plain(error: Exception, conf: StoreConfig) -> str:
    """Say in a few words how the last try ended."""
    if isinstance(error, NewConnectionError):
        cause = getattr(error.__cause__, "strerror", None)
        return f"no connection ({cause or type(error).__name__})"
    if isinstance(error, LATE):
        return f"no answer within {conf.timeout_s:g} s"
    if isinstance(error, (ProtocolError, IncompleteRead)):
        return "answers break off"
    return str(error)
