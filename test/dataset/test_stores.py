"""Stores that fail now and then lose nothing; those that fail too often stop the run.

The server answers as S3 does (ranges, XML errors, kept connections). A proxy before it injects the
faults: each kind has its test.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import itertools
import os
import random
import re
import socket
import struct
import threading
import time

import numpy as np
import pytest

from wenet_osum.config import (
    BatchConfig,
    ConfigError,
    DataConfig,
    SourceConfig,
    StoreConfig,
    TrainConfig,
    from_dict,
)
from wenet_osum.dataset import address, handles, store_faults
from wenet_osum.dataset.address import fetch
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.recording import recording
from wenet_osum.dataset.shard import Handles, pack, write_list
from wenet_osum.dataset.store_faults import FaultLimit, StoreError
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

QUICK = StoreConfig(tries=6, wait_s=0.004, timeout_s=20)
# where nothing comes: a busy machine may meet more time-outs than were injected
HASTY = StoreConfig(tries=20, wait_s=0.004, timeout_s=0.3)
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
    bucket, proxy = Server(("127.0.0.1", 0), Bucket), Server(("127.0.0.1", 0), FaultyProxy)
    bucket.objects = {"/b/data": DATA}
    proxy.upstream = bucket.server_port
    for server in (bucket, proxy):
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield bucket, proxy
    for server in (bucket, proxy):
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(servers):
    """The proxy without faults, and a process that knows nothing of it yet."""
    _, proxy = servers
    proxy.faults, proxy.asked, proxy.connections = iter(()), [], 0
    proxy.url = f"http://127.0.0.1:{proxy.server_port}/b/"
    address._connections.cache_clear()
    handles._threads.cache_clear()
    address._worn.clear()
    handles._noticed.clear()
    return proxy


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, servers):
    """Two shards in a folder and in the bucket, their lists, and a template."""
    folder = tmp_path_factory.mktemp("corpus")
    draws = np.random.default_rng(0)
    rows = []
    for number in range(UTTERANCES):
        wave = draws.normal(0, 0.1, int(16000 * draws.uniform(0.2, 0.6)))
        (folder / f"{number}.wav").write_bytes(write_wav(wave.astype(np.float32)))
        rows.append(Utterance(f"u{number:02d}", str(folder / f"{number}.wav"), txt=f"number {number}", lang="en"))
    report = pack(rows, folder / "shards", UTTERANCES // 2, log=lambda line: None)
    write_list(folder / "local", report.paths)
    bucket, proxy = servers
    urls = []
    for path in map(str, report.paths):
        name = "/b/" + os.path.basename(path)
        for end in ("", ".index.npz"):
            with open(path + end, "rb") as file:
                bucket.objects[name + end] = file.read()
        urls.append(f"http://127.0.0.1:{proxy.server_port}{name}")
    write_list(folder / "remote", urls)
    return folder, Template(train_tokenizer(["number 0123456789"] * 2, 300))


def mixture(corpus, name, workers=0, **store):
    folder, template = corpus
    conf = TrainConfig(max_steps=1, workers=workers, batch=BatchConfig(max_frames=400, window=2))
    conf.store = StoreConfig(**{**vars(QUICK), **store})
    return Mixture(DataConfig([SourceConfig("a", str(folder / name), tasks={"asr": 1.0})]), conf, template, 80)


def assert_same(ours, theirs):
    assert [batch.keys for batch in ours] == [batch.keys for batch in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.features.equal(other.features) and one.answer_ids.equal(other.answer_ids)


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_asked_again(proxy, fault):
    proxy.faults = iter([fault, fault])
    late = fault in ("silent", "slow")
    assert fetch(proxy.url + "data", 1000, 3000, HASTY if late else QUICK) == DATA[1000:4000]
    met = [row[2] for row in proxy.asked]
    assert met[:3] == [fault, fault, None] and (late or len(met) == 3)


def test_a_whole_body_that_is_cut_is_asked_again(proxy):
    proxy.faults = iter(["cut", "503"])
    assert fetch(proxy.url + "data", conf=QUICK) == DATA and len(proxy.asked) == 3


@pytest.mark.parametrize("answer", ["403", "404"])
def test_what_stays_is_not_asked_again(proxy, answer):
    proxy.faults = iter([answer] * 9)
    with pytest.raises(Drop) as dropped:
        fetch(proxy.url + "data", 0, 10, QUICK)
    assert len(proxy.asked) == 1
    assert dropped.value.reason.startswith(f"store 127.0.0.1:{proxy.server_port}: {answer}")


@pytest.mark.parametrize(("fault", "told"), [("503", "503 Service"), ("cut", "break off"), ("silent", "no answer within 0.05 s")])
def test_tries_end_and_the_reason_names_host_and_answer(proxy, fault, told):
    """A host that has used them up gets one try a read, until it answers."""
    conf = StoreConfig(tries=3, wait_s=0.002, timeout_s=0.05 if fault == "silent" else 20)
    proxy.faults = iter([fault] * 4)
    for tries in (3, 4):
        with pytest.raises(Drop, match=f"^store 127.0.0.1:{proxy.server_port}: .*{told}"):
            fetch(proxy.url + "data", 0, 1000, conf)
        assert len(proxy.asked) == tries
    assert fetch(proxy.url + "data", 0, 10, QUICK) == DATA[:10]
    proxy.faults = iter(["503"])
    assert fetch(proxy.url + "data", 0, 10, QUICK) == DATA[:10], "has its tries again"


def test_waits_double_and_are_drawn():
    left, drawn = address.patience(StoreConfig(tries=12, wait_s=0.1)), []
    for _ in range(11):
        left = left.increment("GET", "/", error=OSError())
        drawn.append([left.get_backoff_time() for _ in range(200)])
    bounds = [min(20, 0.1 * 2**n) for n in range(11)]
    for waits, bound in zip(drawn, bounds, strict=True):
        assert min(waits) < 0.2 * bound and 0.8 * bound < max(waits) <= bound


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Drop, match=f"store 127.0.0.1:{port}: no connection .Connection refused"):
        fetch(f"http://127.0.0.1:{port}/x", 0, 1, StoreConfig(tries=2, wait_s=0.001))


def test_a_process_keeps_its_connection(proxy):
    for first in range(20):
        assert fetch(proxy.url + "data", first, 100, QUICK) == DATA[first : first + 100]
    with pytest.raises(Drop):
        fetch(proxy.url + "none", 0, 1, QUICK)
    assert fetch(proxy.url + "data", 4990, 100, QUICK) == DATA[4990:], "to the end of the object"
    assert fetch(proxy.url + "data", 9000, 100, QUICK) == b""
    assert proxy.connections == 1
    if not os.fork():
        same = fetch(proxy.url + "data", 0, 9, QUICK) == DATA[:9]
        os._exit(0 if same else 1)
    assert os.wait()[1] == 0 and proxy.connections == 2, "not that of the process it was forked from"


def test_a_small_shard_of_a_server_without_ranges_is_read_once(proxy, own_spool, capsys):
    proxy.faults = itertools.repeat("no ranges")
    reads = Handles(conf=QUICK)
    for first in (0, 1000, 7):
        assert reads.read(proxy.url + "data", first, 100) == DATA[first : first + 100]
    assert len(proxy.asked) == 2, "the range, and then the whole"
    assert capsys.readouterr().err.count("whole files for ranges; list its shards as pipe:curl") == 1


def test_a_large_shard_of_a_server_without_ranges_is_refused(proxy, monkeypatch, capsys):
    monkeypatch.setattr(handles, "SMALL", 4000)
    proxy.faults = itertools.repeat("no ranges")
    reads = Handles(conf=QUICK)
    for _ in range(3):
        with pytest.raises(Drop, match="^store .*pipe:curl -s -f ADDRESS"):
            reads.read(proxy.url + "data", 0, 100)
    assert len(proxy.asked) == 1, "it is not asked again"
    assert capsys.readouterr().err.count("warning") == 1


def test_neighbors_are_asked_for_together(proxy, monkeypatch):
    """Bytes are the same in any order, and an object that ends early loses its end alone."""
    monkeypatch.setattr(handles.ranges, "GAP", 500)
    reads, url = Handles(conf=QUICK), proxy.url + "data"
    parts = [(url, 4000, 300), (url, 100, 100), (url, 0, 60), (url, 3000, 500), (url, 150, 400)]
    reads.expect(parts)
    for path, first, size in parts:
        assert reads.read(path, first, size) == DATA[first : first + size]
    assert sorted(row[1] for row in proxy.asked) == ["bytes=0-549", "bytes=3000-4299"]

    reads.expect([(url, 4900, 50), (url, 4950, 80)])
    assert reads.read(url, 4900, 50) == DATA[4900:4950]
    with pytest.raises(Drop, match="shorter than its index says"):
        reads.read(url, 4950, 80)
    assert reads.read(url, 5, 5) == DATA[5:10], "what was not announced"


def test_a_joined_range_that_fails_is_asked_once(proxy):
    proxy.faults = iter(["403", "403"])
    reads, url = Handles(conf=QUICK), proxy.url + "data"
    reads.expect([(url, 0, 10), (url, 20, 10)])
    for first in (0, 20):
        with pytest.raises(Drop, match="403"):
            reads.read(url, first, 10)
    assert len(proxy.asked) == 1


def test_the_next_micro_batch_is_asked_for_ahead(proxy):
    """It is not asked for a second time when its turn comes."""
    reads, url = Handles(conf=QUICK), proxy.url + "data"
    one, other = [(url, 0, 10), (url, 20, 10)], [(url, 900, 10)]
    reads.expect(one, ahead=other)
    reads.expect(one)
    assert reads.read(url, 20, 10) == DATA[20:30]
    reads._ahead[1].by_path[url][0].answer.result()
    reads.expect(other)
    assert reads.read(url, 900, 10) == DATA[900:910]
    assert sorted(row[1] for row in proxy.asked) == ["bytes=0-29", "bytes=900-909"]


def test_an_epoch_with_faulty_answers_loses_nothing(corpus, proxy):
    """Two of five answers are faulty. Order and features are those from disk, resumed ones too."""
    whole = list(mixture(corpus, "local").epoch(0))
    remote = mixture(corpus, "remote", tries=20)
    proxy.asked.clear()
    draw = random.Random(1)
    kinds = [kind for kind in PASSING if kind not in ("silent", "slow")]
    proxy.faults = (draw.choice(kinds) if draw.random() < 0.4 else None for _ in itertools.count())
    loader = remote.epoch(0)
    ours = list(loader)
    assert_same(ours, whole)
    assert not loader.failed
    met = {row[2] for row in proxy.asked} - {None}
    assert len(met) >= 3, "the test has met faults"
    assert len(proxy.asked) < UTTERANCES, "ranges are joined"
    assert_same(list(remote.epoch(0, start=4)), whole[4:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dead_store_stops_the_run(corpus, proxy, workers):
    remote = mixture(corpus, "remote", workers, tries=2, wait_s=0.001)
    proxy.faults = itertools.repeat("503")
    with pytest.raises(StoreError, match=f"store 127.0.0.1:{proxy.server_port}: 503 Service.*max_faults, 5.0%"):
        list(remote.epoch(0))


def test_faults_below_the_limit_do_not_stop(corpus, proxy):
    remote = mixture(corpus, "remote", tries=1, max_faults=1.0)
    proxy.faults = itertools.repeat("503")
    loader = remote.epoch(0)
    assert all(batch.filler for batch in loader) and loader.failed.total() == UTTERANCES


class Lost:
    """A micro-batch of which nothing but the counts is asked."""

    filler = False

    def __init__(self, arrived, lost=0, reason="store s: 503"):
        self.keys, self.dropped = ["k"] * arrived, {reason: lost} if lost else {}


def test_the_limit_is_a_share_of_the_last_utterances():
    limit = FaultLimit(0.05)
    for _ in range(300):
        limit.count(Lost(96, 4))
    for _ in range(20):
        limit.count(Lost(50, 50, "audio: unreadable"))
    limit.count(Lost(50, 50))
    with pytest.raises(StoreError, match=r"51 of the last 1\d+ utterances could not be read: 51 × store s: 503"):
        limit.count(Lost(99, 1))
    with pytest.raises(StoreError):
        FaultLimit(0.05).count(Lost(0, 11))
    FaultLimit(0.05).count(Lost(0, 10))
    assert store_faults.WINDOW == 1000


def test_recordings_at_an_address_are_asked_for_again(proxy):
    proxy.faults = iter(["503"])
    assert recording(Utterance("a", ""), proxy.url + "data", QUICK) == DATA


def test_settings_that_cannot_be(tmp_path):
    tree = {"model": {"kind": "whisper", "whisper": "w"}, "train_parts": {"*": {}}, "max_steps": 1}
    tree["store"] = {"tries": 0, "connections": 0, "wait_s": 0.0, "timeout_s": -1.0, "spool_gb": 0.0, "max_faults": 5.0}
    with pytest.raises(ConfigError) as fault:
        from_dict(tree)
    assert all(f"store.{name} " in str(fault.value) for name in tree["store"])
