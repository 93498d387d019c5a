"""Error rates of plain strings."""

from __future__ import annotations

import jiwer
import pytest

from wenet_osum.score import cer, wer

TABLE = [
    ("hello world", "hello duck", 0.5),
    ("hello world", "hello world", 0.0),
    ("hello world", "", 1.0),
    ("one", "one two three", 2.0),
    (["a b", "c"], ["a b", "d"], 1 / 3),
]


@pytest.mark.parametrize(("reference", "hypothesis", "rate"), TABLE)
def test_wer_is_jiwers(reference, hypothesis, rate):
    assert wer(reference, hypothesis) == pytest.approx(rate)
    assert wer(reference, hypothesis) == pytest.approx(jiwer.wer(reference, hypothesis))


def test_cer_counts_characters_and_foreign_words():
    assert cer("今天 天气", "今天天汽") == pytest.approx(1 / 4)
    assert cer("打开 wifi", "打开 wife") == pytest.approx(1 / 3)


def test_a_normalizer_is_named():
    assert wer("Hello, world!", "hello world", normalizer="basic") == 0.0
    with pytest.raises(ValueError, match="unknown normalizer 'basik', did you mean 'basic'"):
        wer("a", "a", normalizer="basik")


def test_what_has_no_rate():
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        wer(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no word"):
        wer("", "a")
