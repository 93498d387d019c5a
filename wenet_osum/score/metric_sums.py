"""The input and output of every metric: pairs of reference and answer, and sums over utterances.

A metric is a file in ``metrics/`` with one function, ``compute(field, pairs, options) ->
list[MetricSums]``. Each MetricSums names its ``records.Metric``, which says how its values are
called, counted and compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wenet_osum.records import Hypothesis, Metric, Utterance

if TYPE_CHECKING:
    from wenet_osum.score.judge import Judge

# Maps R rows of sums (R, C) to R values (R,), NaN where undefined.
Statistic = Callable[[np.ndarray], np.ndarray]

# Entries of the detail of every field's metrics, and those of them that count what went wrong.
COUNTS = ("missing", "failed", "unread", "extra", "left_out")
FAULTS = ("missing", "failed", "unread", "left_out")


class Pair(NamedTuple):
    """A reference with the answer to it; None when there is no answer, which counts as wrong."""

    reference: Utterance
    hypothesis: Hypothesis | None

    @property
    def answered(self) -> bool:
        """Whether there is an answer at all, right or wrong."""
        return self.hypothesis is not None and self.hypothesis.error is None


@dataclass(frozen=True)
class Options:
    """Settings of all metrics."""

    # spelling rules for transcripts and replies, a name of normalize.py
    normalizer: str = "none"
    # bootstrap draws
    resamples: int = 1000
    seed: int = 777
    # number of utterances kept in detail["worst"]
    worst: int = 20
    # training utterances for the text-only baseline
    train: Sequence[Utterance] = ()
    # asked about replies
    judge: Judge | None = None


@dataclass
class MetricSums:
    """A metric as a function of sums over utterances, which is what the bootstrap needs."""

    metric: Metric
    # (U, C): what each of U utterances adds to the C sums
    columns: np.ndarray
    statistic: Statistic
    # number of items that the value is a share or mean of: words, characters, utterances
    count: int
    subset: str = "all"
    # independent trials behind a share in % (bootstrap.py); 0 for a value that is no share
    trials: int = 0
    detail: dict[str, Any] = field(default_factory=dict)


def share(top: int | list[int], bottom: int, scale: float = 100.0) -> Statistic:
    """Make the statistic ``scale × Σ columns[top] ÷ column[bottom]`` of sums (R, C).

    Errors over nothing are 0 when there are none, else NaN.
    """
    tops = [top] if isinstance(top, int) else top

    def statistic(sums: np.ndarray) -> np.ndarray:
        total = sums[:, tops].sum(axis=1)
        return divide(scale * total, sums[:, bottom])

    return statistic


def divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide element by element; 0 ÷ 0 is 0, anything else over 0 is NaN."""
    top = np.asarray(top, dtype=float)
    bottom = np.asarray(bottom, dtype=float)
    top, bottom = np.broadcast_arrays(top, bottom)

    # The division leaves these values where there is nothing to divide by.
    quotient = np.where(top == 0, 0.0, np.nan)
    np.divide(top, bottom, out=quotient, where=bottom != 0)
    return quotient


def counts(name: str, pairs: list[Pair]) -> dict[str, Any]:
    """Count what a report says beside the values of the field ``name``.

    ``missing`` answers have no line, ``failed`` ones a line that says why there is no answer, and
    ``unread`` ones an answer in which the field could not be read. ``flags`` are the decoder's.
    """
    missing = failed = unread = 0
    flags: Counter[str] = Counter()
    for pair in pairs:
        if pair.hypothesis is None:
            missing += 1
        elif not pair.answered:
            failed += 1
        else:
            unread += name in pair.hypothesis.unread
            flags.update(pair.hypothesis.flags)
    return {
        "missing": missing,
        "failed": failed,
        "unread": unread,
        "flags": dict(sorted(flags.items())),
    }
