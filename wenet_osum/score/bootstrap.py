"""Bootstrap intervals and the paired test, both over utterances (Bisani and Ney, 2004, 10.1109/ICASSP.2004.1326009).

Resampling is seeded: the same scores give the same interval. Words of one utterance stay together, since their errors depend on
one another.

Resampling cannot widen what is the same in every utterance: with all of them right it would call
100 % certain. There the interval is exact (Clopper and Pearson, 1934, 10.1093/biomet/26.4.404): n right
trials of n leave a share of 1 − 0.025^(1/n) open, an utterance a trial.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

TAIL = 0.025  # probability beyond each end of an interval
CELLS = 2_000_000  # draws held in memory at once


class Estimate(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Figure of the first system minus that of the second, on the same utterances."""

    difference: float
    low: float
    high: float
    p_value: float  # two-sided; smallest possible value is 2 / (resamples + 1)
    utterances: int


def estimate(
    columns: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = 1000,
    seed: int = 777,
    trials: int = 0,
) -> Estimate:
    """Take the statistic of the sums of ``columns`` (U, C) with its interval; NaN without utterances.

    ``trials``, for shares in %: how many independent trials stand behind them (``MetricSums.trials``).
    """
    columns = np.asarray(columns, dtype=float)
    if not len(columns):
        return Estimate(*[float("nan")] * 3)
    value = float(statistic(columns.sum(axis=0)[None])[0])
    low, high = _percentiles(statistic(resampled_sums(columns, resamples, seed)), value)
    if trials and low == high:
        if math.isclose(value, 100.0):
            low = 100.0 - left_open(trials)
        elif value == 0.0:
            high = left_open(trials)
    return Estimate(value, low, high)


def paired(
    first: np.ndarray,
    second: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = 1000,
    seed: int = 777,
    trials: int = 0,
) -> Difference:
    """Test two systems by the paired bootstrap.

    Row i of both (U, C) arrays belongs to the same utterance; ``trials`` as in ``estimate``. Raises ValueError when shapes differ.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or not len(first):
        raise ValueError(f"paired test needs the same utterances for both systems, got {first.shape} and {second.shape}")
    width = first.shape[1]
    sums = resampled_sums(np.hstack([first, second]), resamples, seed)
    draws = statistic(sums[:, :width]) - statistic(sums[:, width:])
    difference = float(statistic(first.sum(axis=0)[None])[0] - statistic(second.sum(axis=0)[None])[0])
    smaller = min(np.sum(draws <= 0), np.sum(draws >= 0))
    p_value = min(1.0, 2 * (int(smaller) + 1) / (resamples + 1))
    low, high = _percentiles(draws, difference)
    if trials and low == high:
        low, high = _open_difference(difference, left_open(trials))
    return Difference(difference, low, high, p_value, len(first))


def left_open(trials: int) -> float:
    """Give the share in % that may still go the other way when all ``trials`` went one way."""
    return 100.0 * (1.0 - TAIL ** (1.0 / trials))


def _open_difference(difference: float, share: float) -> tuple[float, float]:
    """Widen a difference that is the same in every utterance by the ``share`` % that may be otherwise.

    Where no utterance differs, those may differ in either direction; where all differ, those may do
    so the other way round.
    """
    if difference == 0.0:
        return -share, share
    if math.isclose(difference, 100.0):
        return 100.0 - 2 * share, 100.0
    if math.isclose(difference, -100.0):
        return -100.0, 2 * share - 100.0
    return difference, difference


def resampled_sums(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums (R, C) of R samples of U utterances drawn with replacement from ``columns`` (U, C)."""
    rng = np.random.default_rng(seed)
    count = len(columns)
    step = max(1, CELLS // count)
    parts = []
    for begin in range(0, resamples, step):
        rows = min(step, resamples - begin)
        drawn = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)  # how often each utterance was drawn
        parts.append(times.astype(float) @ columns)
    return np.concatenate(parts)


def _percentiles(draws: np.ndarray, value: float) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all draws NaN: the interval is NaN as well
        low, high = np.nanpercentile(draws, [2.5, 97.5])
    return min(float(low), value), max(float(high), value)
