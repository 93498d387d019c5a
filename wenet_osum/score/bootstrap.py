"""Bootstrap intervals and the paired test, over utterances or over clusters of them.

The method is that of Bisani and Ney (2004, 10.1109/ICASSP.2004.1326009). Resampling is seeded: the
same scores give the same interval. Words of one utterance stay together, since their errors depend
on one another. With clusters (resampling.py), whole clusters are drawn, so that utterances of one
speaker stay together as well.

Resampling cannot widen what is the same in every utterance: with all of them right it would call
100 % certain. There the interval is exact (Clopper and Pearson, 1934, 10.1093/biomet/26.4.404): n
right trials of n leave a share of 1 − 0.025^(1/n) open, where each utterance is a trial.

In clusters, n is the number of clusters. Clopper and Pearson's bound holds for n independent
trials, and clustered samples have as many as the number of utterances divided by the design effect
1 + (m − 1)·ρ, m utterances per cluster with correlation ρ (Kish, 1965, Survey Sampling; Korn and
Graubard, 1998, Survey Methodology 24, 193–201). Where all are right, the sample says nothing of ρ.
The worst case ρ = 1 leaves one trial per cluster: the bound then holds whatever ρ is, for no more
utterances can go wrong than belong to speakers with anything wrong.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np

from wenet_osum.score.metric_sums import Statistic

# Probability beyond each end of an interval.
TAIL = 0.025
# Most draws held in memory at once.
CELLS = 2_000_000


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The value of the first system minus that of the second, on the same utterances."""

    difference: float
    low: float
    high: float
    # two-sided; the smallest possible value is 2 / (resamples + 1)
    p_value: float
    utterances: int


def estimate(
    columns: np.ndarray,
    statistic: Statistic,
    resamples: int = 1000,
    seed: int = 777,
    trials: int = 0,
    clusters: np.ndarray | None = None,
) -> Estimate:
    """Take the statistic of the sums of ``columns`` (U, C) with its interval; NaN if U is 0.

    ``trials`` is for shares in %: how many independent trials stand behind them
    (``MetricSums.trials``). ``clusters`` (U,) numbers the clusters of the rows, which are drawn
    whole; None draws single rows. One cluster alone tells nothing of others: its interval is NaN,
    unless it is the exact one.
    """
    columns = np.asarray(columns, dtype=float)
    if clusters is not None:
        columns = sums_of_clusters(columns, clusters)
    if not len(columns):
        return Estimate(math.nan, math.nan, math.nan)
    value = _value(columns, statistic)
    draws = statistic(resampled_sums(columns, resamples, seed))
    low, high = _percentiles(draws, value)

    # Where all utterances are alike, the interval is the exact one.
    if trials and low == high:
        if math.isclose(value, 100.0):
            low = 100.0 - left_open(trials)
        elif value == 0.0:
            high = left_open(trials)

    # Drawn from a single cluster, all draws are the same and say nothing.
    if low == high and _alone(columns, clusters):
        low = high = math.nan
    return Estimate(value, low, high)


def paired(
    first: np.ndarray,
    second: np.ndarray,
    statistic: Statistic,
    resamples: int = 1000,
    seed: int = 777,
    trials: int = 0,
    clusters: np.ndarray | None = None,
) -> Difference:
    """Test two systems by the paired bootstrap.

    Row i of both (U, C) arrays belongs to the same utterance; ``trials`` and ``clusters`` are as in
    ``estimate``. On one cluster alone interval and p are NaN, p also on one utterance and where one
    of the systems has no value. Raises ValueError when shapes differ or there is no utterance.
    """
    first = np.asarray(first, dtype=float)
    second = np.asarray(second, dtype=float)
    same = first.shape == second.shape
    if not same or not len(first):
        raise ValueError(
            "paired test needs the same utterances for both systems, "
            f"got {first.shape} and {second.shape}"
        )

    utterances = len(first)
    if clusters is not None:
        first = sums_of_clusters(first, clusters)
        second = sums_of_clusters(second, clusters)

    # Both systems are drawn together, so that each draw has the same utterances of both.
    width = first.shape[1]
    sums = resampled_sums(np.hstack([first, second]), resamples, seed)
    of_first = statistic(sums[:, :width])
    of_second = statistic(sums[:, width:])
    draws = of_first - of_second
    difference = _value(first, statistic) - _value(second, statistic)

    # Two-sided: twice the share of draws in which the better system is not better. Draws in which
    # there is nothing to compare, such as words without a pair, say nothing.
    known = draws[np.isfinite(draws)]
    not_above = int(np.sum(known <= 0))
    not_below = int(np.sum(known >= 0))
    smaller = min(not_above, not_below)
    p_value = 2 * (smaller + 1) / (len(known) + 1)

    low, high = _percentiles(draws, difference)
    if trials and low == high:
        low, high = _open_difference(difference, left_open(trials))
    p_value = min(1.0, p_value)

    # Drawn from a single row, all draws are the same and say nothing.
    if len(first) == 1 or not math.isfinite(difference):
        p_value = math.nan
    if _alone(first, clusters) and low == high:
        low = high = math.nan
    return Difference(difference, low, high, p_value, utterances)


def sums_of_clusters(columns: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Add up the rows (U, C) of each cluster (U,): (K, C).

    A statistic of sums does not tell the clusters' sums from those of their rows, so that to draw
    clusters is to draw these rows.
    """
    _, numbers = np.unique(clusters, return_inverse=True)
    sums = np.zeros((numbers.max(initial=-1) + 1, columns.shape[1]))
    np.add.at(sums, numbers, columns)
    return sums


def _alone(sums: np.ndarray, clusters: np.ndarray | None) -> bool:
    """Tell whether clusters are drawn and there is a single one."""
    return clusters is not None and len(sums) == 1


def _value(columns: np.ndarray, statistic: Statistic) -> float:
    """Take the statistic of the sums over all utterances."""
    sums = columns.sum(axis=0)
    # A statistic takes rows of sums; here there is one.
    [value] = statistic(sums[None])
    return float(value)


def left_open(trials: int) -> float:
    """Give the share in % that may still go the other way when all ``trials`` went one way."""
    return 100.0 * (1.0 - TAIL ** (1.0 / trials))


def _open_difference(difference: float, share: float) -> tuple[float, float]:
    """Widen a difference that is the same in every utterance by the ``share`` % left open."""
    # No utterance differs: those left open may differ in either direction.
    if difference == 0.0:
        return -share, share

    # All utterances differ: those left open may do so the other way round.
    if math.isclose(difference, 100.0):
        return 100.0 - 2 * share, 100.0
    if math.isclose(difference, -100.0):
        return -100.0, 2 * share - 100.0
    return difference, difference


def resampled_sums(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sum R samples of U utterances, drawn with replacement from ``columns`` (U, C): (R, C)."""
    rng = np.random.default_rng(seed)
    count = len(columns)
    parts = []

    # As many samples at once as fit into the memory set aside.
    step = max(1, CELLS // count)
    for begin in range(0, resamples, step):
        rows = min(step, resamples - begin)
        drawn = rng.integers(0, count, (rows, count))

        # How often each utterance was drawn: numbers are shifted so that one count serves all rows.
        shifted = drawn + np.arange(rows)[:, None] * count
        times = np.bincount(shifted.ravel(), minlength=rows * count)

        # Repeating an utterance adds its columns that many times, which is a matrix product.
        weights = times.reshape(rows, count).astype(float)
        parts.append(weights @ columns)
    return np.concatenate(parts)


def _percentiles(draws: np.ndarray, value: float) -> tuple[float, float]:
    """Return the ends of the interval of the draws, widened where needed to hold the value."""
    with warnings.catch_warnings():
        # Where all draws are NaN, the interval is NaN as well.
        warnings.simplefilter("ignore", RuntimeWarning)
        ends = np.nanpercentile(draws, [2.5, 97.5])
    low, high = map(float, ends)
    return min(low, value), max(high, value)
