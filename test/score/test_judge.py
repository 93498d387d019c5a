"""The judge of replies against a stub of an OpenAI-compatible server: what is sent, kept, counted, and what stops it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wenet_osum import tasks
from wenet_osum.bin import score as command
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import judge as judging
from wenet_osum.score import score_task
from wenet_osum.score.judge import Judge, _read_cache, read_verdict

STTC = tasks.parse("sttc")


class Stub(ThreadingHTTPServer):
    """Answers a reply ``n points`` with n points; special replies with whatever goes wrong. Keeps the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict, dict]] = []
        self.busy = 0  # how often to say 503 first
        self.broken: tuple[int, str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def asked(self) -> list[str]:
        """The replies asked about, in the order of their texts: workers ask in any order."""
        return sorted(json.loads(body["messages"][1]["content"])["reply"] for _, _, body in self.requests)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub: Stub = self.server
        stub.requests.append((self.path, dict(self.headers), body))
        if stub.busy or stub.broken:
            stub.busy -= bool(stub.busy)
            status, text = stub.broken or (503, "busy")
            return self.say(status, text.encode())
        reply = json.loads(body["messages"][1]["content"])["reply"]
        message, finish = {"content": json.dumps({"score": 10, "reason": "说得对"}, ensure_ascii=False)}, "stop"
        if reply == "bad words":
            message = {"content": None, "refusal": "I will not"}
        elif reply == "sorry":
            message = {"content": "I'm sorry, but I can't judge this."}
        elif reply == "odd":
            message = {"content": "quite good!"}
        elif reply == "eleven":
            message = {"content": '{"score": 11, "reason": ""}'}
        elif reply == "filtered":
            return self.say(400, b'{"error": {"code": "content_filter"}}')
        elif reply.endswith(" points"):
            message = {"content": f'<think>{{"score": 0}} or more?</think>\n```json\n{{"score": {reply.split()[0]}, "reason": "so \\"it\\" is"}}\n```'}
        whole = {"model": "stub-2026", "system_fingerprint": "fp_1", "choices": [{"message": message, "finish_reason": finish}]}
        return self.say(200, json.dumps(whole).encode())

    def say(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub(monkeypatch) -> Iterator[Stub]:
    monkeypatch.setattr(judging, "WAITS_S", (0.0, 0.0))
    monkeypatch.delenv(judging.KEY_NAME, raising=False)
    with Stub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def scores(judge: Judge, replies: list[str | None]) -> dict:
    """Figures of replies to the same question; None: no line."""
    refs = [Utterance(f"u{i}", "x", "how many", lang="en", reply="four") for i in range(len(replies))]
    hyps = {f"u{i}": Hypothesis(f"u{i}", STTC.tags, "", transcript="how many", reply=r) for i, r in enumerate(replies) if r is not None}
    return {s.metric: s for s in score_task(STTC, refs, hyps, judge=judge)}


def test_points_refusals_and_unparsable_verdicts(stub, tmp_path):
    replies = ["8 points", "four", "bad words", "sorry", "odd", "eleven", "filtered", "", "2.5 points", None]
    found = scores(Judge(stub.url, "m", tmp_path / "c.jsonl"), replies)["judge"]
    assert found.value == pytest.approx((8 + 10 + 2.5 + 0 + 0) / 5)  # two without a reply get 0 unasked
    assert (found.count, found.utterances) == (5, 10)
    assert (found.detail["refused"], found.detail["unparsable"]) == (3, 2)
    facts = found.detail["judge"]
    assert facts["model"] == "m" and facts["answered_by"] == {"stub-2026 fp_1": 7} and facts["not_asked"] == 2
    assert facts["rubric"] == judging.RUBRIC and len(facts["rubric_sha256"]) == 16 and facts["endpoint"].endswith("/v1")
    assert found.low < found.value < found.high
    worst = {row["hyp"]: row["note"] for row in found.detail["worst"]}
    assert worst["bad words"] == "refused: I will not" and worst["2.5 points"] == '2.5 of 10: so "it" is' and worst["odd"].startswith("unparsable")
    assert "four" not in worst


def test_every_request_is_deterministic(stub, tmp_path, monkeypatch):
    monkeypatch.setenv(judging.KEY_NAME, "secret-1")
    found = scores(Judge(stub.url + "/chat/completions", "m", tmp_path / "c.jsonl", rubric="Be kind.", seed=5), ["four"])["judge"]
    [(path, headers, body)] = stub.requests
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret-1"
    assert (body["model"], body["temperature"], body["seed"]) == ("m", 0, 5)
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}
    assert json.loads(body["messages"][1]["content"]) == {"question": "how many", "reference": "four", "reply": "four"}
    assert "secret-1" not in (tmp_path / "c.jsonl").read_text() + json.dumps(found.detail)


def test_verdicts_are_kept_and_asked_for_once(stub, tmp_path):
    cache = tmp_path / "deep" / "c.jsonl"
    first = scores(Judge(stub.url, "m", cache), ["3 points", "odd", "four"])["judge"]
    cache.write_text(cache.read_text() + '{"request": "torn', encoding="utf-8")
    again = Judge(stub.url, "m", cache)
    assert scores(again, ["3 points", "odd", "four"])["judge"] == first and again.asked == 0 and len(stub.requests) == 3
    for other in (Judge(stub.url, "n", cache), Judge(stub.url, "m", cache, rubric="Else."), Judge(stub.url, "m", cache, seed=1)):
        scores(other, ["four"])
        assert other.asked == 1


def test_a_busy_server_is_asked_again_and_a_broken_one_stops(stub, tmp_path):
    stub.busy = 2
    assert scores(Judge(stub.url, "m", tmp_path / "a"), ["four"])["judge"].value == 10 and len(stub.requests) == 3
    stub.busy = 3
    with pytest.raises(ValueError, match="status 503: busy; check the address, the model's name 'm'"):
        scores(Judge(stub.url, "m", tmp_path / "b"), ["four"])
    asked = len(stub.requests)
    for broken, message in (((404, "no such\nmodel"), "status 404: no such model"), ((200, "<html>"), "Expecting value"), ((200, "{}"), "no chat completion")):
        stub.broken = broken
        with pytest.raises(ValueError, match=message):
            scores(Judge(stub.url, "m", tmp_path / "b"), ["four"])
    assert len(stub.requests) == asked + 1 + 3 + 3  # a wrong name is not asked for twice
    with pytest.raises(ValueError, match="is no address"):
        Judge("localhost:8000", "m", tmp_path / "c")


def test_nothing_judged_is_no_figure(stub, tmp_path):
    assert math.isnan(scores(Judge(stub.url, "m", tmp_path / "c"), ["odd"])["judge"].value)


@pytest.mark.parametrize(
    ("content", "points", "fault"),
    [
        ('{"score": 7}', 7, ""), ('{"score": "7.5", "reason": "a\nb"}', 7.5, ""), ('{"score": -1}', None, "unparsable"), ("", None, "unparsable"),
        ('{"score": 1} no, {"score": 9}', 9, ""), ("抱歉，我不能评价。", None, "refused"), ('Sorry for the format: {"score": 4}', 4, ""),
    ],
)  # fmt: skip
def test_reading_verdicts(content, points, fault):
    verdict = read_verdict({"content": content})
    assert (verdict.points, verdict.fault) == (points, fault)


def test_the_command_records_the_judge_everywhere(stub, tmp_path, capsys):
    refs = [Utterance(f"k{i}", "a.wav", "how many", lang="en", reply="four") for i in range(3)]
    (tmp_path / "ref.jsonl").write_text("".join(u.to_json() + "\n" for u in refs))
    for name, replies in (("a", ("four", "4 points", "sorry")), ("b", ("1 points", "1 points", "four"))):
        rows = [Hypothesis(u.key, STTC.tags, "", transcript=u.txt, reply=r) for u, r in zip(refs, replies, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("".join(h.to_json() + "\n" for h in rows))
    words = ["--ref", "ref.jsonl", "--hyp", "a.jsonl", "--compare", "b.jsonl"]
    words = [str(tmp_path / w) if w.endswith("l") else w for w in words]
    words += ["--task", "sttc", "--out", str(tmp_path / "out"), "--judge", stub.url, "big", "--bar", "sttc/judge>=6", "--report"]
    assert command.main(words) == 0
    out = capsys.readouterr()
    assert "judge's points" in out.out and "7.00 of 10" in out.out and ">= 6 reached" in out.out
    assert "sttc judge all: difference +3.00" in out.out and "judge: 4 replies asked about now" in out.err
    tree = json.loads((tmp_path / "out/score.json").read_text())
    [row] = [s for s in tree["scores"] if s["metric"] == "judge"]
    assert row["detail"]["refused"] == 1 and row["detail"]["judge"]["rubric"] == judging.RUBRIC
    for name in ("score.json", "score.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "big at http://127.0.0.1" in text and "stub-2026 fp_1" in text and row["detail"]["judge"]["rubric_sha256"] in text
    assert "refused 1" in (tmp_path / "out/report.html").read_text()
    assert command.main(words) == 0 and "judge: 0 replies asked about now" in capsys.readouterr().err
    assert stub.asked() == ["1 points", "4 points", "four", "sorry"]
    stub.broken = (401, "no key")
    assert command.main([*words, "--judge_cache", str(tmp_path / "new.jsonl")]) == 1
    assert "status 401: no key" in capsys.readouterr().err and not Path(tmp_path / "new.jsonl").exists()


def test_a_reason_that_is_no_json_does_not_stop_scoring():
    verdict = read_verdict({"content": '{"score": 7, "reason": "it\\\'s right"}'})
    assert verdict.points == 7 and "s right" in verdict.reason


def test_answers_with_odd_line_ends_are_kept(tmp_path):
    rows = [{"request": str(n), "answer": {"content": f"a\u2028b\u0085c{n}"}} for n in range(2)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "judge.jsonl").write_text(text, encoding="utf-8")
    assert len(_read_cache(tmp_path / "judge.jsonl")) == 2
