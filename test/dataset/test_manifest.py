"""Manifests keep every text as it is, and every bad line is counted or named."""

from __future__ import annotations

import json

import pytest

from wenet_osum.dataset.drop import Dropped, table
from wenet_osum.dataset.kaldi_files import MALFORMED, read_kaldi
from wenet_osum.dataset.manifest import (
    from_row,
    parse_line,
    read_manifest,
    write_manifest,
    write_manifests,
)
from wenet_osum.dataset.scan import scan_raw
from wenet_osum.records import Utterance, Word

NASTY = "第一行\n<anger> a < b \\ <|endoftext|>\u2028x\x85 \r\n\t末尾 "


def test_round_trip_keeps_every_field_and_every_character(tmp_path):
    words = [Word("你", 0.0, 0.25), Word("好", 0.25, 0.5)]
    labels = {"gender": "female", "age": 31, "emotion": "happy", "style": "客服", "event": "laugh"}
    full = Utterance("a.b c/你好", "x.wav", NASTY, task="ser", lang="zh", speaker="s1", labels=labels, words=words, reply=NASTY, start=1.0, end=2.5, duration=1.5, extra={"x": [1]})
    path = tmp_path / "deep" / "m.jsonl"
    assert write_manifest(path, [full, Utterance("b", "y.wav", "")]) == 2
    assert list(read_manifest(path)) == [full, Utterance("b", "y.wav", "")]
    assert len(path.read_bytes().split(b"\n")) == 3


def test_word_times_are_written_in_milliseconds():
    words = [Word("a", 0.1 + 0.2, 0.30049), Word("b", 1 / 3, 2 / 3)]
    row = Utterance("k", "x.wav", "a b", words=words).to_dict()
    assert row["words"] == [["a", 0.3, 0.3], ["b", 0.333, 0.667]]


def test_wenet_raw_list_and_published_labels_are_read():
    assert parse_line(b'{"key": "a", "wav": "a.wav", "txt": "hi"}') == Utterance("a", "a.wav", "hi")
    row = from_row({"key": "a", "wav": "w", "lang": "<CN>", "emotion": "<NEUTRAL>", "gender": "none", "speaker": 7, "age": "<ADULT>", "dataset": "x"})
    assert (row.lang, row.labels.get("emotion"), row.labels.get("gender"), row.speaker, row.labels.get("age"), row.extra) == ("zh", "NEUTRAL", None, "7", "ADULT", {"dataset": "x"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "one JSON object"),
        (b"[1, 2]", "one JSON object"),
        (b'{"key": "\xff", "wav": "w"}', "one JSON object"),
        (b'{"wav": "w"}', "'key'"),
        (b'{"key": "a", "wav": ""}', "'wav'"),
        (b'{"key": "a", "wav": "w", "txt": ["x"]}', "'txt' must be text"),
        (b'{"key": "a", "wav": "w", "duration": NaN}', "'duration' must be seconds"),
        (b'{"key": "a", "wav": "w", "start": "1"}', "'start' must be seconds"),
        (b'{"key": "a", "wav": "w", "start": 2, "end": 2}', "'end' must lie after 'start'"),
        (b'{"key": "a", "wav": "w", "words": [["x", 1]]}', "words of"),
        (b'{"key": "a", "wav": "w", "words": [["x", 1, NaN]]}', "'words' must have finite times"),
        (b'{"key": "a", "wav": "w", "words": [["x", -1, 1]]}', "'words' must have times of 0 or more that run forward"),
        (b'{"key": "a", "wav": "w", "words": [["x", 1, 0.5]]}', "'words' must have times of 0 or more that run forward"),
        (b'{"key": "a", "wav": "w", "words": [["x", 1, 2], ["y", 0.5, 1]]}', "'words' must have times of 0 or more that run forward"),
        (b'{"key": "a", "wav": "w", "age": [3]}', "'age' must be"),
        (b'{"key": "a", "wav": "w", "txt": "\\ud800"}', "valid Unicode"),
    ],
)
def test_bad_line_is_counted_or_named(tmp_path, line, reason):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"key": "ok", "wav": "w"}\n\n' + line + b"\n")
    dropped = Dropped()
    assert [u.key for u in read_manifest(path, dropped)] == ["ok"]
    assert dropped.total() == 1 and dropped.pairs[0][0].endswith("line 3") and reason.split("'")[-1].strip() in table(dropped)
    with pytest.raises(ValueError, match="line 3") as raised:
        list(read_manifest(path))
    assert reason in str(raised.value)


def test_missing_manifest_names_path_and_next_step(tmp_path):
    with pytest.raises(ValueError, match="none.jsonl does not exist; check the path"):
        list(read_manifest(tmp_path / "none.jsonl"))


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, [Utterance("a", "w")])

    def broken():
        yield Utterance("b", "w")
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError):
        write_manifest(path, broken())
    assert json.loads(path.read_text())["key"] == "a" and list(tmp_path.iterdir()) == [path]


def test_kaldi_files_join_and_count_what_has_no_partner(tmp_path):
    (tmp_path / "wav.scp").write_text("a /d/my file.wav\nb\t/d/b.wav\nc sox c.wav -t wav - |\nd /d/d.wav\nd /d/e.wav\n", encoding="utf-8")
    (tmp_path / "text").write_text("a 你 好\nb\thello\nc no\nx lost\n", encoding="utf-8")
    dropped = Dropped()
    rows = list(read_kaldi(tmp_path / "wav.scp", tmp_path / "text", dropped=dropped))
    assert rows == [Utterance("a", "/d/my file.wav", "你 好"), Utterance("b", "/d/b.wav", "hello")]
    assert dict(dropped.pairs)["x"] == "text without a recording" and "pipe" in dict(dropped.pairs)["c"]
    assert ("d", "duplicate key in wav.scp") in dropped.pairs and dropped.total() == 3


def test_kaldi_segments(tmp_path):
    (tmp_path / "wav.scp").write_text("rec r.wav\n")
    (tmp_path / "text").write_text("u1 one\nu2 two\n")
    (tmp_path / "segments").write_text("u1 rec 0.5 1.25\n")
    dropped = Dropped()
    rows = list(read_kaldi(tmp_path / "wav.scp", tmp_path / "text", tmp_path / "segments", dropped))
    assert rows == [Utterance("u1", "r.wav", "one", start=0.5, end=1.25)] and dropped.pairs == [("u2", "text without a line in segments")]


def test_kaldi_segments_that_are_none_are_counted(tmp_path):
    """An end of -1 is that of the recording, a fifth column its channel; a tab parts as a space does."""
    ends = {"u1": "-1", "u2": "\t1.25 0", "u3": "", "u4": "0.5", "u5": "x", "u6": "nan", "u7": "1 1"}
    (tmp_path / "wav.scp").write_text("rec r.wav\n")
    (tmp_path / "text").write_text("".join(f"{key} one\ttwo {key}\n" for key in ends))
    (tmp_path / "segments").write_text("".join(f"{key} rec 0.5 {end}\n" for key, end in ends.items()))
    rows = list(read_kaldi(tmp_path / "wav.scp", tmp_path / "text", tmp_path / "segments", dropped := Dropped()))
    assert [(u.key, u.txt, u.start, u.end) for u in rows] == [("u1", "one\ttwo u1", 0.5, None), ("u2", "one\ttwo u2", 0.5, 1.25)]
    assert dict(dropped) == {MALFORMED: 5}
    (tmp_path / "text").write_bytes("u1 one\nu2 caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ValueError, match="text line 2 must be UTF-8"):
        list(read_kaldi(tmp_path / "wav.scp", tmp_path / "text"))


def test_several_manifests_appear_together_or_not_at_all(tmp_path):
    paths = {name: tmp_path / name / "m.jsonl" for name in ("a", "b")}
    rows = [("a", Utterance("1", "x")), ("b", Utterance("2", "y")), ("a", Utterance("3", "z"))]
    assert write_manifests(paths, rows) == {"a": 2, "b": 1}
    assert [u.key for u in read_manifest(paths["a"])] == ["1", "3"] and [u.key for u in read_manifest(paths["b"])] == ["2"]

    def broken():
        yield "a", Utterance("4", "x")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_manifests(paths, broken())
    assert [u.key for u in read_manifest(paths["a"])] == ["1", "3"] and [p.name for p in tmp_path.rglob("*.*")] == ["m.jsonl", "m.jsonl"]


def test_a_label_is_a_text_or_a_number():
    row = {"key": "a", "wav": "w", "age": 31.5, "emotion": 3, "extra": {"style": "客服", "event": [1], "age": 7, "room": "x"}}
    found = from_row(row, ("age", "emotion", "style", "event"))
    assert found.labels == {"age": 31.5, "emotion": 3, "style": "客服"} and found.extra == {"event": [1], "age": 7, "room": "x"}
    assert from_row(found.to_dict(), ("age", "emotion", "style", "event")) == found
    for value in (True, [3], {}, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"'emotion' must be a label \(a text or a finite number\), got"):
            from_row({"key": "a", "wav": "w", "emotion": value})


@pytest.mark.parametrize(
    ("given", "code"),
    [("en-US", "en"), ("zh_CN", "zh"), ("zh-Hans-CN", "zh"), ("French", "fr"), ("普通话", "zh"), ("es-419", "es"), ("zh-yue", "yue"), ("zh-en", "zh-en"), ("ja-en", "ja-en"), ("zh-sichuan", "zh-sichuan"), ("Tok Pisin", "tok pisin")],
)
def test_a_language_is_one_under_all_its_names(given, code):
    assert from_row({"key": "a", "wav": "w", "lang": given}).lang == code


def test_values_by_name():
    whole = Utterance("a", "w", lang="en", labels={"age": 3, "emotion": None})
    assert whole.labels == {"age": 3} and (whole.get("lang"), whole.get("age"), whole.get("emotion")) == ("en", 3, None)
    changed = whole.with_values({"lang": "zh", "age": None, "emotion": "sad"})
    assert changed == Utterance("a", "w", lang="zh", labels={"emotion": "sad"}) and whole.labels == {"age": 3}
    with pytest.raises(ValueError, match="labels of 'a': lang is a field of its own"):
        Utterance("a", "w", labels={"lang": "en"})
    assert parse_line(b'{"key": "a", "wav": "w", "labels": {"emotion": "sad"}}').extra == {"labels": {"emotion": "sad"}}


def test_a_line_without_a_key_goes_by_a_name_without_white_space(tmp_path):
    """Its name is a key of ``hyp.jsonl`` and ``text``, where white space would end it."""
    path = tmp_path / "my new\u3000list"
    path.write_text('{"key": "a", "wav": "a.wav", "duration": 1.0}\n{"wav": "b.wav"}\n', encoding="utf-8")
    index, faults, _ = scan_raw(str(path))
    assert list(index.keys) == ["a"]
    [(name, _)] = faults
    assert name == f"{tmp_path}/my_new_list:2"
