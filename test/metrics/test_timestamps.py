"""Word times on examples computed by hand."""

from __future__ import annotations

import math

import pytest

from wenet_osum import tasks
from wenet_osum.metrics.timestamps import pair_words, time_faults
from wenet_osum.records import Hypothesis, Utterance, Word
from wenet_osum.score import score_task
from wenet_osum.score.bootstrap import left_open

SRWT = tasks.parse("srwt")
WORDS = [Word("one", 0.0, 1.0), Word("two", 1.0, 2.0), Word("three", 2.0, 3.0)]


def scores(words: list[Word] | None, reference: list[Word] = WORDS, **more) -> dict:
    hyp = {} if words is None else {"a": Hypothesis("a", SRWT.tags, "", transcript=" ".join(w.text for w in words), words=words, **more)}
    return {s.metric: s for s in score_task(SRWT, [Utterance("a", "a.wav", lang="en", words=reference, duration=3.0)], hyp)}


def test_by_hand():
    # one: 0 and +100 ms; two became tow: unpaired; three: +60 and −150 ms
    found = scores([Word("One,", 0.0, 1.1), Word("tow", 1.0, 2.0), Word("three", 2.06, 2.85)])
    assert found["aas_ms"].value == pytest.approx((50 + 105) / 2)
    assert found["aas_ms"].detail["median_offset_ms"] == pytest.approx(30.0)  # of 0, 100, 60, −150
    assert found["aas_debiased_ms"].value == pytest.approx(((30 + 70) / 2 + (30 + 180) / 2) / 2)
    assert found["coverage"].value == pytest.approx(200 / 3)
    assert [found[f"within_{c}ms"].value for c in (50, 100, 200)] == [25.0, 75.0, 100.0]
    assert [found[f"within_{c}ms_all"].value for c in (50, 100, 200)] == [pytest.approx(100 * n / 6) for n in (1, 3, 4)]
    assert [found[f"word_f1_{c}ms"].value for c in (50, 100, 200)] == [0.0, pytest.approx(200 / 6), pytest.approx(400 / 6)]
    assert (found["within_100ms"].count, found["within_100ms_all"].count) == (4, 6)


def test_a_boundary_exactly_on_the_collar_is_inside():
    for start in (0.3, 0.7, 1.1, 2.2):
        found = scores([Word("x", start + 0.1, start + 0.5)], [Word("x", start, start + 0.4)])
        assert found["within_100ms"].value == 100.0


def test_constant_offset_is_taken_off():
    found = scores([Word(w.text, w.start + 0.08, w.end + 0.08) for w in WORDS])
    assert found["aas_ms"].value == pytest.approx(80.0)
    assert found["aas_debiased_ms"].value == pytest.approx(0.0)


def test_pairing_follows_the_words_not_the_places():
    assert pair_words(WORDS, [Word("zero", 0, 1), *WORDS[1:]]) == [(1, 1), (2, 2)]
    assert pair_words([Word("Ｈello!", 0, 1)], [Word("hello", 0, 1)]) == [(0, 0)]
    assert pair_words(WORDS, []) == []


def test_missing_answer_counts_where_all_words_count():
    refs = [Utterance(k, "x", lang="en", words=WORDS) for k in "ab"]
    hyps = {"a": Hypothesis("a", SRWT.tags, "", transcript="one two three", words=WORDS)}
    found = {s.metric: s for s in score_task(SRWT, refs, hyps)}
    assert found["within_100ms"].value == 100.0
    assert found["within_100ms_all"].value == 50.0
    assert found["coverage"].value == 50.0
    assert found["word_f1_100ms"].value == pytest.approx(100 * 2 * 3 / (6 + 3))
    assert found["aas_ms"].detail["missing"] == 1
    assert found["within_100ms"].low == pytest.approx(2.5), "of paired words one utterance alone tells"
    assert (found["aas_ms"].value, found["aas_ms"].high) == (0.0, 0.0), "ms are no share"


def test_no_pair_at_all_has_no_shift():
    found = scores(None)
    assert math.isnan(found["aas_ms"].value) and math.isnan(found["within_50ms"].value)
    assert found["within_50ms_all"].value == 0.0 and found["coverage"].value == 0.0


def test_faults_of_times():
    words = [Word("a", 0.5, 0.4), Word("b", 0.3, 0.9), Word("c", 0.8, 3.5)]
    assert time_faults(words, 3.0) == {"order_violations": 2, "overlaps": 2, "outside_audio": 1}
    assert time_faults(words, None)["outside_audio"] == 0
    detail = scores(words, unread={"words": "<0.1>x"})["aas_ms"].detail
    assert (detail["order_violations"], detail["outside_audio"], detail["unread"]) == (2, 1, 1)


def test_languages_and_all():
    refs = [Utterance("a", "x", lang="en", words=WORDS), Utterance("b", "x", lang="zh", words=[Word("你", 0, 1)])]
    hyps = {u.key: Hypothesis(u.key, SRWT.tags, "", transcript="", words=u.words) for u in refs}
    found = score_task(SRWT, refs, hyps)
    assert [s.subset for s in found if s.metric == "aas_ms"] == ["en", "zh", "all"]
    assert [s.detail["minor"] for s in found if s.metric == "aas_ms"] == [True, True, False]


def test_no_pair_in_any_utterance_is_no_certainty():
    """Nothing of 20 utterances is right: as many trials, whether any word pairs or not."""
    refs = [Utterance(f"k{i}", "x", lang="en", words=WORDS) for i in range(20)]
    found = {s.metric: s for s in score_task(SRWT, refs, {})}
    for name in ("coverage", "word_f1_100ms", "within_100ms_all"):
        assert (found[name].value, found[name].high) == (0.0, pytest.approx(left_open(20))), name
