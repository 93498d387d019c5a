"""Stores that fail now and then lose nothing; those that fail too often stop the run.

The server answers as S3 does (ranges, XML errors, kept connections). A proxy before it injects the
faults: each kind has its test.
"""

from __future__ import annotations

import errno
import gc
import itertools
import os
import random
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.config import (
    BatchConfig,
    DataConfig,
    SourceConfig,
    StoreConfig,
    TrainConfig,
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

from .store_servers import (
    BUCKET,
    DATA,
    HASTY,
    PASSING,
    QUICK,
    UTTERANCES,
    own_spool,
    proxy,
    servers,
)

__all__ = ["own_spool", "proxy", "servers"]


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
        name = BUCKET + Path(path).name
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
    left, drawn = address.backoff_for(StoreConfig(tries=12, wait_s=0.1)), []
    for _ in range(11):
        left = left.increment("GET", "/", error=OSError())
        drawn.append([left.get_backoff_time() for _ in range(200)])
    bounds = [min(20, 0.1 * 2**n) for n in range(11)]
    for waits, bound in zip(drawn, bounds, strict=True):
        assert min(waits) < 0.2 * bound and 0.8 * bound < max(waits) <= bound


def test_a_server_says_how_long_to_wait(proxy, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    proxy.faults = iter(["busy 7", "busy 900", "busy 0.5"])
    assert fetch(proxy.url + "data", 0, 10, QUICK) == DATA[:10]
    assert waits[:2] == [7, 120], "not longer than the limit"
    assert len(waits) == 3 and 0 < waits[2] < 0.1, "drawn where it cannot be read"


def test_a_redirect_is_followed(proxy):
    proxy.faults = iter(["moved"])
    assert fetch(proxy.url + "old", 5, 10, QUICK) == DATA[5:15]
    assert [row[:2] for row in proxy.asked] == [(BUCKET + name, "bytes=5-14") for name in ("old", "data")]


def test_names_with_letters_and_spaces(servers, proxy):
    bucket, _ = servers
    bucket.objects[BUCKET + "%E4%BD%A0%20a.tar"] = DATA
    for name in ("你 a.tar", "%E4%BD%A0%20a.tar"):
        assert fetch(proxy.url + name, 5, 10, QUICK) == DATA[5:15]
    for url in ("http://[x/a", "file:///etc/hostname"):
        with pytest.raises(Drop, match="^address cannot be read"):
            fetch(url, 0, 1, QUICK)


def test_the_proxy_of_the_environment_is_asked(proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    address._proxy.cache_clear()
    with pytest.raises(Drop, match="^store store.example.com: 404"):
        fetch("http://store.example.com/x", 0, 1, QUICK)
    assert proxy.asked[0][0] == "http://store.example.com/x"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address._proxy.cache_clear()
    assert fetch(proxy.url + "data", 0, 10, QUICK) == DATA[:10]
    assert proxy.asked[1][0] == f"{BUCKET}data"


@pytest.mark.parametrize("fault", ["slow", "silent"])
def test_an_interrupt_does_not_wait(proxy, fault):
    """It comes while bytes arrive one by one for two seconds, or while none come for half a second."""
    proxy.faults = iter([fault] * 3)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.15)
    try:
        with pytest.raises(KeyboardInterrupt):
            fetch(proxy.url + "data", conf=QUICK)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(proxy.asked) == 1, "it did not try again first"


def test_what_was_read_is_not_kept(proxy):
    """The handle of a thread stays, and would keep where its last answer was written."""
    found = fetch(proxy.url + "data", 0, 777, QUICK)
    assert found == DATA[:777]
    assert not [one for one in gc.get_referrers(found) if type(one) is list]


@pytest.mark.parametrize(("fault", "told"), [("loop", "redirects"), ("garbage", "")])
def test_faults_of_a_store_are_counted_as_such(proxy, fault, told):
    proxy.faults = itertools.repeat(fault)
    with pytest.raises(Drop, match=f"^store 127.0.0.1:{proxy.server_port}: .*{told}"):
        fetch(proxy.url + "data", 0, 10, StoreConfig(tries=2, wait_s=0.002))


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


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_drive_that_fails_for_a_moment_is_asked_again(tmp_path, monkeypatch, number):
    (tmp_path / "s").write_bytes(DATA)
    opened, read, faults = os.open, os.pread, iter([number, number])

    def pread(*args):
        fault = next(faults, None)
        if fault:
            raise OSError(fault, os.strerror(fault))
        return read(*args)

    paths = []
    monkeypatch.setattr(os, "open", lambda path, *args: (paths.append(path), opened(path, *args))[1])
    monkeypatch.setattr(os, "pread", pread)
    assert Handles(conf=QUICK).read(str(tmp_path / "s"), 10, 100) == DATA[10:110]
    assert paths == [str(tmp_path / "s")] * 3, "opened anew"
    faults = itertools.repeat(number)
    with pytest.raises(Drop, match=f"^store {tmp_path}: {os.strerror(number)}"):
        Handles(conf=QUICK).read(str(tmp_path / "s"), 10, 100)


def test_a_file_that_is_not_there_is_not_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr("wenet_osum.dataset.retry.Backoff.sleep", lambda *args: pytest.fail("waits"))
    with pytest.raises(Drop, match="^shard: cannot be read"):
        Handles(conf=QUICK).read(str(tmp_path / "none"), 0, 1)
    with pytest.raises(Drop, match="^audio: file not found"):
        recording(Utterance("a", ""), str(tmp_path / "none"), QUICK)


def test_recordings_are_asked_for_again(tmp_path, monkeypatch, proxy):
    (tmp_path / "r").write_bytes(DATA)
    opened, faults = os.open, iter([errno.ESTALE])

    def once(path, *args):
        if fault := next(faults, None):
            raise OSError(fault, "stale")
        return opened(path, *args)

    monkeypatch.setattr(os, "open", once)
    assert recording(Utterance("a", ""), str(tmp_path / "r"), QUICK) == DATA
    proxy.faults = iter(["503"])
    assert recording(Utterance("a", ""), proxy.url + "data", QUICK) == DATA
