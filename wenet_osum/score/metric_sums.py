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
    # (U,): the class that each row is a trial of, below 0 where it is no trial; None: the value is
    # no share in %, so that it has no exact interval (bootstrap.py)
    strata: np.ndarray | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    # (U,): the utterance of each row; None: one row per pair, in their order
    keys: Sequence[str] | None = None

    def trials(self, clusters: np.ndarray) -> int:
        """Count the independent trials behind the value; 0 where it is no share.

        ``clusters`` (U,) numbers what is drawn together. A cluster is one trial however many rows
        it has, for its answers may all depend on one another. Classes count alike in a mean over
        classes, so the class with the fewest clusters decides how sure it is.
        """
        if self.strata is None or not np.any(self.strata >= 0):
            return 0
        sizes = []
        for stratum in np.unique(self.strata[self.strata >= 0]):
            of_class = np.unique(clusters[self.strata == stratum])
            sizes.append(len(of_class))

        # A speaker with utterances of several classes is still one trial.
        of_all = np.unique(clusters[self.strata >= 0])
        return min(len(of_all), len(sizes) * min(sizes))


def one_class(trials: np.ndarray) -> np.ndarray:
    """Make the strata (U,) of a share over all rows, of which those in ``trials`` (U,) count."""
    return np.where(trials, 0, -1)


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
