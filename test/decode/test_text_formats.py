"""Answers as text: exact small files, and what markup, odd times and long speech must not break."""

from __future__ import annotations

import json
import re

import pytest

from wenet_osum.decode import text_formats
from wenet_osum.decode.text_formats import FORMATS, in_order
from wenet_osum.records import Hypothesis, Word


def answer(words=None, **more) -> Hypothesis:
    words = None if words is None else [Word(*word) for word in words]
    return Hypothesis(**({"key": "talks/a b.wav", "task": "<TRANSCRIBE> <ALIGN>", "text": "", "words": words, "duration": 2.5} | more))


TWO = [("hello", 0.5, 0.9), ("world.", 0.9, 1.6)]


def test_srt():
    assert text_formats.srt(answer([*TWO, ("Bye", 2.45, 2.5)])) == (
        "1\n00:00:00,500 --> 00:00:01,600\nhello world.\n\n2\n00:00:02,450 --> 00:00:02,500\nBye\n"  # the last cue ends with the recording
    )


def test_milliseconds_are_the_nearest():
    """1.001 s as a binary number times 1,000 is a little below 1,001."""
    assert 1000 * 1.001 < 1001
    assert "00:00:01,001 --> " in text_formats.srt(answer([("hello", 1.001, 2.0)]))


def test_vtt():
    assert text_formats.vtt(answer(TWO)) == "WEBVTT\n\n00:00:00.500 --> 00:00:01.600\nhello world.\n"


def test_ctm():
    assert text_formats.ctm(answer([*TWO, ("New York", 2.0, 2.25)])) == "a_b 1 0.500 0.400 hello\na_b 1 0.900 0.700 world.\na_b 1 2.000 0.250 New_York\n"


def test_textgrid():
    text = text_formats.textgrid(answer([('say "hi"', 0.5, 1.0)], labels={"emotion": "happy"}, duration=1.5))
    rows = [line.strip() for line in text.splitlines()]
    assert rows[:2] == ['File type = "ooTextFile"', 'Object class = "TextGrid"']
    assert rows[2:8] == ["", "xmin = 0", "xmax = 1.500", "tiers? <exists>", "size = 2", "item []:"]
    assert rows[rows.index('name = "words"') :][:4] == ['name = "words"', "xmin = 0", "xmax = 1.500", "intervals: size = 3"]
    assert re.findall(r"xmin = (\S+)\n +xmax = (\S+)\n +text = (.*)", text) == [
        ("0.000", "0.500", '""'),
        ("0.500", "1.000", '"say ""hi"""'),
        ("1.000", "1.500", '""'),
        ("0.000", "1.500", '"happy"'),
    ]


def test_txt_tells_everything():
    full = answer([("hi", 0.0, 1.0)], transcript="hi", labels={"age": "old"}, probs={"age": {"old": 0.75, "child": 0.25}}, reply="yes")
    full.unread, full.flags = {"emotion": "<hapy>"}, ["loop"]
    assert text_formats.txt(full) == (
        'talks/a b.wav: hi\n  age: old (75 %)\n       0.00      1.00  hi\n  reply: yes\n  could not be read: emotion: "<hapy>"\n  flags: loop\n'
    )
    assert text_formats.txt(answer(error="audio: empty")) == "talks/a b.wav: failed: audio: empty\n"


def test_json_line_is_read_back():
    given = answer(TWO, labels={"age": "old"})
    assert Hypothesis.from_dict(json.loads(text_formats.json_line(given))) == given


def test_markup_in_words_stays_text():
    odd = answer([("<i>", 0.0, 0.2), ("-->", 0.2, 0.4), ("a&b", 0.4, 0.6), ("{\\an8}", 0.6, 0.8), ("x\n\ny", 0.8, 1.0)])
    assert text_formats.vtt(odd).split("\n", 3)[3] == "&lt;i&gt; --&gt; a&amp;b {\\an8} x y\n"
    assert text_formats.srt(odd).split("\n", 2)[2] == "‹i› --› a&b ｛\\an8} x y\n"


def test_clock_counts_hours():
    assert text_formats.clock(3_723_004, ",") == "01:02:03,004" and text_formats.clock(360_000_000, ".") == "100:00:00.000"


@pytest.mark.parametrize(
    "words",
    [
        [("a", 1.0, 1.0), ("b", 1.0, 1.0)],  # no length
        [("a", 1.0, 0.5), ("b", 0.7, 0.9)],  # an end before its start
        [("b", 0.6, 2.0), ("a", 0.5, 1.9), ("c", 0.7, 0.8)],  # out of order and overlapping
        [("a", 2.4, 99.0)],  # beyond the recording
        [(f"w{i}.", 2.0, 2.0) for i in range(60)],
    ],
)
def test_odd_times_still_give_files_that_players_take(words):
    given = answer(words)
    cues = text_formats.cues(given)
    times = [t for cue in cues for t in (cue.start, cue.end)]
    assert all(cue.start < cue.end for cue in cues) and times == sorted(times)
    grid = re.findall(r"xmin = (\S+)\n +xmax = (\S+)\n +text", text_formats.textgrid(given))
    assert all(float(a) < float(b) for a, b in grid) and [a for a, _ in grid[1:]] == [b for _, b in grid[:-1]]
    assert f"xmax = {grid[-1][1]}" in text_formats.textgrid(given).splitlines()
    assert all(float(line.split()[3]) >= 0 for line in text_formats.ctm(given).splitlines())


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.timed])
def test_silence_gives_an_empty_file_of_the_kind(name):
    text = FORMATS[name].write(answer([]))
    assert {"srt": text == "", "vtt": text == "WEBVTT\n", "ctm": text == ""}.get(name, "xmax = 2.500" in text and 'text = ""' in text)


def read(words, **more):
    return [(cue.start / 1000, cue.end / 1000, cue.lines) for cue in text_formats.cues(answer(words, **more))]


def test_a_cue_ends_at_a_pause_and_after_a_sentence_but_not_after_a_short_one():
    assert read([("one", 0.0, 0.5), ("two", 1.5, 2.0)]) == [(0.0, 1.0, ["one"]), (1.5, 2.5, ["two"])]  # shown for a second where there is room
    assert [cue[2] for cue in read([("Long.", 0.0, 1.2), ("Next", 1.2, 1.5)])] == [["Long."], ["Next"]]
    assert [cue[2] for cue in read([("No.", 0.0, 0.3), ("Next", 0.3, 1.5)])] == [["No. Next"]]
    assert [cue[2] for cue in read([("好。", 0.0, 1.2), ("走", 1.2, 1.5)])] == [["好。"], ["走"]]


def test_a_cue_has_two_lines_of_42_columns_and_seven_seconds():
    words = [(f"word{i:02d}", 0.1 * i, 0.1 * i + 0.1) for i in range(60)]
    found = read(words, duration=6.0)
    assert max(len(cue[2]) for cue in found) == 2 and max(len(line) for cue in found for line in cue[2]) == 41
    assert " ".join(line for cue in found for line in cue[2]) == " ".join(word for word, _, _ in words)
    chinese = read([("字", 0.1 * i, 0.1 * i + 0.1) for i in range(50)], duration=5.0)
    assert [[len(line) for line in cue[2]] for cue in chinese] == [[21, 21], [8]]
    slow = read([("slow", 0.7 * i, 0.7 * i + 0.6) for i in range(30)], duration=21.0)
    assert len(slow) > 2 and max(end - start for start, end, _ in slow) <= 7.0


def test_a_word_longer_than_a_line_is_kept_whole():
    assert text_formats.wrap(["a", "x" * 60, "b"]) == ["a", "x" * 60, "b"] and text_formats.wrap(["x" * 60]) == ["x" * 60]


def test_a_word_that_is_far_too_long_does_not_push_the_others():
    words = [Word("a", 0.1, 9.0), Word("b", 0.5, 0.8), Word("c", 0.9, 1.2)]
    assert [tuple(one) for one in in_order(words)] == [(100, 500, "a"), (500, 800, "b"), (900, 1200, "c")]
    assert [tuple(one) for one in in_order([Word("a", 0.5, 0.9), Word("b", 0.5, 0.8)])] == [(500, 900, "a"), (900, 901, "b")]
