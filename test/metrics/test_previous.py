"""Leaks of the text before, on examples counted by hand."""

from __future__ import annotations

import pytest

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import score_task
from wenet_osum.score.spoken import runs

ASR = tasks.parse("asr")


def reference(key, txt, previous="", lang="en"):
    return Utterance(key, f"{key}.wav", txt, lang=lang, extra={"previous": previous} if previous else {})


def answers(**texts):
    return {key: Hypothesis(key, ASR.tags, text, transcript=text) for key, text in texts.items()}


REFS = [
    reference("a", "and then she left", "We met in London last week."),
    reference("b", "我们走吧", "今天天气很好", "zh"),
    reference("c", "we met in London again", "We met in London last week."),
    reference("d", "no text before"),
]


def found(**texts):
    return {score.metric: score for score in score_task(ASR, REFS, answers(**texts))}


def test_runs_are_those_of_neighbors():
    assert runs(list("abcab"), 3) == {tuple("abc"), tuple("bca"), tuple("cab")}
    assert runs(list("ab"), 3) == set()


def test_by_hand():
    leaks = found(a="We met in London, and then she left", b="今天天我们走吧", c="we met in london again", d="we met in london")["previous_leaks"]
    assert leaks.value == pytest.approx(100 * 2 / 3) and leaks.count == 3, "c says it again, d has no text before"
    assert leaks.detail["leaked_runs"] == 3, "we met in, met in london; 今天天"
    assert leaks.about.lower_is_better and leaks.low <= leaks.value <= leaks.high


def test_one_or_two_words_may_be_misheard():
    assert found(a="London and then we met", b="今天走吧", c="last week in London")["previous_leaks"].value == 0.0


def test_missing_answers_leak_nothing_and_lists_without_a_text_before_are_not_scored():
    leaks = found(b="我们走吧", d="no text before")["previous_leaks"]
    assert (leaks.value, leaks.count) == (0.0, 1)
    assert "previous_leaks" not in {score.metric for score in score_task(ASR, [REFS[3]], answers(d="x"))}


def test_the_normalizer_changes_the_text_before_as_well():
    refs = [reference("a", "and then she left", "Mr. Smith will come")]
    [leaks] = [s for s in score_task(ASR, refs, answers(a="Mister Smith will come and then she left"), "whisper_en") if s.metric == "previous_leaks"]
    assert leaks.value == 100.0
