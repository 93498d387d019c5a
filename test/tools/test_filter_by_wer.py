"""Utterances that a first pass agrees with, and why others are left out."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.corpus.first_pass import Rules, agreeing
from wenet_osum.dataset.audio import write_wav
from wenet_osum.records import Hypothesis, Utterance

TOOL = Path(__file__).resolve().parents[2] / "tools/filter_by_wer.py"


def said(key, text="", **changes):
    return Hypothesis(key, "<TRANSCRIBE>", text, transcript=text, **changes)


def utterance(key, txt="one two three four five", duration=4.0, **changes):
    return Utterance(key, f"{key}.wav", txt, lang="en", duration=duration, **changes)


ROWS = {
    "right": (utterance("right"), "One, two, three, four, five."),
    "wrong": (utterance("wrong"), "one two three four nine"),
    "short": (utterance("short", duration=2.9), "one two three four five"),
    "long": (utterance("long", duration=30.1), "one two three four five"),
    "unknown": (utterance("unknown", duration=None), "one two three four five"),
    "much": (utterance("much", "a " * 100 + "b"), "a"),
    "slow": (utterance("slow", "yes", duration=3.5), "yes"),
    "silent": (utterance("silent", ""), "yes"),
    "signs": (utterance("signs", "?!. ?!"), "yes"),
}


def test_each_rule_leaves_out_what_breaks_it():
    answers = {key: said(key, text) for key, (_, text) in ROWS.items()}
    asked = [row for row, _ in ROWS.values()] + [utterance("absent"), utterance("failed")]
    answers["failed"] = Hypothesis("failed", "<TRANSCRIBE>", "", error="audio: not found")
    kept, left_out = agreeing(asked, answers, Rules(normalizer="basic"))
    assert [u.key for u in kept] == ["right"]
    assert left_out == {
        "word error rate above 10 %": 1,
        "shorter than 3 s": 1,
        "longer than 30 s": 1,
        "no duration": 1,
        "transcript of more than 200 characters": 1,
        "more than 1 s per character": 1,
        "no transcript": 1,
        "no word in the transcript": 1,
        "no answer of the first pass": 1,
        "the first pass failed": 1,
    }


def test_rules_can_be_turned_off_and_a_rate_at_the_limit_stays():
    asked = [row for row, _ in ROWS.values()]
    off = Rules(None, None, None, None, None)
    kept, left_out = agreeing(asked, {}, off)
    assert len(kept) == len(asked) - 1 and left_out == Counter({"no transcript": 1})
    answers = {"wrong": said("wrong", "one two three four nine")}
    kept, _ = agreeing([ROWS["wrong"][0]], answers, Rules(max_wer=20.0))
    assert len(kept) == 1


def test_a_duration_that_is_not_known_is_read(tool, tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(write_wav(np.zeros(64000, np.float32)))
    rows = [Utterance(key, f"{key}.wav", "one two three four five", lang="en") for key in ("a", "gone")]
    (tmp_path / "m.jsonl").write_text("".join(f"{row.to_json()}\n" for row in rows))
    (tmp_path / "hyp.jsonl").write_text("".join(f"{said(row.key, row.txt).to_json()}\n" for row in rows))
    assert tool.main(["--hyp", str(tmp_path), str(tmp_path / "m.jsonl"), str(tmp_path / "o.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "1 of 2 utterances" in told and "1  no duration" in told and "note: 1 durations are not known: audio: file not found" in told
    assert json.loads((tmp_path / "o.jsonl").read_text())["duration"] == 4.0


def test_chinese_counts_characters():
    row = Utterance("z", "z.wav", "今天天气很好呀", lang="zh", duration=3.5)
    answers = {"z": said("z", "今天天气很好啊")}
    assert agreeing([row], answers, Rules(max_wer=14.0))[1] and agreeing([row], answers, Rules(max_wer=15.0))[0]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("filter_by_wer", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_counts_and_can_refuse(tool, tmp_path, capsys):
    lines = [row.to_json() for row, _ in ROWS.values()]
    (tmp_path / "m.jsonl").write_text("\n".join(lines) + "\n")
    hyp = [said(key, text).to_json() for key, (_, text) in ROWS.items()]
    (tmp_path / "hyp.jsonl").write_text("\n".join(hyp) + "\n")
    files = [str(tmp_path / "m.jsonl"), str(tmp_path / "out.jsonl")]
    words = ["--hyp", str(tmp_path), "--normalizer", "basic"]
    assert tool.main([*words, *files]) == 0
    told = capsys.readouterr().out
    assert "1 of 9 utterances" in told and "1  shorter than 3 s" in told
    [line] = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == "right"
    assert tool.main([*words, "--min_share", "0.5", *files]) == 3
    capsys.readouterr()
    assert tool.main([*words, "--max_wer", "none", "--min_s", "none", *files]) == 0
    assert "4 of 9 utterances" in capsys.readouterr().out
    assert tool.main(["--hyp", str(tmp_path / "nothing"), *files]) == 1


def test_nothing_that_remains_is_a_fault(tool, tmp_path, capsys):
    (tmp_path / "m.jsonl").write_text(json.dumps({"key": "a", "wav": "a.wav", "txt": "one two three"}) + "\n")
    (tmp_path / "hyp.jsonl").write_text(json.dumps({"key": "a", "task": "<TRANSCRIBE>", "text": "four", "transcript": "four"}) + "\n")
    assert tool.main(["--hyp", str(tmp_path), str(tmp_path / "m.jsonl"), str(tmp_path / "o.jsonl")]) != 0
    assert "none of them remains" in capsys.readouterr().err


def test_a_value_at_its_limit_stays():
    rows = [utterance("least", duration=3.0), utterance("most", "ab " * 66 + "cd", duration=30.0), utterance("pace", "yes", duration=3.0)]
    assert len(rows[1].txt) == 200
    kept, _ = agreeing(rows, {row.key: said(row.key, row.txt) for row in rows}, Rules())
    assert kept == rows


def test_words_that_were_added_count_against_the_words_of_the_transcript():
    text = "one two three four five six seven eight nine ten"
    answers = {"a": said("a", f"{text} eleven")}
    assert agreeing([utterance("a", text)], answers, Rules(max_wer=9.9))[0] == []
