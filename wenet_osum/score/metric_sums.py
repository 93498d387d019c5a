"""What every metric takes and gives: pairs of reference and hypothesis in, figures made of per-utterance sums out.

A metric is a file in ``metrics/`` with one function, ``compute(field, pairs, options) -> list[MetricSums]``. Each Figure
names its ``records.Metric``, which says how its values are called, counted and compared.
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


COUNTS = ("missing", "failed", "unread", "extra", "left_out")  # entries of every figure's detail
FAULTS = ("missing", "failed", "unread", "left_out")  # those of them that count what went wrong


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
    """How figures are made."""

    normalizer: str = "none"  # spelling rules for transcripts and replies, a name of normalize.py
    resamples: int = 1000  # bootstrap draws
    seed: int = 777
    worst: int = 20  # utterances kept in detail["worst"]
    train: Sequence[Utterance] = ()  # training utterances for the text-only baseline
    judge: Judge | None = None  # asked about replies


@dataclass
class MetricSums:
    """A number that is a function of sums over utterances, which is what the bootstrap needs."""

    metric: Metric
    columns: np.ndarray  # (U, C): what each of U utterances adds to the C sums
    statistic: Callable[[np.ndarray], np.ndarray]  # (R, C) sums → (R,) values, NaN where undefined
    count: int  # what the figure is a share of: words, characters, utterances
    subset: str = "all"
    trials: int = 0  # independent trials behind a share in % (bootstrap.py); 0: no share, e.g. ms
    detail: dict[str, Any] = field(default_factory=dict)


def share(top: int | list[int], bottom: int, scale: float = 100.0) -> Callable[[np.ndarray], np.ndarray]:
    """The statistic ``scale × Σ columns[top] ÷ column[bottom]``; errors over nothing are 0 when there are none, else NaN."""
    tops = [top] if isinstance(top, int) else top
    return lambda sums: divide(scale * sums[:, tops].sum(axis=1), sums[:, bottom])


def divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Element-wise quotient; 0 ÷ 0 is 0, anything else over 0 is NaN."""
    top, bottom = np.broadcast_arrays(np.asarray(top, dtype=float), np.asarray(bottom, dtype=float))
    empty = np.where(top == 0, 0.0, np.nan)
    return np.divide(top, bottom, out=empty.copy(), where=bottom != 0)


def counts(name: str, pairs: list[Pair]) -> dict[str, Any]:
    """What every report of a field says beside its figure: missing, failed and unread answers, and the flags of the decoder."""
    given = [p.hypothesis for p in pairs if p.answered]
    flags = Counter(flag for h in given for flag in h.flags)
    return {
        "missing": sum(p.hypothesis is None for p in pairs),  # no line for this key
        "failed": sum(p.hypothesis is not None and p.hypothesis.error is not None for p in pairs),  # a line that says why there is no answer
        "unread": sum(name in h.unread for h in given),
        "flags": dict(sorted(flags.items())),
    }
