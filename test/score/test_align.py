"""Alignment against the textbook dynamic program."""

from __future__ import annotations

import random

from wenet_osum.score.align import Counts, align, count, loops


def distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_counts_match_brute_force():
    rng = random.Random(1)
    for _ in range(300):
        ref, hyp = (rng.choices("abcd", k=rng.randrange(9)) for _ in range(2))
        found = count(ref, hyp)
        assert found.errors == distance(ref, hyp)
        assert found.correct + found.substitutions + found.deletions == len(ref)
        assert found.correct + found.substitutions + found.insertions == len(hyp)


def test_alignment_covers_both_sides_in_order():
    rng = random.Random(2)
    for _ in range(200):
        ref, hyp = (rng.choices("abc", k=rng.randrange(8)) for _ in range(2))
        pairs = list(align(ref, hyp))
        assert [i for i, _ in pairs if i is not None] == list(range(len(ref)))
        assert [j for _, j in pairs if j is not None] == list(range(len(hyp)))
        assert sum(i is None or j is None or ref[i] != hyp[j] for i, j in pairs) == distance(ref, hyp)


def test_hand_example():
    assert count("a b c d".split(), "a x c d e".split()) == Counts(3, 1, 0, 1)
    assert count([], ["a"]) == Counts(0, 0, 0, 1)
    assert count(["a", "b"], []) == Counts(0, 0, 2, 0)


def test_loops_need_four_repeats_in_a_row():
    assert loops(["x", "a", "b", "a", "b", "a", "b", "a", "b"])
    assert not loops(["x", "a", "b", "a", "b", "a", "b", "y", "a", "b"])
    assert loops(["a"] * 4) and not loops(["a"] * 3) and not loops([])
