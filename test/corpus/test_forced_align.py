"""Forced alignment on emissions whose true path is known."""

from __future__ import annotations

import pytest
import torch

from wenet_osum.corpus.forced_align import force_align
from wenet_osum.corpus.match_words import Unmatched
from wenet_osum.records import Word

LETTERS = " abcdefgh,你好"
BLANK = len(LETTERS)


def encode(text: str) -> list[tuple[int, int, int]]:
    return [(LETTERS.index(c), i, i + 1) for i, c in enumerate(text)]



def emissions(path: str, sure: float = 0.9) -> torch.Tensor:
    """Log-probabilities (frames, classes) along a path; ``_`` is the blank."""
    ids = [BLANK if c == "_" else LETTERS.index(c) for c in path]
    probs = torch.full((len(ids), BLANK + 1), (1 - sure) / BLANK)
    probs[torch.arange(len(ids)), torch.tensor(ids)] = sure
    return probs.log()


def near(words: list[Word]) -> list[tuple]:
    """Words with times that compare as equal but for rounding."""
    return [(w.text, pytest.approx(w.start), pytest.approx(w.end)) for w in words]


def test_words_lie_on_their_frames():
    found = force_align(emissions("__aab___  __cc_d_____"), "ab cd", encode, BLANK, 0.02, gap_s=0.0)
    assert near(found) == [("ab", 0.04, 0.1), ("cd", 0.24, 0.32)]


def test_punctuation_goes_with_the_word_before_and_repeats_need_a_blank():
    found = force_align(emissions("_b_b,___你好"), "bb,你好", encode, BLANK, 0.1, gap_s=0.0)
    assert near(found) == [("bb,", 0.1, 0.5), ("你", 0.8, 0.9), ("好", 0.9, 1.0)]


def test_short_gaps_are_split_long_ones_are_pauses():
    path = "a___b" + "_" * 20 + "c"
    found = force_align(emissions(path), "a b c", lambda t: [(LETTERS.index(c), i, i + 1) for i, c in enumerate(t) if c != " "], BLANK, 0.02)
    assert found == [Word("a", 0.0, pytest.approx(0.05)), Word("b", pytest.approx(0.05), pytest.approx(0.1)), Word("c", 0.5, pytest.approx(0.52))]


def test_a_token_belongs_to_the_unit_of_its_last_character():
    found = force_align(emissions("_a__c__"), "ab cd", lambda t: [(LETTERS.index("a"), 0, 2), (LETTERS.index("c"), 2, 5)], BLANK, 0.1, gap_s=0.0)
    assert [w.text for w in found] == ["ab", "cd"] and found[1].start == pytest.approx(0.4)


def test_what_cannot_be_aligned_is_told():
    with pytest.raises(Unmatched, match="more tokens than frames: 3 for 2"):
        force_align(emissions("aa"), "aa", encode, BLANK, 0.02)
    with pytest.raises(Unmatched, match="no words"):
        force_align(emissions("aa"), "…", lambda t: [(1, 0, 1)], BLANK, 0.02)
    with pytest.raises(Unmatched, match="no token of its own: 你"):
        force_align(emissions("_a_b"), "你好", lambda t: [(1, 0, 2)], BLANK, 0.02)
