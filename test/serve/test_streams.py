"""Answers that come while sound does: events of files, of one long request, and of many short ones."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import soundfile

from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode import pipeline
from wenet_osum.decode.agreement import kept_to
from wenet_osum.records import Hypothesis
from wenet_osum.serve import streams
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.pcm import PCM

NOISE = np.random.default_rng(2).normal(0, 0.1, 3 * 16000).clip(-1, 1)
INTEGERS = (NOISE * 32767).astype("<i2")
SAID = "one two three four five six"


def events_of(text: str) -> list[dict]:
    parts = text.split("\n\n")
    assert parts[-1] == "" and all(part.startswith("data: ") for part in parts[:-1]), text
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-1]]


def joined(events: list[dict]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "transcript.text.delta")


def eventually(true) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def spoken(monkeypatch):
    """A model that hears a word in every half second, and says what it was made to begin with."""
    asked = []

    def decode(self, samples):
        found = []
        for sample in samples:
            seconds = len(sample.features) / 100
            words = " ".join(SAID.split()[: round(seconds / 0.5)])
            said = self.options.prefix_text or ""
            asked.append((seconds, said))
            text = kept_to(said, words)
            labels = {"emotion": "happy"} if "EMOTION" in sample.task else {}
            found.append(Hypothesis(sample.key, sample.task, text, transcript=text, labels=labels, duration=seconds))
        return found

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    return asked


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("task", ["asr", "ser"])
def test_events_of_a_file_are_its_answer(server, m, wavs, post, number, task):
    """Recording 0 is decoded in pieces."""
    got = post(server[0], wavs[number], task=task, stream="true")
    assert got.status_code == 200 and got.headers["content-type"].startswith("text/event-stream")
    events = events_of(got.text)
    offline = m(wavs[number], task=task)
    assert events[-1]["type"] == "transcript.text.done" and events[-1]["text"] == joined(events) == offline.transcript
    assert {event["type"] for event in events[:-1]} <= {"transcript.text.delta"}
    assert events[-1].get("labels", {}) == offline.labels
    for name, probs in offline.probs.items():
        assert events[-1]["probs"][name] == pytest.approx(probs, abs=1e-5)
    assert server[1].in_flight == 0


REFUSED = [
    ({"response_format": "text"}, "response_format json, not text"),
    ({"task": "srwt"}, "without times"),
    ({"task": "sttc"}, "leave the reply out"),
    ({"stream": "often"}, "must be true or false"),
]


@pytest.mark.parametrize("fields, told", REFUSED)
def test_what_cannot_be_streamed_is_refused(server, wavs, post, fields, told):
    got = post(server[0], wavs[1], **{"stream": "true"} | fields)
    error = got.json()["error"]
    assert got.status_code == 400 and told in error["message"] and error["code"] == "unsupported_stream"


def ogg(seconds: float) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(round(16000 * seconds)), 16000, format="OGG")
    return out.getvalue()


@pytest.mark.parametrize("data, why", [(write_wav(NOISE[:80]), "shorter than 10 ms"), (2 * ogg(1.0), "joined into one"), (2 * ogg(32.0), "joined into one")])
def test_a_bad_recording_has_the_fault_that_it_has_without_events(server, post, data, why):
    whole = post(server[0], data)
    assert whole.status_code == 400 and why in whole.json()["error"]["message"]
    streamed = events_of(post(server[0], data, stream="true").text)
    assert streamed[-1] == {"type": "error"} | whole.json()
    if "10 ms" in why:
        live = httpx.post(f"{server[0]}/v1/audio/stream", content=data, trust_env=False)
        assert events_of(live.text)[-1] == streamed[-1]


def test_a_model_that_fails_on_a_piece_ends_the_events_with_the_fault(serving, wavs, post, monkeypatch):
    decode = pipeline.Recognizer.decode
    calls = []

    def breaks(self, samples):
        calls.append(len(samples))
        if len(calls) > 1:
            raise RuntimeError("odd")
        return decode(self, samples)

    monkeypatch.setattr(pipeline.Recognizer, "decode", breaks)
    with serving() as (url, service):
        events = events_of(post(url, wavs[0], stream="true").text)
        assert events[-1]["type"] == "error" and events[-1]["error"]["code"] == "internal_error"
        assert "odd" not in json.dumps(events)
        eventually(lambda: service.in_flight == 0)


def test_words_are_told_while_the_request_is_still_sent(serving, spoken):
    with serving(step_s=0.5) as (url, service), opened(url, "task=ser&rate=16000") as talk:
        talk.send(INTEGERS[:16000].tobytes())
        before = talk.until("transcript.text.held")
        talk.send(INTEGERS[16000:32000].tobytes())
        before += talk.until("transcript.text.delta")
        assert service.streams == service.in_flight == 1
        talk.send(INTEGERS[32000:].tobytes())
        talk.send(b"")
        events = before + talk.until("transcript.text.done")
        kinds = [event["type"] for event in events]
        assert kinds.count("transcript.utterance.done") == 1 and "transcript.text.held" in kinds
        done = events[-1]
        assert done["text"] == joined(events) == SAID and done["labels"] == {"emotion": "happy"}
        utterance = events[-2]
        assert (utterance["text"], utterance["start"], utterance["end"]) == (SAID, 0.0, 3.0)
        eventually(lambda: service.streams == service.in_flight == 0)
    # What was said before is what later answers begin with.
    assert [said for _, said in spoken][-1].startswith("one two")


class Talk:
    """A request whose body goes on, over a socket of its own."""

    def __init__(self, url: str, query: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        head = f"POST /v1/audio/stream?{query} HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.socket.sendall(head.encode())
        self.got = ""

    def send(self, data: bytes) -> None:
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def until(self, kind: str) -> list[dict]:
        """Events up to the first of a kind; those behind it stay for the next call."""
        found = []
        while True:
            line, sign, rest = self.got.partition("\n\n")
            if not sign:
                data = self.socket.recv(65536)
                assert data, f"the server ended: {self.got}"
                self.got += data.decode()
                continue
            self.got = rest
            if "data: " in line:
                found.append(json.loads(line.partition("data: ")[2]))
                if found[-1]["type"] == kind:
                    return found


@contextlib.contextmanager
def opened(url: str, query: str = ""):
    talk = Talk(url, query)
    try:
        yield talk
    finally:
        talk.socket.close()


def test_streams_have_a_limit_of_their_own(serving, spoken):
    with serving(streams=1) as (url, service):
        with opened(url) as talk:
            talk.send(INTEGERS[:16000].tobytes())
            talk.until("transcript.text.held")
            full = httpx.post(f"{url}/v1/audio/stream", content=b"\0\0", trust_env=False)
            assert full.status_code == 429 and full.json()["error"]["code"] == "streams_full" and full.headers["retry-after"]
            assert httpx.post(f"{url}/v1/audio/streams", trust_env=False).status_code == 429
        # The client left without a word.
        eventually(lambda: service.streams == service.in_flight == 0)
        assert httpx.post(f"{url}/v1/audio/stream", content=b"\0\0", trust_env=False).status_code == 200


def test_a_stream_on_which_nothing_comes_is_ended(serving, spoken):
    with serving(idle_s=0.3) as (url, service):
        with opened(url) as talk:
            talk.send(INTEGERS[:8000].tobytes())
            assert talk.until("error")[-1]["error"]["code"] == "idle"
        name = httpx.post(f"{url}/v1/audio/streams", trust_env=False).json()["id"]
        eventually(lambda: service.streams == service.in_flight == 0)
        gone = httpx.post(f"{url}/v1/audio/streams/{name}", content=b"\0\0", trust_env=False)
        assert gone.status_code == 404 and gone.json()["error"]["code"] == "no_stream"


def test_a_fault_ends_a_stream_and_frees_its_slot(serving, monkeypatch):
    def broken(self, samples):
        raise RuntimeError("odd")

    monkeypatch.setattr(pipeline.Recognizer, "decode", broken)
    with serving(max_seconds=5.0) as (url, service):
        with opened(url) as talk:
            talk.send(INTEGERS.tobytes())
            error = talk.until("error")[-1]["error"]
            assert error["code"] == "internal_error" and "odd" not in error["message"]
            eventually(lambda: service.streams == service.in_flight == 0)
        name = httpx.post(f"{url}/v1/audio/streams", trust_env=False).json()["id"]
        failed = httpx.post(f"{url}/v1/audio/streams/{name}", content=INTEGERS.tobytes(), trust_env=False)
        assert failed.status_code == 500 and service.streams == service.in_flight == 0
        with opened(url) as talk:
            talk.send(bytes(2 * 6 * 16000))
            assert talk.until("error")[-1]["error"]["code"] == "audio_too_long"


def test_requests_behind_the_last_find_no_stream(serving, monkeypatch):
    """They had come before it ended, and wait for their turn. A stream is not idle while one is heard."""
    hear = streams.Streams._heard

    async def slowly(self, stream, request, last):
        await asyncio.sleep(1.2)
        return await hear(self, stream, request, last)

    monkeypatch.setattr(streams.Streams, "_heard", slowly)
    with serving(idle_s=1.0) as (url, _), ThreadPoolExecutor(4) as pool:
        name = httpx.post(f"{url}/v1/audio/streams", trust_env=False).json()["id"]
        asked = []
        for last in ("false", "false", "true", "false"):
            address = f"{url}/v1/audio/streams/{name}?end={last}"
            asked.append(pool.submit(httpx.post, address, content=b"", timeout=30, trust_env=False))
            time.sleep(0.1)
        found = [one.result().status_code for one in asked]
    assert found == [200, 200, 200, 404]


def test_a_server_that_closes_ends_streams_with_what_was_said(serving, spoken):
    with serving(step_s=0.5, idle_s=60.0) as (url, service), opened(url) as talk:
        talk.send(INTEGERS[:16000].tobytes())
        talk.until("transcript.text.held")
        address = f"{url}/v1/audio/streams"
        # Nothing more comes for the second, which the end of the server waits for no longer.
        [name, _] = [httpx.post(address, trust_env=False).json()["id"] for _ in range(2)]
        httpx.post(f"{address}/{name}", content=INTEGERS[:16000].tobytes(), trust_env=False)
        service.closing = True
        last = httpx.post(f"{address}/{name}", content=b"", trust_env=False)
        assert last.json()["events"][-1] == {"type": "transcript.text.done", "text": "one two"}
        assert talk.until("transcript.text.done")[-1]["text"] == "one two"


def test_streams_are_counted_by_how_they_end(serving, spoken, post, wavs, monkeypatch):
    with serving(idle_s=0.5) as (url, service):
        requests = service.metrics.requests
        with opened(url) as talk:
            talk.send(INTEGERS[:8000].tobytes())
            talk.until("error")
        eventually(lambda: requests == {408: 1})
        assert service.metrics.latency.sum > 0.4
        assert post(url, wavs[1], stream="true").status_code == 200
        eventually(lambda: requests == {408: 1, 200: 1})
        name = httpx.post(f"{url}/v1/audio/streams", trust_env=False).json()["id"]
        httpx.post(f"{url}/v1/audio/streams/{name}?end=1", trust_env=False)
        httpx.post(f"{url}/v1/audio/streams/{name}", trust_env=False)
        assert requests == {408: 1, 200: 3, 404: 1}


def test_requests_without_sound_do_not_keep_a_stream(serving):
    with serving(idle_s=0.6) as (url, service):
        name = httpx.post(f"{url}/v1/audio/streams", trust_env=False).json()["id"]
        until = time.monotonic() + 20
        while httpx.post(f"{url}/v1/audio/streams/{name}", trust_env=False).status_code == 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert service.streams == 0


def test_the_end_of_a_stream_is_true_or_false(serving):
    with serving() as (url, service):
        name = httpx.post(f"{url}/v1/audio/streams", trust_env=False).json()["id"]
        odd = httpx.post(f"{url}/v1/audio/streams/{name}?end=maybe", trust_env=False)
        assert odd.status_code == 400 and odd.json()["error"]["code"] == "bad_end" and service.streams == 1
        assert httpx.post(f"{url}/v1/audio/streams/{name}?end=1", trust_env=False).json()["events"][-1]["type"] == "transcript.text.done"
        assert service.streams == 0


def test_a_stream_of_many_requests_says_the_same(serving, spoken):
    with serving(step_s=0.5) as (url, service):
        address = f"{url}/v1/audio/streams"
        name = httpx.post(f"{address}?task=asr", trust_env=False).json()["id"]
        events = []
        for first in range(0, len(INTEGERS), 8000):
            data = INTEGERS[first : first + 8000].tobytes()
            events += httpx.post(f"{address}/{name}", content=data, trust_env=False).json()["events"]
        assert joined(events).startswith("one two") and service.streams == 1
        events += httpx.post(f"{address}/{name}?end=true", trust_env=False).json()["events"]
        assert events[-1]["type"] == "transcript.text.done" and events[-1]["text"] == joined(events) == SAID
        assert service.streams == service.in_flight == 0
        name = httpx.post(address, trust_env=False).json()["id"]
        assert httpx.delete(f"{address}/{name}", trust_env=False).status_code == 204 and service.streams == 0


@pytest.mark.parametrize("query", ["rate=12", "rate=loud", "rate=00001600099", "rate=000016000" + "9" * 5000, "tusk=asr", "task=srwt"])
def test_what_a_stream_cannot_ask_is_refused(server, query):
    for path in ("stream", "streams"):
        got = httpx.post(f"{server[0]}/v1/audio/{path}?{query}", content=b"\0\0", trust_env=False)
        assert got.status_code == 400 and got.json()["error"]["message"]
    assert server[1].streams == server[1].in_flight == 0


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_pcm_may_come_in_any_pieces(size):
    stereo = np.stack([INTEGERS[:5000], INTEGERS[5000:10000]], axis=1)
    for data, rate, mono in [(INTEGERS[:5000].tobytes(), 16000, INTEGERS[:5000]), (write_wav(stereo, 8000), 8000, stereo.mean(axis=1))]:
        pcm = PCM(None, 10.0)
        parts = [pcm.samples(data[i : i + size]) for i in range(0, len(data), size)]
        assert np.concatenate(parts) == pytest.approx(mono / 32768, abs=1e-4) and pcm.rate == rate


def test_a_wav_of_another_encoding_is_no_stream():
    with pytest.raises(Fault, match="16-bit PCM"):
        PCM(None, 10.0).samples(write_wav(NOISE.astype(np.float32), 16000, "FLOAT"))


@pytest.mark.parametrize("mark", [b"fLaC", b"OggS", b"ID3\4", b"RF64"])
def test_files_of_other_formats_are_no_stream(mark):
    pcm = PCM(None, 10.0)
    assert not len(pcm.samples(mark[:2]))
    with pytest.raises(Fault, match="a stream is 16-bit PCM"):
        pcm.samples(mark[2:] + bytes(100))


def test_a_header_that_does_not_end_is_a_fault(server):
    cut = httpx.post(f"{server[0]}/v1/audio/stream", content=write_wav(NOISE)[:30], trust_env=False)
    assert events_of(cut.text)[-1]["error"]["code"] == "invalid_audio"
    assert events_of(httpx.post(f"{server[0]}/v1/audio/stream", content=b"\0\0", trust_env=False).text)[-1]["text"] == ""


def test_events_have_one_line_and_name_fields_without_effect(server, post, wavs, monkeypatch):
    said = "one\u2028two"
    answer = Hypothesis("k", "<TRANSCRIBE>", said, transcript=said, duration=1.0)
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: [answer for _ in samples])
    got = post(server[0], wavs[1], stream="true", chunking_strategy="auto")
    assert got.headers["x-ignored-fields"] == "chunking_strategy"
    assert "\u2028" not in got.text and events_of(got.text)[-1]["text"] == said


@pytest.mark.parametrize("size", [7, 10**6])
def test_what_follows_the_samples_of_a_wav_is_not_heard(size):
    """Tags and pictures come behind them."""
    data = write_wav(NOISE[:16000].astype(np.float32)) + b"LIST" + (64000).to_bytes(4, "little") + b"ab" * 32000
    pcm = PCM(None, 60)
    heard = [pcm.samples(data[begin : begin + size]) for begin in range(0, len(data), size)]
    assert len(np.concatenate(heard)) == 16000 and pcm.seconds == pytest.approx(1.0)
