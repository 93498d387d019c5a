"""A server that answers as S3 does, behind a proxy that injects faults; and what tests of stores share.

With MOTO_SERVER=FOLDER/bin/moto_server in the environment moto's S3 takes the place of ours. It has an
environment of its own (pip install "moto[s3]" flask flask-cors), for it needs an older python-dateutil
than the tested set has.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import random
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from wenet_osum.config import (
    StoreConfig,
)
from wenet_osum.dataset import address, handles, spool

QUICK = StoreConfig(tries=6, wait_s=0.004, timeout_s=20)
# where nothing comes: a busy machine may meet more time-outs than were injected
HASTY = StoreConfig(tries=20, wait_s=0.004, timeout_s=0.3)
BUCKET = "/bucket/"
DATA = bytes(random.Random(0).randrange(256) for _ in range(5000))
UTTERANCES = 60
# faults that the next try may not meet
PASSING = ["503", "500", "429", "408", "reset", "cut", "silent", "slow", "other range"]


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def send(self, status, body, headers=(), cut=None):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body[:cut])


class Bucket(Quiet):
    """Objects as S3 gives them."""

    def do_GET(self):
        data = self.server.objects.get(self.path)
        if data is None:
            self.send(404, b"<Error><Code>NoSuchKey</Code></Error>", {"Content-Type": "application/xml"})
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked:
            self.send(200, data)
        elif int(asked[1]) >= len(data):
            self.send(416, b"<Error><Code>InvalidRange</Code></Error>")
        else:
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            self.send(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})


class Moto(dict):
    """Objects by their paths, which moto's server gives."""

    def __init__(self, program):
        super().__init__()
        self.objects = self
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.server_port = free.getsockname()[1]
        command = [program, "--host", "127.0.0.1", "--port", str(self.server_port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while self.put(BUCKET) != 200:
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.1)

    def put(self, path, data=b""):
        """Put a bucket or an object there; returns the status, None while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port)
        with contextlib.suppress(ConnectionError):
            connection.request("PUT", path, body=data, headers={"x-amz-acl": "public-read"})
            return connection.getresponse().status

    def __setitem__(self, path, data):
        assert self.put(path, data) == 200
        super().__setitem__(path, data)

    def shutdown(self):
        self.process.kill()

    def server_close(self):
        self.process.wait()


class FaultyProxy(Quiet):
    """Passes answers on, unless the next fault of the server's row says otherwise."""

    def setup(self):
        super().setup()
        self.server.connections += 1

    def do_GET(self):
        fault = next(self.server.faults, None)
        self.server.asked.append((self.path, self.headers.get("Range"), fault))
        if fault in ("silent", "reset"):
            time.sleep(0.5 if fault == "silent" else 0)
            # closed with a reset, not an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if fault == "garbage":
            self.wfile.write(b"no answer of HTTP\r\n\r\n")
            self.close_connection = True
            return
        if fault == "loop":
            self.send(302, b"", {"Location": self.path})
            return
        if fault == "moved":
            self.send(302, b"elsewhere", {"Location": f"{BUCKET}data"})
            return
        if fault and fault.startswith("busy"):
            self.send(503, b"", {"Retry-After": fault.split()[1]})
            return
        if fault and fault.isdigit():
            self.send(int(fault), b"<Error><Code>SlowDown</Code></Error>")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
        passed = {} if fault == "no ranges" else {k: v for k, v in self.headers.items() if k == "Range"}
        upstream.request("GET", self.path, headers=passed)
        answer = upstream.getresponse()
        body = answer.read()
        kept = {"Content-Range": answer.headers["Content-Range"]} if "Content-Range" in answer.headers else {}
        if fault == "other range":
            kept = {"Content-Range": f"bytes 0-{len(body) - 1}/{10**9}"}
        with contextlib.suppress(OSError):
            if fault == "slow":
                self.drip(answer.status, body, kept)
            else:
                self.send(answer.status, body, kept, cut=len(body) // 2 if fault == "cut" else None)
        if fault == "cut":
            self.close_connection = True
        upstream.close()

    def drip(self, status, body, headers):
        """Send a byte now and then, and in the end the rest: no single wait is too long."""
        self.send(status, body, headers, cut=0)
        for byte in body[:20]:
            self.wfile.write(bytes([byte]))
            time.sleep(0.1)
        self.wfile.write(body[20:])


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *args):
        pass


@pytest.fixture(scope="module")
def servers():
    """A bucket behind a faulty proxy."""
    proxy = Server(("127.0.0.1", 0), FaultyProxy)
    started = [proxy]
    if os.environ.get("MOTO_SERVER"):
        bucket = Moto(os.environ["MOTO_SERVER"])
    else:
        bucket = Server(("127.0.0.1", 0), Bucket)
        bucket.objects = {}
        started.append(bucket)
    proxy.upstream = bucket.server_port
    for server in started:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    bucket.objects[f"{BUCKET}data"] = DATA
    yield bucket, proxy
    for server in (bucket, proxy):
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(servers):
    """The proxy without faults, and a process that knows nothing of it yet."""
    _, proxy = servers
    proxy.faults, proxy.asked, proxy.connections = iter(()), [], 0
    proxy.url = f"http://127.0.0.1:{proxy.server_port}{BUCKET}"
    address._kept.by_process.clear()
    address._worn.clear()
    handles._noticed.clear()
    return proxy


@pytest.fixture
def own_spool(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    spool.hold.cache_clear()
    yield tmp_path / "tmp"
    spool.hold.cache_clear()
