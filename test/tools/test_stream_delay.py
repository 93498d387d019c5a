"""tools/stream_delay.py: delays in the time of the recording with the work added, and both error rates."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode import stream_delay
from wenet_osum.decode.incremental import StreamDecoder, StreamOptions
from wenet_osum.records import Hypothesis, Word
from wenet_osum.tasks import parse

TOOL = Path(__file__).resolve().parents[2] / "tools/stream_delay.py"
WORDS = [Word(f"w{i}", 0.1 + 0.5 * i, 0.5 + 0.5 * i) for i in range(8)]
NOISE = np.random.default_rng(1).normal(0, 0.1, round(4.2 * 16000)).astype(np.float32)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("stream_delay", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Worker:
    """A recognizer that knows the words and takes so many seconds of a clock of its own."""

    def __init__(self, takes_s: float) -> None:
        self.now, self.takes_s, self.heard_s = 0.0, takes_s, []

    def __call__(self, samples, said):
        self.now += self.takes_s
        seconds = len(samples) / 16000
        self.heard_s.append(seconds)
        text = " ".join(word.text for word in WORDS if word.end <= seconds + 1e-6)
        return Hypothesis("k", "<TRANSCRIBE>", text, transcript=text, duration=seconds)


def said_by(tool, worker, chunk_s=0.1, step_s=0.5):
    hearing = StreamDecoder(worker, parse("asr"), StreamOptions(step_s))
    return stream_delay.simulate(hearing, NOISE, chunk_s, lambda: worker.now)


def test_without_work_a_word_is_late_by_the_step_alone(tool):
    said, busy_s = said_by(tool, Worker(0.0))
    assert busy_s == 0 and said[-1].text == " ".join(word.text for word in WORDS)
    found, missed = stream_delay.delays(WORDS, said, "en", "basic")
    # Each ends with a step, is heard in the hypothesis of that step and said with the next; the last as the sound ends.
    assert missed == 0 and found == pytest.approx([0.5] * 7 + [0.2])


def test_work_is_added_and_sound_that_came_meanwhile_is_heard_together(tool):
    worker = Worker(0.8)
    said, busy_s = said_by(tool, worker)
    # At 0.5 s it works until 1.3 s; the 0.8 s that have come meanwhile are the next hypothesis.
    assert worker.heard_s[:3] == pytest.approx([0.5, 1.3, 2.1]) and busy_s == pytest.approx(0.8 * len(worker.heard_s))
    found, missed = stream_delay.delays(WORDS, said, "en", "basic")
    assert found[0] == pytest.approx(1.3 + 0.8 - 0.5) and missed == 0


def test_words_that_were_not_recognized_have_no_delay(tool):
    said = [stream_delay.Said("w0", 1.0), stream_delay.Said("w0 x w2", 2.0)]
    found, missed = stream_delay.delays(WORDS[:3], said, "en", "basic")
    assert found == pytest.approx([0.5, 0.5]) and missed == 1
    assert stream_delay.delays(WORDS[:2], [], "en", "basic") == ([], 2)
    chinese = [Word("你好", 0.0, 0.4), Word("吗", 0.4, 0.6)]
    assert stream_delay.delays(chinese, [stream_delay.Said("你好吗", 1.0)], "zh", "basic")[0] == pytest.approx([0.6, 0.6, 0.4])


def test_the_figures(tool):
    totals = stream_delay.Totals([1.0] * 9 + [2.0], 20, 10, 5, 4, 10.0, 2.5)
    figures = stream_delay.table(totals)
    assert figures["delay_mean_s"] == pytest.approx(1.1) and figures["delay_p90_s"] == pytest.approx(1.1)
    assert (figures["stream_wer"], figures["whole_wer"], figures["work_per_audio_s"]) == (25.0, 20.0, 0.25)
    assert stream_delay.table(stream_delay.Totals())["delay_mean_s"] is None


def test_a_list_is_measured_both_ways(tool, tiny_folder, tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(write_wav(NOISE))
    words = [[word.text, word.start, word.end] for word in WORDS]
    rows = [{"key": "a", "wav": "a.wav", "txt": " ".join(word.text for word in WORDS), "words": words}, {"key": "b", "wav": "a.wav", "txt": "w"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "figures.json"
    given = ["--model", str(tiny_folder), "--list", str(tmp_path / "m.jsonl"), "--max_tokens", "4", "--step_s", "2", "--out", str(out)]
    assert tool.main(given) == 0
    printed = capsys.readouterr()
    figures = json.loads(out.read_text())
    assert figures["words"] == 8 and figures["audio_s"] == pytest.approx(4.2) and figures["work_per_audio_s"] > 0
    assert {"stream_wer", "whole_wer", "delay_p90_s"} <= figures.keys() and "stream_wer" in printed.out
    assert "1 utterances without word times" in printed.err
    (tmp_path / "m.jsonl").write_text(json.dumps(rows[1]) + "\n")
    assert tool.main(given) == 1 and "no utterance has word times" in capsys.readouterr().err
