"""Reply figures on hand-made examples; chrF values were checked once against sacrebleu 2.6 (CHRF(), its defaults)."""

from __future__ import annotations

import numpy as np
import pytest

from wenet_osum import tasks
from wenet_osum.metrics.reply import chrf_of_counts, ngram_counts, rouge_l, token_f1
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import score_task

STTC = tasks.parse("sttc")


def scores(reference: str, *answers: str | None, **more) -> dict:
    refs = [Utterance(f"u{i}", "x", "the question", lang="en", reply=reference) for i in range(len(answers))]
    hyps = {f"u{i}": Hypothesis(f"u{i}", STTC.tags, "", transcript="the question", reply=a) for i, a in enumerate(answers) if a is not None}
    return {s.metric: s for s in score_task(STTC, refs, hyps, **more)}


def test_token_f1_and_rouge_by_hand():
    assert token_f1("It is five o'clock.", "it's five") == pytest.approx(2 * 1 / (4 + 2))
    assert token_f1("a a b", "a b b") == pytest.approx(4 / 6)
    assert rouge_l("a b c d", "d a c") == pytest.approx(2 * 2 / 7)
    assert rouge_l("北京是首都", "首都北京") == pytest.approx(2 * 2 / 9)
    assert (token_f1("", ""), token_f1("a", ""), rouge_l("!", "?")) == (1.0, 0.0, 0.0)


def chrf(*pairs: tuple[str, str]) -> float:
    return float(chrf_of_counts(np.array([np.sum([ngram_counts(r, h) for r, h in pairs], axis=0)], dtype=float))[0])


def test_chrf_by_hand():
    # one order each has at least: unigrams 2 of 3 both ways, bigrams 1 of 2 both ways, trigrams 0 of 1
    assert chrf(("abc", "abd")) == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert chrf(("a b c", "abc")) == 100.0
    assert chrf(("abc", "")) == 0.0
    # where a reference has no n-gram of an order, those of its reply are not counted: P = (2/5 + 1/1) / 2, R = (2/3 + 1/1) / 2
    assert chrf(("a", "bcd"), ("ab", "ab")) == pytest.approx(100 * 5 * 0.7 * (5 / 6) / (4 * 0.7 + 5 / 6))
    # one unigram right of one, one of two needed: F2 of P = 1 and R = 1/2 (bigrams only in the reference do not count)
    assert chrf(("ab", "a")) == pytest.approx(100 * 5 * 0.5 / (4 + 0.5))


def test_missing_and_unread_replies_score_nothing():
    found = scores("four", "four", "five", "", None)
    assert found["exact_match"].value == 25.0
    assert found["token_f1"].value == 25.0
    assert (found["exact_match"].detail["missing"], found["exact_match"].detail["empty"]) == (1, 1)
    assert found["wer"].value == pytest.approx(25.0)  # the missing answer's transcript


def test_exact_match_uses_the_normalizer():
    assert scores("Four.", "four")["exact_match"].value == 0.0
    assert scores("Four.", "four", normalizer="basic")["exact_match"].value == 100.0
    assert scores("four  apples", "four apples")["exact_match"].value == 100.0


def test_worst_shows_both_replies():
    assert scores("four", "five")["exact_match"].detail["worst"] == [
        {"key": "u0", "lang": "en", "ref": "four", "hyp": "five", "note": "", "text": "the question"}
    ]


TEXTS = ["", "a", "ab", "the cat sat on the mat.", "The  cat sat, on a mat!", "今天天气很好。", "今天 天汽 好", "mixed 中文 and words", "aaaaaaa", "\u00e9t\u00e9 na\u00efve"]


def test_chrf_agrees_with_sacrebleu():
    metrics = pytest.importorskip("sacrebleu.metrics", reason="sacrebleu, the reference implementation of chrF, is a test tool")
    rng = np.random.default_rng(5)
    for size in (1, 2, 7):
        for _ in range(40):
            refs, hyps = ([TEXTS[i] for i in rng.integers(0, len(TEXTS), size)] for _ in range(2))
            expected = metrics.CHRF().corpus_score(hyps, [refs]).score
            assert chrf(*zip(refs, hyps, strict=True)) == pytest.approx(expected, abs=1e-6), (refs, hyps)
