"""Alignment files of every format: the same words come out, and what cannot be read is said."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from wenet_osum import lookup
from wenet_osum.corpus.alignments import FORMATS, read_alignments
from wenet_osum.corpus.match_words import match, units
from wenet_osum.corpus.word_times import ctm, mfa, textgrid, whisper
from wenet_osum.decode import text_formats
from wenet_osum.records import Hypothesis, Word

SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
3
"IntervalTier"
"words"
0
2.5
3
0
0.5
""
0.5
1.25
"say ""hi"""
1.25
2.5
"年"
"TextTier"
"bells"
0
2.5
1
0.7
"ding"
"IntervalTier"
"phones"
0
2.5
1
0
2.5
"a"
'''
LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists> take=7 
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.25 ! a remark with 3 "values" <exists>
            text = "say ""hi"""
        intervals [3]:
            xmin = 1.25
            xmax = 2.5
            text = "年"
    item [2]:
        class = "TextTier"
        name = "bells"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 0.7
            mark = "ding"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "a"
'''
WORDS = [Word("", 0.0, 0.5), Word('say "hi"', 0.5, 1.25), Word("年", 1.25, 2.5)]


@pytest.mark.parametrize("text", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_textgrid_in_both_forms_and_all_encodings(text, encoding):
    assert textgrid.read(text.encode(encoding)) == {None: WORDS}


def test_textgrid_without_a_clear_tier_is_refused():
    with pytest.raises(ValueError, match=r"there are \['speech', 'phones'\]"):
        textgrid.read(SHORT.replace('"words"', '"speech"').encode())
    alone = SHORT.replace("<exists>\n3", "<exists>\n1").replace('"words"', '"speech"')
    assert textgrid.read(alone.encode()) == {None: WORDS}


@pytest.mark.parametrize(
    ("data", "message"),
    [(SHORT[:200].encode(), "ends before its last interval"), (b'"a" "b"', "no TextGrid"), (b"\xff\xfe\x00", "UTF-8 or UTF-16"), ("é".encode("latin-1") * 9, "UTF-8")],
)
def test_broken_textgrid_is_told(data, message):
    with pytest.raises(ValueError, match=message):
        textgrid.read(data)


def test_mfa_joins_the_speakers_tiers():
    two = SHORT.replace('"words"', '"anna - words"').replace('"phones"', '"bert - words"').replace('"a"', '"oh"')
    assert [w.text for w in mfa.read(two.encode())[None]] == ["", "oh", 'say "hi"', "年"]
    with pytest.raises(ValueError, match="no tier 'words'"):
        mfa.read(SHORT.replace('"words"', '"speech"').encode())


def test_ctm_holds_many_recordings():
    text = ";; a remark\na 1 0.50 0.25 hello 0.98\nb A 0 1 年\n\na 1 0.75 0.25 world\n"
    assert ctm.read(text.encode()) == {"a": [Word("hello", 0.5, 0.75), Word("world", 0.75, 1.0)], "b": [Word("年", 0.0, 1.0)]}
    for wrong in ("a 1 0.5 hello", "a 1 zero 1 x"):
        with pytest.raises(ValueError, match="line 1 must read"):
            ctm.read(wrong.encode())


def test_whisper_json_of_all_kins():
    words = [{"word": " Hello,", "start": 0.1, "end": 0.4, "probability": 0.9}, {"word": " 42"}, {"text": "you", "start": 0.5, "end": 0.6}]
    want = [Word(" Hello,", 0.1, 0.4), Word("you", 0.5, 0.6)]
    for tree in ({"segments": [{"words": words[:1]}, {"words": words[1:]}]}, {"words": words}, {"segments": [], "word_segments": words}):
        assert whisper.read(json.dumps(tree).encode()) == {None: want}


@pytest.mark.parametrize(
    ("text", "message"), [('{"segments": [{"text": "a"}]}', "word timestamps"), ("[1]", "Whisper's form"), ("{", "Whisper's form"), ('{"words": [{"start": 1, "end": 2}]}', "form")]
)
def test_json_without_word_times_is_told(text, message):
    with pytest.raises(ValueError, match=message):
        whisper.read(text.encode())


def test_every_format_is_a_file_with_read_and_suffixes():
    for name in lookup.names(FORMATS):
        module = lookup.load(FORMATS, name)
        assert callable(module.read) and all(s == s.lower() and s.startswith(".") for s in module.SUFFIXES), name


def test_folder_is_read_by_file_name_and_faults_are_counted(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("a.TextGrid", "x/b.TextGrid", "x/twice.TextGrid", "twice.TextGrid"):
        (tmp_path / name).write_text(SHORT, encoding="utf-8")
    (tmp_path / "broken.TextGrid").write_text("nothing")
    faults = Counter()
    found = read_alignments(tmp_path, "textgrid", faults)
    assert found.words == dict.fromkeys(("a", "x/b", "x/twice", "twice"), WORDS) and faults.total() == 1
    with pytest.raises(ValueError, match=r"no \.ctm file"):
        read_alignments(tmp_path, "ctm", faults)
    with pytest.raises(ValueError, match="did you mean 'textgrid'"):
        read_alignments(tmp_path, "textgird", faults)


@pytest.mark.parametrize("text", ["Well, it's 3.5 km (or so) - ok?", "他说：“新年好。”", "我有 iPhone 手机，50 % 的电。"])
def test_what_decoding_writes_comes_back(text):
    """TextGrid to the millisecond, CTM in its three decimals, with the transcript's own punctuation."""
    words = [Word(unit, 0.3 * i + 0.1, 0.3 * i + 0.35) for i, unit in enumerate(units(text))]
    answer = Hypothesis("dir/a.wav", "<TRANSCRIBE> <ALIGN>", "", words=words, duration=9.0, labels={"emotion": "sad"})
    grid = textgrid.read(text_formats.textgrid(answer).encode())[None]
    lines = ctm.read(text_formats.ctm(answer).encode())
    assert list(lines) == ["a"]
    for found in (grid, lines["a"]):
        back, extra = match(text, found)
        assert not extra and [w.text for w in back] == [w.text for w in words]
        assert all(abs(a.start - b.start) < 1e-3 and abs(a.end - b.end) < 1e-3 for a, b in zip(back, words, strict=True))
