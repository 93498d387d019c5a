"""The text before a segment: that of the segment before it, in whatever order the rows stand."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

from wenet_osum.corpus.previous import FIRST, NO_SEGMENT, with_previous
from wenet_osum.records import Utterance

ROOT = Path(__file__).resolve().parents[2]


def row(key, wav, start=None, end=None, txt=None):
    return Utterance(key, wav, txt or f"text {key}", start=start, end=end)


ROWS = [
    row("c", "x", 4.0, 6.0),
    row("a", "x", 0.0, 2.0),
    row("b", "x", 1.99, 3.0),
    row("over", "x", 2.5, 9.0),  # it begins before b has ended
    row("y", "y", 5.0, 6.0),
    row("whole", "x"),
    row("late", "x", 60.0, 61.0),
]


def test_each_segment_gets_the_text_that_ended_last_before_it():
    counts = Counter()
    found = with_previous(ROWS, counts)
    assert [one.key for one in found] == [one.key for one in ROWS]
    texts = {one.key: one.extra.get("previous") for one in found}
    assert texts == {"c": "text b", "a": None, "b": "text a", "over": "text a", "y": None, "whole": None, "late": None}
    assert counts == {FIRST: 3, NO_SEGMENT: 1}
    assert with_previous(ROWS, counts, longest_gap_s=60.0)[-1].extra["previous"] == "text over"


def test_the_tool_keeps_everything_else(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("add_previous", ROOT / "tools/add_previous.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    rows = [one.to_dict() | {"note": 1} for one in ROWS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert tool.main([str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]) == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written[2]["extra"] == {"note": 1, "previous": "text a"} and written[2]["end"] == 3.0
    assert "7 utterances, 3 with the text before" in capsys.readouterr().out
