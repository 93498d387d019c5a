"""The transcription endpoint over real sockets: formats, equality with offline decoding, faults, limits."""

from __future__ import annotations

import io
import socket
import tempfile
import zlib

import httpx
import numpy as np
import pytest
import soundfile

from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode import pipeline, text_formats
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.records import Hypothesis, Word
from wenet_osum.serve import recording
from wenet_osum.serve.fault import Fault

SECOND = write_wav(np.random.default_rng(2).normal(0, 0.1, 16000).astype(np.float32))


def error(response: httpx.Response) -> dict:
    body = response.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}, body
    return body["error"]


@pytest.mark.parametrize("task", ["asr", "srwt", "<EMOTION> <TRANSCRIBE>", "<age><gender>", "sttc"])
def test_an_answer_is_that_of_offline_decoding(server, m, wavs, post, load_tool, task):
    for data in wavs[:3]:
        answer = post(server[0], data, task=task, response_format="verbose_json")
        assert answer.status_code == 200 and load_tool.same(answer.json(), m(data, task=task)), answer.text


def test_json_has_the_text_and_what_the_task_asks_for_beside_it(server, m, post):
    plain = post(server[0], SECOND).json()
    assert plain["text"] == m(SECOND).transcript and not plain.keys() & {"labels", "probs", "words", "raw"}
    asked = post(server[0], SECOND, task="<TRANSCRIBE><EMOTION><GENDER>").json()
    assert asked["labels"].keys() == {"emotion", "gender"} and sum(asked["probs"]["gender"].values()) == pytest.approx(1)
    text = post(server[0], SECOND, task="sgc", response_format="text")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert f"gender: {m(SECOND, task='sgc').labels['gender']}\n" in text.text


@pytest.fixture
def timed(monkeypatch):
    """A model that hears two words with times in everything."""
    words = [Word("hi", 0.1, 0.5), Word("you", 0.5, 0.9)]
    asked = []

    def decode(self, samples):
        asked.extend(sample.task for sample in samples)
        return [Hypothesis(s.key, s.task, "<0.10>hi<0.50> …", "hi you", words, duration=1.0) for s in samples]

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    return asked


def test_timed_formats_ask_for_times_by_themselves(server, post, timed):
    verbose = post(server[0], SECOND, response_format="verbose_json", **{"timestamp_granularities[]": ["word", "segment"]}).json()
    assert verbose["words"][1] == {"word": "you", "start": 0.5, "end": 0.9}
    assert verbose["duration"] == 1.0
    [segment] = verbose["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0.1, 1.0, "hi you")
    answer = Hypothesis("", "", "", "hi you", [Word("hi", 0.1, 0.5), Word("you", 0.5, 0.9)], duration=1.0)
    for name in ("srt", "vtt"):
        response = post(server[0], SECOND, response_format=name)
        assert response.text == getattr(text_formats, name)(answer) and "hi you" in response.text
    assert set(timed) == {"<TRANSCRIBE> <ALIGN>"}
    post(server[0], SECOND, response_format="srt", task="<TRANSCRIBE><ALIGN><AGE>")
    assert timed[-1] == "<TRANSCRIBE> <ALIGN> <AGE>"


GRANULARITIES = [
    ([], {"segments", "words"}),
    (["word"], {"words"}),
    (["segment"], {"segments"}),
    (["segment", "word"], {"segments", "words"}),
]


@pytest.mark.parametrize(("asked", "given"), GRANULARITIES)
def test_times_are_given_as_fine_as_asked_for(server, post, timed, asked, given):
    fields = {"task": "srwt", "response_format": "verbose_json", "timestamp_granularities[]": asked}
    assert post(server[0], SECOND, **fields).json().keys() & {"segments", "words"} == given


@pytest.mark.parametrize("format_", ["json", "text", "verbose_json"])
def test_the_format_alone_does_not_change_what_is_asked(server, post, timed, format_):
    post(server[0], SECOND, response_format=format_)
    assert timed == ["<TRANSCRIBE>"]
    if format_ == "verbose_json":
        post(server[0], SECOND, response_format=format_, **{"timestamp_granularities[]": "segment"})
        assert timed == ["<TRANSCRIBE>"] * 2


def test_segments_have_every_field_of_openai_s(server, post, monkeypatch):
    loop = "so it goes " * 40
    answer = Hypothesis("k", "<TRANSCRIBE>", loop, loop, duration=1.0)
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, rows: [answer] * len(rows))
    response = post(server[0], SECOND, response_format="verbose_json", temperature="0.4")
    [segment] = response.json()["segments"]
    ratio = segment.pop("compression_ratio")
    assert ratio == pytest.approx(len(loop) / len(zlib.compress(loop.encode()))) and ratio > 10
    unknown = {"seek": 0, "tokens": [], "avg_logprob": 0.0, "no_speech_prob": 0.0}
    known = {"id": 0, "start": 0.0, "end": 1.0, "text": loop, "temperature": 0.4}
    assert segment == known | unknown


SPOKEN = ["こんにちは", "안녕하세요", "привет", "bonjour à tous", "hello，world", "今天天气很好"]


@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_language_is_not_guessed(server, post, monkeypatch, spoken):
    answer = Hypothesis("k", "<TRANSCRIBE>", spoken, spoken, duration=1.0)
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, rows: [answer] * len(rows))
    verbose = {"response_format": "verbose_json"}
    assert post(server[0], SECOND, **verbose).json()["language"] == ""
    assert post(server[0], SECOND, **verbose, language="de").json()["language"] == "de"


def test_subtitles_without_words_are_a_fault_and_no_empty_file(server, post, monkeypatch):
    answer = Hypothesis("k", "", "oh", "oh", [], unread={"words": "oh"}, duration=1.0)
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: [answer for _ in samples])
    response = post(server[0], SECOND, response_format="srt")
    assert response.status_code == 422 and error(response)["code"] == "no_word_times"


def test_what_has_no_times_is_not_left_out(server, post, monkeypatch):
    """The words of a second piece could not be read."""
    answer = Hypothesis("k", "", "hi …", "hi there you", [Word("hi", 0.1, 0.5)], unread={"words": "28.00 s: there you"}, duration=40.0)
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: [answer for _ in samples])
    for name in ("srt", "vtt"):
        response = post(server[0], SECOND, response_format=name)
        assert response.status_code == 422 and error(response)["code"] == "no_word_times"
    [segment] = post(server[0], SECOND, task="srwt", response_format="verbose_json").json()["segments"]
    assert (segment["text"], segment["end"]) == ("hi there you", 40.0)


FAULTS = {
    "unknown task": ({"task": "serr"}, 400, "task", "unknown_task", "did you mean 'ser'"),
    "unknown tag": ({"task": "<TRANSCRIBE><EMOTIONS>"}, 400, "task", "unknown_task", "did you mean '<EMOTION>'"),
    "endless task": ({"task": "<AGE>" + " " * 300 + "<GENDER>"}, 400, "task", "unknown_task", "at most 200"),
    "unknown format": ({"response_format": "vttt"}, 400, "response_format", "unknown_format", "did you mean 'vtt'"),
    "misspelled field": ({"taks": "ser"}, 400, "taks", "unknown_field", "did you mean 'task'"),
    "subtitles of untimed task": ({"task": "ser", "response_format": "srt"}, 400, "task", "no_word_times", "add <ALIGN>"),
    "words of untimed task": (
        {"task": "ser", "response_format": "verbose_json", "timestamp_granularities[]": "word"},
        400, "task", "no_word_times", "add <ALIGN>",
    ),
    "words in plain json": ({"timestamp_granularities[]": "word"}, 400, "timestamp_granularities", "no_word_times", "verbose_json"),
    "unknown granularity": ({"timestamp_granularities[]": "phone"}, 400, "timestamp_granularities", "unknown_granularity", "known: segment"),
    "no number": ({"temperature": "hot"}, 400, "temperature", "bad_temperature", "from 0 to 2"),
    "not a number": ({"temperature": "nan"}, 400, "temperature", "bad_temperature", "from 0 to 2"),
    "stream": ({"stream": "often"}, 400, "stream", "unsupported_stream", "true or false"),
    "twice": ({"task": ["ser", "asr"]}, 400, "task", "repeated_field", "2 times"),
    "model": ({"model": "gpt-9"}, 404, "model", "model_not_found", "known: osum"),
    "language": ({"language": "<b>"}, 400, "language", "bad_language", "zh or en"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_request_that_cannot_be_answered_says_why(server, post, name):
    fields, status, param, code, why = FAULTS[name]
    response = post(server[0], SECOND, **fields)
    told = error(response)
    assert (response.status_code, told["param"], told["code"]) == (status, param, code) and why in told["message"]


@pytest.mark.parametrize(("search", "why"), [({"num_beams": 2}, "beams"), ({"rescore": {"ctc_prefix": 0.5}}, "jointly")])
def test_a_temperature_where_the_search_does_not_sample_is_a_fault(server, post, monkeypatch, search, why):
    monkeypatch.setattr(server[1].recognizer, "options", DecodeOptions(**search))
    monkeypatch.setattr(server[1].recognizer.model.config, "losses", [{"name": "ctc", "weight": 0.1}])
    told = error(response := post(server[0], SECOND, temperature="0.5"))
    assert (response.status_code, told["code"]) == (400, "bad_temperature") and why in told["message"]
    assert post(server[0], SECOND, temperature="0").status_code == 200


def test_a_task_that_the_server_s_search_refuses_is_a_fault(server, post, monkeypatch):
    monkeypatch.setattr(server[1].recognizer, "options", DecodeOptions(prefix_text="so"))
    told = error(response := post(server[0], SECOND, task="<EMOTION>"))
    assert (response.status_code, told["param"], told["code"]) == (400, "task", "unknown_task")
    assert post(server[0], SECOND).status_code == 200


SOUNDS = {
    "text": (b"hello " * 100, 400, "invalid_audio", "no recording"),
    "empty": (b"", 400, "invalid_audio", "empty"),
    "cut short": (SECOND[:9000], 400, "invalid_audio", "cut short"),
    "header alone": (SECOND[:44], 400, "invalid_audio", "cut short"),
    "marked but broken": (b"fLaC" + bytes(200), 400, "invalid_audio", "begins like FLAC"),
    "odd rate": (write_wav(np.zeros(9000, np.float32), 999_983), 400, "invalid_audio", "999983 Hz"),
    "twenty channels": (write_wav(np.zeros((9000, 20), np.float32)), 400, "invalid_audio", "20 channels"),
    "too short": (write_wav(np.zeros(100, np.float32)), 400, "invalid_audio", "shorter than 10 ms"),
    "NaN": (write_wav(np.full(9000, np.nan, np.float32), subtype="FLOAT"), 400, "invalid_audio", "NaN"),
    "too long": (write_wav(np.zeros(41 * 8000, np.float32), 8000), 413, "audio_too_long", "lasts 41.0 s, and 40 s is the most"),
    "too large": (SECOND + bytes(2_000_000), 413, "file_too_large", "larger than 2 MB"),
    "much too large": (SECOND + bytes(9_000_000), 413, "file_too_large", "larger than 2 MB"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_a_bad_recording_is_a_clear_fault(server, post, name):
    data, status, code, why = SOUNDS[name]
    response = post(server[0], data, name="../../etc/\r\npasswd", headers={"x-forwarded-for": "x"})
    told = error(response)
    assert (response.status_code, told["code"], told["param"]) == (status, code, "file") and why in told["message"]
    assert not any(secret in response.text for secret in ("Traceback", "wenet_osum/", "0x", "BytesIO", "passwd", "tmp"))


def test_the_length_of_an_mp3_is_not_guessed():
    """Its first frame has many bits, by which libsndfile takes it for a third of its length."""
    samples = np.concatenate([np.random.default_rng(0).uniform(-0.9, 0.9, 32000), 0.01 * np.sin(np.arange(160000) / 20)])
    out = io.BytesIO()
    soundfile.write(out, samples, 16000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    data = out.getvalue()
    data = data[data.index(b"\xff\xf3", 10) :]
    assert recording.duration(data, 13.0) == pytest.approx(12.0, abs=0.15)
    with pytest.raises(Fault, match="11 s is the most"):
        recording.duration(data, 11.0)


def test_the_bytes_decide_and_not_the_content_type(server, m, post):
    files = {"file": ("a.exe", SECOND, "application/x-msdownload")}
    answer = httpx.post(f"{server[0]}/v1/audio/transcriptions", files=files, trust_env=False)
    assert answer.json()["text"] == m(SECOND).transcript


def test_broken_forms_are_faults(server, post):
    url = f"{server[0]}/v1/audio/transcriptions"
    assert error(post(server[0], None))["code"] == "missing_file"
    assert error(httpx.post(url, files={"audio": ("a.wav", SECOND)}, trust_env=False))["code"] == "missing_file"
    assert httpx.post(url, json={"file": "a"}, trust_env=False).status_code == 415
    head = {"content-type": "multipart/form-data; boundary=x"}
    assert error(httpx.post(url, content=b"no form at all", headers=head, trust_env=False))["code"] in ("bad_form", "missing_file")
    head = {"content-type": "multipart/form-data"}
    assert error(httpx.post(url, content=b"--x\r\n\r\n", headers=head, trust_env=False))["code"] == "bad_form"
    half = b'--x\r\ncontent-disposition: form-data; name="target_lang"\r\n\r\n\\ud800\r\n--x--\r\n'
    odd = {"content-type": "multipart/form-data; boundary=x; charset=raw_unicode_escape"}
    assert error(httpx.post(url, content=half, headers=odd, trust_env=False))["code"] == "bad_form"
    two = [("file", ("a.wav", SECOND)), ("file", ("b.wav", SECOND))]
    assert error(httpx.post(url, files=two, trust_env=False))["code"] == "bad_form"


def test_fields_without_a_meaning_here_are_said(server, post):
    response = post(server[0], SECOND, prompt="names: Ann", chunking_strategy="auto", model="whisper-1", stream="false")
    assert response.status_code == 200 and response.headers["x-ignored-fields"] == "prompt, chunking_strategy"
    assert "x-ignored-fields" not in post(server[0], SECOND, model="osum").headers
    names = ["chunking_strategy[type]", "languages[]", "keywords[]", "known_speaker_names[]", "known_speaker_references[]", "include[]"]
    response = post(server[0], SECOND, **{name: ["a", "b"] for name in names})
    assert response.headers["x-ignored-fields"] == "keywords[], include, chunking_strategy, languages, known_speaker_names, known_speaker_references"
    assert error(post(server[0], SECOND, **{"hotwords[]": ["a", "b"]}))["code"] == "no_hotwords"
    assert error(post(server[0], SECOND, **{"models[]": "a"}))["code"] == "unknown_field"


def test_a_temperature_samples_and_its_draws_can_be_repeated(server, post):
    answers = [post(server[0], SECOND, temperature=value, response_format="verbose_json") for value in ("0", "2", "2")]
    [cold, hot, again] = [answer.json()["raw"] for answer in answers]
    assert hot == again != cold


@pytest.mark.parametrize("value", ["1e-310", "5e-324", "1e-7"])
def test_a_temperature_too_small_to_divide_by_is_greedy(server, post, value):
    asked = {"task": "srwt", "response_format": "verbose_json"}
    cold = post(server[0], SECOND, temperature="0", **asked).json()
    least = post(server[0], SECOND, temperature=value, **asked).json()
    assert cold["raw"] and least == cold


def test_uploads_never_touch_the_disk(server, post, monkeypatch, wavs):
    def refuse(*args, **kwargs):
        raise AssertionError("a temporary file was opened")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "_get_candidate_names", refuse)
    assert post(server[0], SECOND + b"LIST" + bytes(1_900_000)).status_code == 200  # beyond the parser's usual 1 MB


def test_a_client_that_waits_to_be_told_is_told_no(server):
    """``Expect: 100-continue`` with a length above the limit: refused before a byte of the body was sent."""
    host, port = server[0].removeprefix("http://").split(":")
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 900000000\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_models_health_and_unknown_routes(server):
    def get(path: str, **more) -> httpx.Response:
        return httpx.get(server[0] + path, trust_env=False, **more)

    [model] = get("/v1/models").json()["data"]
    assert model["id"] == "osum" and get("/v1/models/osum").json() == model and error(get("/v1/models/osun"))["code"] == "model_not_found"
    assert get("/health").json() == {"status": "ok", "in_flight": 0}
    assert "did you mean 'POST /v1/audio/transcriptions'" in error(get("/v1/audio/transcription"))["message"]
    for path in ("/docs", "/openapi.json", "/gradio_api/file=/etc/passwd", "/v1/../../etc/passwd", "/%2e%2e/etc/passwd"):
        assert get(path).status_code == 404, path


def test_a_model_s_name_may_have_a_slash(serving):
    with serving(name="org/model") as (url, _):
        assert httpx.get(f"{url}/v1/models/org/model", trust_env=False).json()["id"] == "org/model"


def test_a_client_that_sends_everything_first_still_hears_why(server):
    """Many clients read nothing before the whole body is sent; the refused rest has to be taken from them."""
    host, port = server[0].removeprefix("http://").split(":")
    body = bytes(20_000_000)
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_translation_is_asked_into_the_language_wanted(server, post, monkeypatch):
    template, asked = server[1].recognizer.template, []
    encode = template.encode_prompt
    monkeypatch.setattr(template, "encode_prompt", lambda text, *args, **given: asked.append(text) or encode(text, *args, **given))
    assert post(server[0], SECOND, task="st", target_lang="de").status_code == 200
    assert post(server[0], SECOND, task="st").status_code == 200
    assert "德语" in asked[0] and "德语" not in asked[1]


def test_what_a_task_is_not_told_is_a_fault(server, post):
    told = error(post(server[0], SECOND, target_lang="de"))
    assert (told["param"], told["code"]) == ("target_lang", "unused_field") and "<TRANSCRIBE> is told no" in told["message"]
    assert "did you mean 'target_lang'" in error(post(server[0], SECOND, task="st", target_lagn="de"))["message"]
