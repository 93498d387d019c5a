"""The text before: is any of it written again though nobody says it again?

Scored beside the transcript's own metric where a reference has ``previous``. ``previous_leaks`` is
the share of answers that have three tokens in a row (English words, Chinese characters) which the
text before has too and the reference has not. A single word is no leak: it may as well be misheard.

Case and punctuation do not matter. The answer of a model that was told nothing is scored in the
same way, so that both can be compared. A missing answer is none that could leak.
"""

from __future__ import annotations

import numpy as np

from wenet_osum.context import PREVIOUS, context_of
from wenet_osum.records import Metric
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, one_class, share
from wenet_osum.score.spoken import both_sides, runs, told
from wenet_osum.tasks import Field

LEAKS = Metric(
    "previous_leaks",
    "leaks of the text before",
    lower_is_better=True,
    counts=("leaked_runs",),
    faults=("leaked_runs",),
)
RUN = 3  # tokens in a row
# Columns of the counts per utterance.
LEAKING, ANSWERS, LEAKED = range(3)


def applies(field: Field, pairs: list[Pair]) -> bool:
    """Tell whether there is something to score: a transcript, and the text before some of them."""
    if field.kind != "transcript":
        return False
    return bool(told(pairs, PREVIOUS))


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute the share of answers that leak."""
    followed = told(pairs, PREVIOUS)
    rows = [_count(field, pair, options) for pair in followed]
    columns = np.array(rows, dtype=float)
    sums = columns.sum(axis=0).astype(int)
    is_answered = columns[:, ANSWERS] > 0
    keys = [pair.reference.key for pair in followed]
    leaking = share(LEAKING, ANSWERS)
    leaks = MetricSums(
        LEAKS,
        columns,
        leaking,
        int(sums[ANSWERS]),
        strata=one_class(is_answered),
        keys=keys,
    )
    leaks.detail["leaked_runs"] = int(sums[LEAKED])
    return [leaks]


def _count(field: Field, pair: Pair, options: Options) -> tuple[int, ...]:
    """Count the runs of the text before that one answer has and nobody says."""
    texts = both_sides(field, pair, options)
    context = context_of(pair.reference)
    before = texts.tokens(context.previous)
    again = runs(texts.hypothesis, RUN) & runs(before, RUN)
    spoken = runs(texts.reference, RUN)
    leaked = again - spoken
    count = len(leaked)
    return count > 0, pair.answered, count
