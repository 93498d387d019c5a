"""Invented words on recordings without speech, counted by hand."""

from __future__ import annotations

import pytest

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.report import score_table
from wenet_osum.score import compare_task, score_task

ASR = tasks.parse("asr")


def answer(key, text, duration=None, **more):
    return Hypothesis(key, ASR.tags, text, transcript=text, duration=duration, **more)


def table(scores):
    return {(score.metric, score.subset): score for score in scores}


REFS = [
    Utterance("a", "a", "", duration=30.0),
    Utterance("b", "b", " ", start=5.0, end=35.0),
    Utterance("c", "c", "", duration=99.0),
    Utterance("d", "d", ""),
    Utterance("e", "e", "one two", lang="en", duration=60.0),
    Utterance("f", "f", "", duration=30.0),
]
# 3 words, 4 characters and nothing in 30, 30 and 90 s, and in 30 s that nobody answered
ANSWERS = {
    "a": answer("a", "thank you all"),
    "b": answer("b", "谢谢大家"),
    "c": answer("c", "", 90.0),
    "d": answer("d", "so"),
    "e": answer("e", "one two three"),
    "f": Hypothesis("f", ASR.tags, "", error="out of memory"),
}


def test_by_hand():
    score = table(score_task(ASR, REFS, ANSWERS))["invented_words", "all"]
    assert score.value == pytest.approx((3 + 4) / (0.5 + 0.5 + 1.5 + 0.5))
    assert (score.count, score.utterances) == (4, 4)
    detail = score.detail
    assert (detail["with_words"], detail["without_duration"], detail["minutes"]) == (2, 1, 3.0)
    assert score.about.lower_is_better and "words/min" in score_table.markdown_table([score])
    assert score.low <= score.value <= score.high


def test_the_word_error_rate_counts_them_as_insertions():
    scores = table(score_task(ASR, [REFS[4], Utterance("a", "a", "", lang="en", duration=30.0)], ANSWERS))
    wer = scores["wer", "en"]
    assert wer.value == pytest.approx(100 * (1 + 3) / 2) and wer.detail["insertions"] == 4
    silent = table(score_task(ASR, [REFS[2]], {"c": answer("c", "")}))
    assert silent["wer", "en"].value == 0.0 and silent["invented_words", "all"].value == 0.0


def test_the_normalizer_decides_what_is_a_word():
    refs = [Utterance("a", "a", "", duration=60.0)]
    answers = {"a": answer("a", "... you")}
    values = [table(score_task(ASR, refs, answers, name))["invented_words", "all"].value for name in ("none", "basic")]
    assert values == [2.0, 1.0]


def test_lists_of_speech_have_no_such_score():
    assert [score.metric for score in score_task(ASR, [REFS[4]], ANSWERS)] == ["wer"]
    assert "invented_words" not in {name for name, _ in table(score_task(ASR, [REFS[3]], ANSWERS))}, "no duration is known"


def test_two_systems_are_compared():
    refs = [Utterance(f"k{i}", "k", "", duration=60.0) for i in range(20)]
    loud = {one.key: answer(one.key, "thank you") for one in refs}
    quiet = {one.key: answer(one.key, "you") for one in refs}
    found = compare_task(ASR, refs, loud, quiet)["transcript", "invented_words", "all"]
    assert found.difference == pytest.approx(1.0)
