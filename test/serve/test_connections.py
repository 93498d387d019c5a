"""Connections that ask nothing: closed in time, giving way to those who ask, quiet in the log."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.serve import connections
from wenet_osum.serve.connections import NO_END, NO_HEAD, NO_ROOM, RareLog

ROOT = Path(__file__).resolve().parents[2]


def connect(url: str, data: bytes) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(data)
    return connection


def closed(connection: socket.socket) -> bool:
    """Wait for the server to close a connection without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def trickle(connection: socket.socket) -> None:
    """Send a head that never ends, byte by byte, until the server has had enough."""
    connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            connection.sendall(b"x")
        except OSError:
            return
        time.sleep(0.02)


def eventually(true) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


STARTS = [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"]


@pytest.mark.parametrize("start", STARTS)
def test_a_head_that_does_not_come_is_not_waited_for(serving, start):
    with serving(head_s=0.2) as (url, service):
        with connect(url, start) as connection:
            assert closed(connection)
        assert service.connections.closed == {NO_HEAD: 1} and not service.connections.open


def test_more_bytes_of_a_head_and_an_earlier_request_buy_no_time(serving):
    with serving(head_s=0.3) as (url, service):
        with connect(url, b"") as connection:
            trickle(connection)
        with connect(url, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as connection:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            trickle(connection)
        eventually(lambda: service.connections.closed == {NO_HEAD: 2})


def test_a_request_longer_than_a_head_may_take_is_answered(serving, post, monkeypatch):
    decode = Recognizer.decode

    def slowly(self, samples):
        time.sleep(0.4)
        return decode(self, samples)

    monkeypatch.setattr(Recognizer, "decode", slowly)
    with serving(head_s=0.1) as (url, service):
        assert post(url, write_wav(np.zeros(16000, np.float32))).status_code == 200
        assert NO_END not in service.connections.closed


def test_a_request_that_never_ends_is_cut_at_last(serving):
    """Its time-out answers it; whoever then neither reads nor leaves is let go."""
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
    with serving() as (url, service):
        service.connections.request_s = 0.2
        with connect(url, head) as connection:
            assert closed(connection)
        assert service.connections.closed == {NO_END: 1}
        eventually(lambda: service.in_flight == 0)


def test_who_waits_longest_gives_way_and_who_is_being_answered_does_not(serving):
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
    with serving() as (url, service):
        service.connections.most = 3
        with connect(url, head) as asking:
            eventually(lambda: service.in_flight == 1)
            idle = []
            for _ in range(2):
                idle.append(connect(url, b"GET"))
                eventually(lambda: len(service.connections.open) == 1 + len(idle))
            assert httpx.get(f"{url}/health", trust_env=False).json()["in_flight"] == 1
            assert closed(idle[0]) and service.connections.closed == {NO_ROOM: 1}
            metrics = httpx.get(f"{url}/metrics", trust_env=False).text
            assert 'wenet_osum_connections_closed_total{reason="no_room"} 1' in metrics
            asking.sendall(bytes(9))
            assert asking.recv(4096).startswith(b"HTTP/1.1 415 ")
        for connection in idle:
            connection.close()


SERVER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 200))
from types import SimpleNamespace
from fastapi import FastAPI
from wenet_osum.serve import connections, server

connections.raise_descriptor_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, 200)
app = FastAPI()
app.state.service = SimpleNamespace(in_flight=0, settings=SimpleNamespace(timeout_s=1.0))
room = int(sys.argv[1]) or connections.room()
app.state.service.connections = connections.Connections(room, 60.0, 60.0)

@app.get("/health")
async def health():
    return {"status": "ok"}

listening = server.bind("127.0.0.1", 0)
print(server.url(listening), flush=True)
server.run(app, listening)
"""


@pytest.fixture
def crowded():
    """(room) → what a server with 200 descriptors says beside 260 half requests, and its log.

    It says the answer of /health, or with more room than descriptors the first line of its log.
    """

    def run(room: int) -> tuple[str, str]:
        command = [sys.executable, "-c", SERVER, str(room)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, **streams)
        try:
            url = process.stdout.readline().strip()
            crowd = [connect(url, b"GET /hea") for _ in range(260)]
            if room:
                found = process.stderr.readline()
            else:
                found = httpx.get(f"{url}/health", timeout=20, trust_env=False).text
            for connection in crowd:
                connection.close()
        finally:
            process.terminate()
            _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        return found, log

    return run


def test_a_crowd_of_half_requests_keeps_nobody_out(crowded):
    assert crowded(0) == ('{"status":"ok"}', "")


def test_where_descriptors_run_out_the_log_says_so_once(crowded):
    first, rest = crowded(10_000)
    assert "a connection could not be accepted (Too many open files)" in first and not rest


def test_a_lack_of_descriptors_is_told_with_its_count_and_all_else_in_full(caplog, monkeypatch):
    told = []
    loop = SimpleNamespace(default_exception_handler=told.append)
    now = [100.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    rare = RareLog(every_s=60.0)
    full = {"exception": OSError(errno.EMFILE, os.strerror(errno.EMFILE))}
    for _ in range(500):
        rare(loop, full)
    now[0] += 60.0
    rare(loop, full)
    assert [record.args[1] for record in caplog.records] == [1, 500] and not told
    rare(loop, {"exception": OSError(errno.EIO, "broken")})
    assert len(told) == 1
