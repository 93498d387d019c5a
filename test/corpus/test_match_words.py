"""Timed words and transcripts: every written word gets the time it is said, punctuation and numbers keep their places."""

from __future__ import annotations

import pytest

from wenet_osum.corpus.alignments import Alignments, add_words
from wenet_osum.corpus.match_words import Unmatched, match, tidy, units
from wenet_osum.records import Utterance, Word
from wenet_osum.tasks.base import join_words


def timed(text: str, step: float = 0.5) -> list[Word]:
    """Words between spaces, each 0.4 s, one every 0.5 s."""
    return [Word(w, i * step, i * step + 0.4) for i, w in enumerate(text.split())]


def result(text: str, words: list[Word]) -> list[tuple]:
    """Words with times that compare as equal but for rounding."""
    return [(w.text, pytest.approx(w.start), pytest.approx(w.end)) for w in match(text, words)[0]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello, world!", ["Hello,", "world!"]),
        ("他说：“你好。”", ["他", "说：“", "你", "好。”"]),
        ("“Hi” she said", ["“Hi”", "she", "said"]),
        ("“ 你 好 ”", ["“ 你", "好 ”"]),
        ("wait - what ?", ["wait -", "what ?"]),
        ("iPhone手机 3.5元", ["iPhone", "手", "机", "3.5", "元"]),
        ("…", []),
    ],
)
def test_units(text, wanted):
    assert units(text) == wanted


@pytest.mark.parametrize("text", ["Hello, world - it's me!", "他说：“你好。”", "我有iPhone手机。", "コーヒーを飲む。", "한국어 좋아요", "กาแฟ ดี"])
def test_units_joined_are_the_transcript(text):
    assert join_words(units(text)) == text


def test_the_same_words_keep_case_and_punctuation():
    assert result("Hello, WORLD.", timed("hello world")) == [("Hello,", 0.0, 0.4), ("WORLD.", 0.5, 0.9)]


def test_the_word_silence_is_a_word():
    words = [Word("the", 0.0, 0.2), Word("silence", 0.3, 0.8), Word("fell", 0.9, 1.2)]
    found, _ = match("THE SILENCE FELL", words)
    assert [word.text for word in found] == ["THE", "SILENCE", "FELL"]


def test_silence_is_no_word_and_fillers_are_counted():
    words = [Word("<eps>", 0.0, 0.3), Word("SIL", 0.3, 0.5), Word("one", 0.5, 0.8), Word("uh", 0.9, 1.0), Word("", 1.0, 1.2), Word("two", 1.2, 1.5)]
    assert match("one two", words) == ([Word("one", 0.5, 0.8), Word("two", 1.2, 1.5)], 1)


def test_chinese_words_are_cut_into_characters():
    assert result("今天好。", [Word("今天", 0.0, 0.4), Word("好", 0.4, 0.7)]) == [("今", 0.0, 0.2), ("天", 0.2, 0.4), ("好。", 0.4, 0.7)]


@pytest.mark.parametrize(
    ("text", "said", "wanted"),
    [
        ("a well-known fact", "a well known fact", [("a", 0.0, 0.4), ("well-known", 0.5, 1.4), ("fact", 1.5, 1.9)]),
        ("in 2024 we", "in twenty twenty four we", [("in", 0.0, 0.4), ("2024", 0.5, 1.9), ("we", 2.0, 2.4)]),
        ("50 % off", "fifty percent off", [("50 %", 0.0, 0.9), ("off", 1.0, 1.4)]),
        ("3 cats", "three cats", [("3", 0.0, 0.4), ("cats", 0.5, 0.9)]),
        ("meet Zyx now", "meet <unk> now", [("meet", 0.0, 0.4), ("Zyx", 0.5, 0.9), ("now", 1.0, 1.4)]),
        ("do not go", "don't go", None),
    ],
)
def test_numbers_compounds_and_unknown_words(text, said, wanted):
    if wanted is None:
        with pytest.raises(Unmatched, match="not in the alignment"):
            match(text, timed(said))
    else:
        assert result(text, timed(said)) == wanted


def test_a_word_written_in_two_shares_its_time_by_letters():
    assert result("ice cream", [Word("icecream", 0.0, 0.8)]) == [("ice", 0.0, 0.3), ("cream", 0.3, 0.8)]


def test_few_words_may_differ_many_may_not():
    said = timed("the color of the sea is blue")
    assert result("the color of the sea is blue", said)[1] == ("color", 0.5, 0.9)
    with pytest.raises(Unmatched, match="different things") as told:
        match("one two three four five six seven", said)
    assert told.value.reason == "transcript and alignment say different things"


def test_a_missing_word_is_told():
    with pytest.raises(Unmatched, match="not in the alignment: two"):
        match("one two three", timed("one three"))
    for text, words in (("", timed("a")), ("?!", timed("a")), ("a", [Word("sil", 0.0, 1.0)])):
        with pytest.raises(Unmatched, match="no words in"):
            match(text, words)


def test_small_overlap_is_shared_and_two_voices_are_refused():
    assert tidy([Word("b", 0.9, 1.5), Word("a", 0.5, 1.0)]) == [Word("a", 0.5, pytest.approx(0.95)), Word("b", pytest.approx(0.95), 1.5)]
    with pytest.raises(Unmatched, match="words overlap"):
        tidy([Word("long", 0.0, 2.0), Word("inside", 0.5, 0.8)])


def test_words_without_length_get_one():
    assert tidy([Word("a", 0.5, 0.5), Word("b", 0.6, 0.55)]) == [Word("a", 0.5, 0.51), Word("b", 0.6, 0.61)]


def test_alignments_are_found_by_key_or_recording():
    alignment = [Word("one", 0.2, 0.5), Word("two", 1.0, 1.4), Word("three", 2.0, 2.5)]
    whole = Utterance("a-1", "x/rec.flac", txt="two three", start=0.9, end=2.5)
    assert add_words(whole, Alignments({"rec": alignment}))[0] == [Word("two", pytest.approx(0.1), pytest.approx(0.5)), Word("three", pytest.approx(1.1), pytest.approx(1.6))]
    own = Utterance("a-1", "x/rec.flac", txt="one two three", start=5.0, end=8.0)
    assert add_words(own, Alignments({"a-1": alignment, "rec": []}))[0] == alignment
    with pytest.raises(Unmatched, match="no alignment of this name: a-1"):
        add_words(own, Alignments({}))
    with pytest.raises(Unmatched, match="no transcript"):
        add_words(Utterance("a", "a.wav"), Alignments({"a": alignment}))


def test_recordings_of_one_name_get_no_times_of_each_other():
    rows = [Utterance("a", "w/spk1/001.wav", txt="one two"), Utterance("b", "w/spk2/001.wav", txt="one two")]
    both = Alignments({"spk1/001": timed("one two"), "spk2/001": timed("one two")[::-1]})
    assert both.find(rows[0]) == (both.words["spk1/001"], True) and both.find(rows[1]) == (both.words["spk2/001"], True)
    for name in ("spk1/001", "001"):
        one = Alignments({name: timed("one two")})
        one.note_recordings(rows)
        with pytest.raises(Unmatched, match="several recordings of this name"):
            one.find(rows[1])
    with pytest.raises(Unmatched, match="several recordings of this name"):
        both.find(Utterance("c", "elsewhere/001.wav", txt="one two"))


def test_times_beyond_the_recording_are_told_and_a_little_is_cut():
    alignment = timed("one two")
    assert add_words(Utterance("a", "a.wav", txt="one two", duration=0.87), Alignments({"a": alignment}))[0][-1].end == 0.87
    with pytest.raises(Unmatched, match="beyond the recording"):
        add_words(Utterance("a", "a.wav", txt="one two", duration=0.7), Alignments({"a": alignment}))
