"""Tokens of a transcript and the times of its words."""

import pytest

from wenet_osum.records import Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.timing import ANY_TIME, timed_tokens


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["red cat"] * 50, 1000)  # words are whole, anything else is spelled


def spans(tokenizer, text, words, **options):
    ids, found = timed_tokens(tokenizer, text, words, **options)
    return [(tokenizer.decode([i]), span) for i, span in zip(ids, found, strict=True)]


def test_a_token_has_the_time_of_its_word(tokenizer):
    words = [Word("red", 0.1, 0.4), Word("cat", 0.5, 1.1)]
    assert spans(tokenizer, "red cat", words) == [("red", (0.1, 0.4)), (" cat", (0.5, 1.1))]


def test_parts_of_a_word_share_it_or_spread_over_it(tokenizer):
    words = [Word("ox", 1.0, 2.0)]
    assert spans(tokenizer, "ox", words) == [("o", (1.0, 2.0)), ("x", (1.0, 2.0))]
    assert spans(tokenizer, "ox", words, spread=True) == [("o", (1.0, 1.5)), ("x", (1.5, 2.0))]


def test_what_no_word_has_may_be_said_at_any_time(tokenizer):
    words = [Word("red", 0.1, 0.4), Word("dog", 0.5, 0.6), Word("cat", 0.7, 0.9)]
    assert spans(tokenizer, "red, cat", words) == [("red", (0.1, 0.4)), (",", ANY_TIME), (" cat", (0.7, 0.9))], "dog is not in the text"
    assert [span for _, span in spans(tokenizer, "red cat", [])] == [ANY_TIME] * 2


def test_the_same_word_twice_is_found_in_order(tokenizer):
    words = [Word("cat", 0.0, 0.2), Word("cat", 1.0, 1.2)]
    assert [span for _, span in spans(tokenizer, "cat cat", words)] == [(0.0, 0.2), (1.0, 1.2)]


def test_escaped_letters_belong_to_their_word(tokenizer):
    assert {span for _, span in spans(tokenizer, r"a\<b", [Word("a<b", 0.2, 0.3)])} == {(0.2, 0.3)}
