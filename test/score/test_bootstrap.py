"""Intervals: seeded, of the right width, and the paired test."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wenet_osum.score.bootstrap import estimate, left_open, paired, resampled_sums
from wenet_osum.score.metric_sums import divide, share


def coin(count: int, right: int) -> np.ndarray:
    return np.array([[i < right, 1] for i in range(count)], dtype=float)


def test_interval_of_a_share_is_the_binomial_one():
    found = estimate(coin(400, 300), share(0, 1), resamples=4000)
    assert found.value == 75.0
    half = 196 * np.sqrt(0.75 * 0.25 / 400)
    assert found.low == pytest.approx(75 - half, abs=0.5)
    assert found.high == pytest.approx(75 + half, abs=0.5)


def test_same_seed_same_interval():
    columns = np.random.default_rng(0).random((50, 2))
    assert estimate(columns, share(0, 1)) == estimate(columns, share(0, 1))
    assert estimate(columns, share(0, 1), seed=1) != estimate(columns, share(0, 1))


def test_resampled_sums_draw_whole_utterances(monkeypatch):
    monkeypatch.setattr("wenet_osum.score.bootstrap.CELLS", 30)  # several blocks
    sums = resampled_sums(np.eye(5), 100, 3)
    assert sums.shape == (100, 5)
    assert (sums.sum(axis=1) == 5).all() and (sums == sums.round()).all()
    assert len(np.unique(sums, axis=0)) > 50


def test_one_utterance_and_none():
    assert estimate(np.array([[1.0, 4.0]]), share(0, 1)) == (25.0, 25.0, 25.0)
    assert np.isnan(estimate(np.zeros((0, 2)), share(0, 1))).all()


def test_paired_test_sees_a_small_steady_difference():
    rng = np.random.default_rng(0)
    base = (rng.random(500) < 0.5).astype(float)
    better = np.maximum(base, rng.random(500) < 0.1)
    ones = np.ones(500)
    found = paired(np.stack([better, ones], 1), np.stack([base, ones], 1), share(0, 1))
    assert found.low > 0 and found.p_value < 0.01 and found.utterances == 500
    assert found.difference == pytest.approx(100 * (better.mean() - base.mean()))
    same = paired(np.stack([base, ones], 1), np.stack([base, ones], 1), share(0, 1))
    assert same.difference == 0 and same.p_value == 1.0


@pytest.mark.parametrize(("count", "open_share"), [(1, 97.5), (216, 1.693), (240, 1.525)])
def test_all_right_or_all_wrong_has_the_exact_bound(count, open_share):
    assert left_open(count) == pytest.approx(open_share, abs=1e-3)
    assert (1 - left_open(count) / 100) ** count == pytest.approx(0.025), "that many right ones in a row are that likely at the bound"
    right = estimate(coin(count, count), share(0, 1), trials=count)
    assert right == (100.0, pytest.approx(100 - open_share, abs=1e-3), 100.0)
    wrong = estimate(coin(count, 0), share(0, 1), trials=count)
    assert wrong == (0.0, 0.0, pytest.approx(open_share, abs=1e-3))
    assert estimate(coin(count, count), share(0, 1)) == (100.0, 100.0, 100.0), "no share: no bound"


def test_one_wrong_answer_is_left_to_the_bootstrap():
    columns = coin(200, 199)
    assert estimate(columns, share(0, 1), trials=200) == estimate(columns, share(0, 1))
    half = np.array([[1.0, 2.0]] * 20)
    assert estimate(half, share(0, 1), trials=20) == (50.0, 50.0, 50.0), "alike in all utterances, but at neither end"


def test_coverage_of_the_exact_bound():
    """True rates just inside the interval of 50 right of 50 give 50 right with more than 2.5 %, those just outside with less."""
    low = estimate(coin(50, 50), share(0, 1), trials=50).low / 100
    assert (low + 1e-4) ** 50 > 0.025 > (low - 1e-4) ** 50


def test_pairs_that_do_not_differ_or_all_differ():
    right, wrong = coin(50, 50), coin(50, 0)
    open_share = left_open(50)
    assert paired(right, right, share(0, 1), trials=50)[:4] == (0.0, -open_share, open_share, 1.0)
    assert paired(right, right, share(0, 1))[:3] == (0.0, 0.0, 0.0)
    better = paired(right, wrong, share(0, 1), trials=50)
    assert better[:3] == (100.0, 100.0 - 2 * open_share, 100.0) and better.p_value < 0.01
    assert paired(wrong, right, share(0, 1), trials=50)[:3] == (-100.0, -100.0, 2 * open_share - 100.0)
    mixed = coin(50, 25)
    assert paired(mixed, mixed, share(0, 1), trials=50)[:3] == (0.0, -open_share, open_share)


def test_paired_test_refuses_other_utterances():
    with pytest.raises(ValueError, match="same utterances"):
        paired(coin(5, 1), coin(6, 1), share(0, 1))


def test_divide_by_zero():
    assert divide(np.array([0.0, 1.0]), np.array([0.0, 0.0])).tolist()[0] == 0
    assert np.isnan(divide(np.array([1.0]), np.array([0.0])))[0]


def test_nothing_is_decided_by_what_is_not_there():
    """One utterance says nothing of others, and a system without a value does not win."""

    def rate(sums):
        return 100.0 * np.divide(sums[:, 0], sums[:, 1])

    one, other = np.array([[2.0, 4.0]]), np.array([[1.0, 4.0]])
    assert math.isnan(paired(one, other, rate).p_value)
    some, none = np.array([[1.0, 4.0]] * 6), np.array([[0.0, 0.0]] * 6)
    with np.errstate(invalid="ignore"):
        for first, second in ((some, none), (none, some)):
            found = paired(first, second, rate)
            assert math.isnan(found.p_value) and math.isnan(found.difference)


def test_an_interval_holds_its_value():
    """How many different utterances there are: every draw has fewer than the list."""
    found = estimate(np.eye(10), lambda sums: (sums > 0).sum(axis=1).astype(float))
    assert found.low < found.value == found.high == 10.0
