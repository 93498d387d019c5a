"""Batches, back-pressure, time-outs, keys and origins, counts, the OpenAI client, and the way a server ends."""

from __future__ import annotations

import base64
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode import pipeline
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.serve.batcher import Call
from wenet_osum.serve.metrics import Histogram

SECOND = write_wav(np.random.default_rng(2).normal(0, 0.1, 16000).astype(np.float32))
DECODE = Recognizer.decode


@pytest.fixture
def gate(monkeypatch):
    """(open, entered, sizes): the model waits for ``open``, sets ``entered``, and notes the size of each batch."""
    open_, entered, sizes = threading.Event(), threading.Event(), []

    def decode(self, samples):
        sizes.append(len(samples))
        entered.set()
        assert open_.wait(30)
        return DECODE(self, samples)

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    yield open_, entered, sizes
    open_.set()


def eventually(true) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_requests_that_wait_together_become_one_batch(serving, gate, post, m):
    open_, entered, sizes = gate
    with serving(wait_s=0.0) as (url, service), ThreadPoolExecutor(9) as pool:
        first = pool.submit(post, url, SECOND)
        entered.wait(20)
        tasks = ["asr", "ser", "<AGE><GENDER>", "sttc"] * 2
        others = [pool.submit(post, url, SECOND, task=task, response_format="verbose_json") for task in tasks]
        eventually(lambda: service.batcher.waiting.qsize() == 8)
        assert service.in_flight == 9
        open_.set()
        answers = [answer.result().json() for answer in [first, *others]]
    assert sizes == [1, 8]
    assert answers[0]["text"] == m(SECOND).transcript and [a["raw"] for a in answers[1:]] == [m(SECOND, task=task).text for task in tasks]


def test_a_full_queue_sends_away_and_says_for_how_long(serving, gate, post):
    open_, entered, _ = gate
    with serving(queue=2, wait_s=0.0) as (url, service), ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(post, url, SECOND) for _ in range(2)]
        eventually(lambda: service.in_flight == 2)
        away = post(url, SECOND)
        assert away.status_code == 429 and away.json()["error"]["code"] == "queue_full" and 1 <= int(away.headers["retry-after"]) <= 60
        open_.set()
        assert [answer.result().status_code for answer in inside] == [200, 200] and post(url, SECOND).status_code == 200
        assert service.metrics.requests == {200: 3, 429: 1} and service.in_flight == 0


def test_a_request_out_of_time_leaves_the_queue(serving, gate, post):
    open_, entered, sizes = gate
    with serving(timeout_s=0.5, wait_s=0.0) as (url, service), ThreadPoolExecutor(3) as pool:
        first = pool.submit(post, url, SECOND)
        entered.wait(20)
        late = pool.submit(post, url, SECOND).result()
        assert late.status_code == 504 and late.json()["error"]["code"] == "timeout" and first.result().status_code == 504
        eventually(lambda: service.in_flight == 0)
        open_.set()
        assert post(url, SECOND).status_code == 200
    assert sizes == [1, 1]  # that of the late one was never decoded


def test_a_slow_upload_runs_out_of_time(serving):
    def slowly():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        time.sleep(1.5)
        yield b"late"

    with serving(timeout_s=0.3) as (url, service):
        head = {"content-type": "multipart/form-data; boundary=x"}
        answer = httpx.post(f"{url}/v1/audio/transcriptions", content=slowly(), headers=head, trust_env=False)
        assert answer.status_code == 504 and service.in_flight == 0


def test_a_client_that_leaves_is_not_waited_for(serving, gate, post):
    open_, entered, sizes = gate
    with serving(wait_s=0.0) as (url, service), ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, url, SECOND)
        entered.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/audio/transcriptions", files={"file": SECOND}, timeout=0.3, trust_env=False)
        eventually(lambda: service.in_flight == 1)
        open_.set()
        assert first.result().status_code == 200
        assert post(url, SECOND).status_code == 200
    assert sizes == [1, 1]


def test_a_failure_hurts_nobody_else_in_the_batch(serving, post, m, monkeypatch, capsys):
    entered, open_ = threading.Event(), threading.Event()

    def decode(self, samples):
        if not entered.is_set():
            entered.set()
            open_.wait(20)
        if any(sample.audio_s < 0.6 for sample in samples):
            raise RuntimeError("secret: /var/model broke")
        return DECODE(self, samples)

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    short = write_wav(np.zeros(8000, np.float32))
    with serving(wait_s=0.0) as (url, service), ThreadPoolExecutor(4) as pool:
        first = pool.submit(post, url, SECOND)
        entered.wait(20)
        others = [pool.submit(post, url, data) for data in (SECOND, short, SECOND)]
        eventually(lambda: service.batcher.waiting.qsize() == 3)
        open_.set()
        statuses = [answer.result().status_code for answer in [first, *others]]
        assert statuses == [200, 200, 500, 200] and others[0].result().json()["text"] == m(SECOND).transcript
        assert "secret" not in others[1].result().text and others[1].result().json()["error"]["code"] == "internal_error"
    assert "secret: /var/model broke" in capsys.readouterr().err


def test_uploads_that_nobody_waits_for_leave_the_memory(serving, gate, post):
    open_, entered, _ = gate
    with serving(wait_s=0.0) as (url, service), ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, url, SECOND)
        entered.wait(20)
        given_up = Call(SECOND, 1.0, "<TRANSCRIBE>")
        service.batcher.submit(given_up).cancel()
        kept = Call(SECOND, 1.0, "<TRANSCRIBE>")
        service.batcher.submit(kept)
        assert (given_up.data, kept.data) == (b"", SECOND) and service.batcher.live() == 1
        assert "\nwenet_osum_requests_waiting 1\n" in httpx.get(f"{url}/metrics", trust_env=False).text
        open_.set()
        assert first.result().status_code == 200 and kept.future.result(30).transcript is not None
        assert kept.data == b"" and service.batcher.live() == 0


class Gone:
    """A stderr whose other end is closed."""

    def write(self, text: str) -> None:
        raise BrokenPipeError

    flush = write


@pytest.mark.parametrize("place", ["run", "groups"])
def test_a_model_that_fails_without_a_stderr_still_answers(serving, post, monkeypatch, place):
    def broken(self, jobs):
        raise RuntimeError("odd")

    with serving() as (url, service), monkeypatch.context() as change:
        change.setattr(pipeline.Recognizer, place, broken)
        change.setattr("sys.stderr", Gone())
        assert post(url, SECOND).status_code == 500
        change.undo()
        assert post(url, SECOND).status_code == 200
        service.batcher.close()
        stopped = post(url, SECOND)
        assert stopped.status_code == 503 and stopped.json()["error"]["code"] == "model_stopped"


def test_load_in_the_small(serving, load_tool, m, wavs):
    asks = load_tool.make_asks(40, wavs)
    assert {ask.status for ask in asks} == {200, 400, 413} and len({ask.kind for ask in asks}) >= 7
    expected = load_tool.offline(m, wavs)
    with serving(queue=6) as (url, service):
        told = load_tool.drive(url, asks, clients=8)
        assert not load_tool.faults(asks, told, expected)
        assert service.metrics.requests[429] == told.again
    told.answers[0] = None
    place = next(i for i, ask in enumerate(asks) if i and ask.status == 200)
    told.answers[place][1]["raw"] += "!"
    assert load_tool.faults(asks, told, expected) == {"lost": 1, "differs from offline decoding": 1}


def test_who_may_ask(serving, post):
    def basic(password: str) -> dict:
        return {"authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}

    with serving(api_key="s3cret", hosts=("127.0.0.1", "localhost")) as (url, _):
        for headers in ({}, {"authorization": "Bearer s3cre"}, {"authorization": "Bearer"}, basic("x"), {"authorization": "Basic ?"}):
            refused = post(url, SECOND, headers=headers)
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        for headers in ({"authorization": "Bearer s3cret"}, basic("s3cret")):
            assert post(url, SECOND, headers=headers).status_code == 200
        page = httpx.get(url, trust_env=False)
        assert page.status_code == 401 and page.headers["www-authenticate"].startswith("Basic")
        statuses = [httpx.get(f"{url}/{place}", trust_env=False).status_code for place in ("metrics", "health")]
        assert statuses == [401, 200]


def test_other_origins_and_names_are_refused(serving, post):
    with serving(hosts=("127.0.0.1",)) as (url, _):
        assert post(url, SECOND, headers={"origin": "http://evil.example"}).status_code == 403
        assert post(url, SECOND, headers={"origin": "null"}).status_code == 403
        for broken in ("http://[", "http://[::1", "//["):
            refused = post(url, SECOND, headers={"origin": broken})
            assert refused.status_code == 403 and refused.json()["error"]["code"] == "other_origin"
        assert post(url, SECOND, headers={"host": "evil.example:8000"}).json()["error"]["code"] == "unknown_host"
        same = post(url, SECOND, headers={"origin": url})
        assert same.status_code == 200 and "access-control-allow-origin" not in same.headers
        assert same.headers["x-content-type-options"] == "nosniff" and "default-src 'self'" in same.headers["content-security-policy"]


def test_metrics_count(serving, post):
    with serving() as (url, _):
        post(url, SECOND), post(url, b"noise"), post(url, SECOND, task="ser")
        text = httpx.get(f"{url}/metrics", trust_env=False).text
    value = {name: float(number) for name, number in re.findall(r"^(wenet_osum_\S+) (\S+)$", text, re.MULTILINE)}
    assert value['wenet_osum_requests_total{status="200"}'] == 2 and value['wenet_osum_requests_total{status="400"}'] == 1
    assert value["wenet_osum_audio_seconds_total"] == 2.0 and value["wenet_osum_request_seconds_count"] == 3
    assert value["wenet_osum_batch_size_sum"] == 2 and value["wenet_osum_requests_in_flight"] == 0
    declared = re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", text, re.MULTILINE)
    assert all(any(name.startswith(family) for family in declared) for name in value)


def test_a_histogram_is_cumulative():
    histogram = Histogram((1, 2))
    for number in (1, 1.5, 2, 9):
        histogram.add(number)
    assert histogram.lines("h") == ['h_bucket{le="1"} 1', 'h_bucket{le="2"} 3', 'h_bucket{le="+Inf"} 4', "h_sum 13.500000", "h_count 4"]


def test_the_openai_client_works_against_it(serving, m):
    openai = pytest.importorskip("openai", reason="the official openai client is not installed")
    with serving(api_key="k") as (url, _), httpx.Client(trust_env=False) as http:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", http_client=http, max_retries=0)
        create = client.audio.transcriptions.create
        assert client.models.list().data[0].id == "osum"
        assert create(model="whisper-1", file=("a.wav", SECOND)).text == m(SECOND).transcript
        asked = {"model": "osum", "file": ("a.wav", SECOND), "response_format": "verbose_json"}
        timed = create(**asked, timestamp_granularities=["word"])
        assert timed.text == (m(SECOND, task="srwt").transcript or "")
        assert timed.duration == 1.0 and isinstance(timed.words, list) and timed.segments is None
        verbose = create(**asked)
        [segment] = verbose.segments
        assert verbose.text == segment.text == m(SECOND).transcript and verbose.language == ""
        assert segment.no_speech_prob <= 0.6 and segment.avg_logprob >= -1.0
        assert type(segment).model_validate(segment.model_dump()), "a field is missing"
        asked = create(model="osum", file=("a.wav", SECOND), extra_body={"task": "ser"})
        assert asked.labels == m(SECOND, task="ser").labels
        assert "gender" in create(model="osum", file=("a.wav", SECOND), response_format="text", extra_body={"task": "sgc"})
        with pytest.raises(openai.BadRequestError, match="did you mean 'ser'") as told:
            create(model="osum", file=("a.wav", SECOND), extra_body={"task": "serr"})
        assert told.value.param == "task" and told.value.code == "unknown_task"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=http, max_retries=0).models.list()


def test_a_server_told_to_stop_answers_those_inside_first(serving, gate, post):
    open_, entered, _ = gate
    with ThreadPoolExecutor(2) as pool:
        with serving(wait_s=0.0) as (url, service):
            inside = pool.submit(post, url, SECOND)
            entered.wait(20)
            service.closing = True
            late = post(url, SECOND)
            assert late.status_code == 503 and late.json()["error"]["code"] == "shutting_down"
            assert httpx.get(f"{url}/health", trust_env=False).status_code == 503
            threading.Timer(2.0, open_.set).start()  # longer than what idle connections get
        assert inside.result().status_code == 200 and not service.batcher.thread.is_alive()


def test_the_openai_example_of_the_docs_runs(serving, m, monkeypatch, tmp_path, capsys):
    pytest.importorskip("openai", reason="the official openai client is not installed")
    text = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "a.wav").write_bytes(SECOND)
    monkeypatch.chdir(tmp_path)
    with serving() as (url, _):
        exec(code.replace("http://127.0.0.1:8000", url), {})
    assert str(m(SECOND, task="ser").labels) in capsys.readouterr().out


def test_the_docs_name_every_field_limit_and_status(server):
    from wenet_osum.serve import fields

    text = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    spellings = ("timestamp_granularities",)  # of what stands there under another name
    assert all(f"`{name}`" in rows for name in fields.FIELDS + fields.IGNORED if name not in spellings)
    metrics = httpx.get(f"{server[0]}/metrics", trust_env=False).text
    assert all(f"`{name}`" in text for name in re.findall(r"^# TYPE (\S+)", metrics, re.MULTILINE))
