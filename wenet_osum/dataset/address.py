"""Bytes from http(s) addresses: object stores and plain file servers, read by libcurl.

libcurl receives without Python's lock, so that audio is decoded meanwhile; each thread keeps its
connections. What may pass is tried again (retry.py): the answers 408, 429 and 5xx, time-outs,
connections that break, bodies that end early. Anything else, such as 403 or 404, is a Drop at once.
The reason of a Drop begins with ``STORE`` and names host and answer.

Answers to a range follow RFC 9110, section 14: 206 with ``Content-Range``, 416 beyond the end, or
200 from a server without ranges. Proxies are named by the environment.
"""

from __future__ import annotations

import functools
import math
import os
import re
import ssl
import threading
import urllib.request
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import certifi
import pycurl
from urllib3.exceptions import MaxRetryError
from urllib3.util import parse_url

from wenet_osum.config import StoreConfig
from wenet_osum.dataset.drop import STORE, Drop
from wenet_osum.dataset.retry import BUSY, DEFAULT_STORE, backoff_for

WHOLE, PART, BEYOND = 200, 206, 416  # HTTP's answers to a range
CONNECT_S = 10  # longest wait for a connection
SLOWEST = 1 << 16  # bytes per second, below which an answer counts as timed out
BUFFER = 1 << 19  # bytes received at once, at most
REDIRECTS = 5  # followed at most
LARGEST_REFUSAL = 1 << 16  # bytes of an answer that is not what was asked
# of libcurl, for all requests
OPTIONS = {
    pycurl.NOSIGNAL: True,
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
    pycurl.PATH_AS_IS: True,
    pycurl.FOLLOWLOCATION: True,
    pycurl.MAXREDIRS: REDIRECTS,
    pycurl.BUFFERSIZE: BUFFER,
    pycurl.LOW_SPEED_LIMIT: SLOWEST,
}
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# libcurl's errors that the next try will meet as well, and some that it may not
LASTING = frozenset((pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_TOO_MANY_REDIRECTS))
UNCONNECTED = frozenset(
    (
        pycurl.E_COULDNT_RESOLVE_HOST,
        pycurl.E_COULDNT_RESOLVE_PROXY,
        pycurl.E_COULDNT_CONNECT,
    )
)
BROKEN = frozenset(
    (
        pycurl.E_PARTIAL_FILE,
        pycurl.E_GOT_NOTHING,
        pycurl.E_SEND_ERROR,
        pycurl.E_RECV_ERROR,
    )
)

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


class Passing(Exception):
    """A fault that the next try may not meet, in a few words."""

    def __init__(self, told: str, wait: str | None = None) -> None:
        """Take the ``Retry-After`` of the answer, None where it has none."""
        super().__init__(told)
        self.wait = wait


@dataclass
class Answer:
    """What a server has sent for a request."""

    status: int
    reason: str
    # by their names in lower case
    headers: dict[str, str]
    body: bytes


def fetch(
    url: str, offset: int = 0, size: int | None = None, conf: StoreConfig = DEFAULT_STORE
) -> bytes:
    """Read an address, or ``size`` bytes of it from ``offset``; fewer where it ends before.

    Raises Drop when it cannot be read, NoRanges when the server sends all of it for a range.
    """
    asked = None if size is None else (offset, offset + size - 1)
    try:
        host = host_of(url)
        encoded = _encoded(url)
    except ValueError as error:
        raise Drop("address cannot be read", f"{url}: {error}") from None
    left = backoff_for(conf, 1 if host in _worn else None)
    while True:
        try:
            answer = _ask(encoded, asked, conf)
            data = _content(answer, url, asked)
        except Passing as fault:
            try:
                left = left.increment(error=fault)
            except MaxRetryError:
                _worn.add(host)
                raise Drop(_reason(url, str(fault)), url) from None
            left.wait(fault.wait)
        else:
            _worn.discard(host)
            return data


def _ask(url: str, asked: tuple[int, int] | None, conf: StoreConfig) -> Answer:
    """Ask once; ``asked`` are the first and the last byte. Raises Passing, and Drop.

    What libcurl calls as bytes come is no Python code, so that other threads have the time.
    """
    curl = _handle()
    lines: list[bytes] = []
    pieces: list[bytes] = []
    curl.setopt(pycurl.HEADERFUNCTION, lines.append)
    curl.setopt(pycurl.WRITEFUNCTION, pieces.append)
    curl.setopt(pycurl.PROXY, _proxy(url))
    _set_limits(curl, asked, conf)
    try:
        curl.setopt(pycurl.URL, url)
        curl.perform()
    except pycurl.error as error:
        # what is too large is judged by its status
        if error.args[0] != pycurl.E_FILESIZE_EXCEEDED:
            raise _fault(error, curl, url, conf) from None
    finally:
        # the handle, which stays, keeps what it calls
        curl.unsetopt(pycurl.HEADERFUNCTION)
        curl.unsetopt(pycurl.WRITEFUNCTION)
    status, reason, headers = _head(lines)
    # one piece alone is not copied
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return Answer(status, reason, headers, body)


def _set_limits(curl: pycurl.Curl, asked: tuple[int, int] | None, conf: StoreConfig) -> None:
    """Set the range, and how long and how large an answer may be."""
    connect_s = min(CONNECT_S, conf.timeout_s)
    connect_ms = math.ceil(1000 * connect_s)
    curl.setopt(pycurl.CONNECTTIMEOUT_MS, connect_ms)
    # libcurl judges the speed over whole seconds
    silent_s = math.ceil(conf.timeout_s)
    curl.setopt(pycurl.LOW_SPEED_TIME, silent_s)
    if asked is None:
        curl.unsetopt(pycurl.RANGE)
        # no limit but the lowest speed
        curl.setopt(pycurl.TIMEOUT_MS, 0)
        curl.setopt(pycurl.MAXFILESIZE_LARGE, 0)
        return
    first, last = asked
    size = last + 1 - first
    longest_s = conf.timeout_s + size / SLOWEST
    longest_ms = math.ceil(1000 * longest_s)
    curl.setopt(pycurl.RANGE, f"{first}-{last}")
    curl.setopt(pycurl.TIMEOUT_MS, longest_ms)
    # a server without ranges begins to send a shard, of which nobody wants the rest
    largest = max(size, LARGEST_REFUSAL)
    curl.setopt(pycurl.MAXFILESIZE_LARGE, largest)


def _head(lines: Iterable[bytes]) -> tuple[int, str, dict[str, str]]:
    """Return status, reason and headers. Of redirects only the last answer counts."""
    status = 0
    reason = ""
    headers: dict[str, str] = {}
    for line in lines:
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            _, code, *words = text.split(" ", 2)
            status = int(code)
            reason = "".join(words)
            headers = {}
        elif text:
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
    return status, reason, headers


@functools.lru_cache(1024)
def _encoded(url: str) -> str:
    """Return an address whose letters and spaces are percent-encoded where they have to be.

    Raises ValueError for what is no address.
    """
    return parse_url(url).url


def _fault(error: pycurl.error, curl: pycurl.Curl, url: str, conf: StoreConfig) -> Exception:
    """Return what is raised for an error of libcurl."""
    code, told = error.args
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return Passing(f"no answer within {conf.timeout_s:g} s")
    if code in UNCONNECTED:
        number = curl.getinfo(pycurl.OS_ERRNO)
        cause = os.strerror(number) if number else told
        return Passing(f"no connection ({cause})")
    if code in BROKEN:
        return Passing("answers break off")
    if code == pycurl.E_URL_MALFORMAT or not is_url(url):
        return Drop("address cannot be read", f"{url}: {told}")
    if code in LASTING:
        return Drop(_reason(url, told), url)
    return Passing(told)


def _content(answer: Answer, url: str, asked: tuple[int, int] | None) -> bytes:
    """Return the body of an answer that is what was asked.

    Raises Drop for a refusal, Passing for one that may be another in a moment.
    """
    status = answer.status
    if status == PART and asked:
        return _part(answer, asked)
    if status == WHOLE and asked:
        length = answer.headers.get("content-length")
        raise NoRanges(url, int(length) if length else None)
    if status == WHOLE:
        return answer.body
    if status == BEYOND and asked:
        return b""
    told = f"{status} {answer.reason}"
    if status in BUSY:
        raise Passing(told, answer.headers.get("retry-after"))
    raise Drop(_reason(url, told), url)


def _part(answer: Answer, asked: tuple[int, int]) -> bytes:
    """Return the body of a 206. Raises Passing when it is not the range that was asked."""
    told = answer.headers.get("content-range", "")
    found = RANGE.fullmatch(told)
    if found is None:
        raise Passing(f"Content-Range {told!r}")

    # a range that goes beyond the end of the file ends there
    first, last = asked
    if found[3] != "*":
        last = min(last, int(found[3]) - 1)
    if (int(found[1]), int(found[2])) != (first, last):
        raise Passing(f"{told}, asked were {asked}")
    data = answer.body
    if len(data) != last + 1 - first:
        raise Passing(f"{len(data)} bytes of {told}")
    return data


class _Kept(threading.local):
    """The handle of libcurl that each thread of this process reads with, with its connections.

    One that a process was forked with is left alone: two processes that read from one connection
    would get each other's answers.
    """

    def __init__(self) -> None:
        self.by_process: dict[int, pycurl.Curl] = {}


_kept = _Kept()
# Handles of all threads; and those of a parent, which its child must not close, for that says
# goodbye on connections that both have.
_opened: weakref.WeakSet[pycurl.Curl] = weakref.WeakSet()
_parked: list[pycurl.Curl] = []
os.register_at_fork(
    before=lambda: _parked.extend(_opened),
    after_in_parent=_parked.clear,
)


def _handle() -> pycurl.Curl:
    """Return the handle of this thread, opened if need be."""
    process = os.getpid()
    by_process = _kept.by_process
    if process not in by_process:
        by_process[process] = _open()
    return by_process[process]


def _open() -> pycurl.Curl:
    """Open a handle for this thread."""
    curl = pycurl.Curl()
    for option, value in OPTIONS.items():
        curl.setopt(option, value)
    system = ssl.get_default_verify_paths()
    if system.cafile or not system.capath:
        certificates = system.cafile or certifi.where()
        curl.setopt(pycurl.CAINFO, certificates)
    if system.capath:
        curl.setopt(pycurl.CAPATH, system.capath)
    if threading.current_thread() is threading.main_thread():
        # signals are handled where Python code runs, which libcurl calls while it waits
        curl.setopt(pycurl.NOPROGRESS, False)
        curl.setopt(pycurl.XFERINFOFUNCTION, lambda *counts: 0)
    _opened.add(curl)
    return curl


@functools.lru_cache(1024)
def _proxy(url: str) -> str:
    """Return the proxy that the environment names for an address, empty for none."""
    parts = urlsplit(url)
    return _proxy_of(parts.scheme, parts.hostname or "")


def _proxy_of(scheme: str, host: str) -> str:
    if urllib.request.proxy_bypass(host):
        return ""
    return urllib.request.getproxies().get(scheme, "")


def _reason(url: str, told: str) -> str:
    return f"{STORE}{host_of(url)}: {told}"
