"""corpus/json_stream.py: the same entries as json.load, wherever a read ends, in bounded memory; damaged files are told."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from wenet_osum.corpus import json_stream
from wenet_osum.corpus.json_stream import entries

TREE = {"name": "a \"quoted\" [{,:]} name", "nested": {"audios": [1, 2]}, "audios": [{"text": "今天\n{", "n": -1.5e3}, 12345, "x", [], None, [[1]], True, 7], "after": 1}


@pytest.mark.parametrize("read", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_are_those_of_the_whole_wherever_a_read_ends(tmp_path, monkeypatch, read, indent):
    monkeypatch.setattr(json_stream, "READ", read)
    (tmp_path / "a.json").write_text(json.dumps(TREE, ensure_ascii=False, indent=indent), encoding="utf-8")
    assert list(entries(tmp_path / "a.json", "audios")) == TREE["audios"]
    (tmp_path / "b.json").write_text('\ufeff {"audios" : [ ] }', encoding="utf-8")
    assert list(entries(tmp_path / "b.json", "audios")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"audios": [1, 2', "ends early"),
        ('{"audios": [1 2]}', "one of , ] was expected, got '2'"),
        ('{"audios": {"a": 1}}', "'audios' is no array"),
        ('{"b": []}', "there is no array 'audios'"),
        ("[1]", "one of { was expected"),
        ('{"audios": [{"a": nope}]}', "character 18"),
        ("", "ends early"),
    ],
)
def test_damaged_files_are_told(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json.*download it again") as told:
        list(entries(tmp_path / "a.json", "audios"))
    assert words in str(told.value)


def test_what_is_no_text_or_not_there_is_told(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"audios": ["\xff"]}')
    with pytest.raises(ValueError, match="not UTF-8"):
        list(entries(tmp_path / "a.json", "audios"))
    with pytest.raises(ValueError, match="does not exist"):
        list(entries(tmp_path / "none.json", "audios"))


def test_memory_holds_an_entry_and_not_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "READ", 1 << 14)
    entry = {"segments": [{"text": "x" * 100}] * 20}
    (tmp_path / "a.json").write_text(json.dumps({"audios": [entry] * 2000}))  # 4.6 MB
    tracemalloc.start()
    try:
        count = sum(1 for _ in entries(tmp_path / "a.json", "audios"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2000 and peak < 500_000
