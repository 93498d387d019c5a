"""Words that a manifest names as hotwords: are they written where they are spoken, and only there?

Scored beside the transcript's own metric where a reference has ``hotwords``. An occurrence in the
reference is found when the answer has the word as often: over all utterances, with m the matched
occurrences, r those in the references and h those in the answers,

- ``hotword_recall`` m ÷ r, ``hotword_precision`` m ÷ h, ``hotword_f1`` 2m ÷ (r + h);
- ``hotword_leaks``: answers with a hotword that was not spoken at all ÷ answers. A model that
  copies its prompt leaks.

Case and punctuation do not matter; English words count as wholes, Chinese ones as substrings
(score/spoken.py). The answer of a model that was told nothing is scored with the same hotwords, so
that both can be compared. A missing answer finds nothing, and is no answer that could leak.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wenet_osum.context import HOTWORDS, context_of
from wenet_osum.records import Metric
from wenet_osum.score.metric_sums import (
    MetricSums,
    Options,
    Pair,
    Statistic,
    divide,
    one_class,
    share,
)
from wenet_osum.score.normalize import answer_tokens
from wenet_osum.score.spoken import both_sides, occurrences, told
from wenet_osum.tasks import Field

RECALL = Metric("hotword_recall", "hotword recall")
PRECISION = Metric("hotword_precision", "hotword precision")
F1 = Metric("hotword_f1", "hotword F1")
LEAKS = Metric(
    "hotword_leaks",
    "hotword leaks",
    lower_is_better=True,
    counts=("leaked_words",),
    faults=("leaked_words",),
)
# Columns of the counts per utterance.
MATCHED, SPOKEN, ANSWERED, LEAKING, ANSWERS, LEAKED = range(6)


def applies(field: Field, pairs: list[Pair]) -> bool:
    """Tell whether there is something to score: a transcript, and hotwords of some reference."""
    if field.kind != "transcript":
        return False
    return bool(told(pairs, HOTWORDS))


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute recall, precision and F1 where a hotword is spoken at all, and leaks."""
    named = told(pairs, HOTWORDS)
    rows = [_count(field, pair, options) for pair in named]
    columns = np.array(rows, dtype=float)
    keys = [pair.reference.key for pair in named]
    sums = columns.sum(axis=0).astype(int)

    def made(metric: Metric, statistic: Statistic, of: int) -> MetricSums:
        """Make one of the metrics, of which the utterances that have anything ``of`` are trials."""
        has_any = columns[:, of] > 0
        return MetricSums(
            metric,
            columns,
            statistic,
            int(sums[of]),
            strata=one_class(has_any),
            keys=keys,
        )

    found = []
    if sums[SPOKEN]:
        recall = share(MATCHED, SPOKEN)
        precision = share(MATCHED, ANSWERED)
        found.append(made(RECALL, recall, SPOKEN))
        found.append(made(PRECISION, precision, ANSWERED))
        found.append(made(F1, f1_of_counts, SPOKEN))
    leaking = share(LEAKING, ANSWERS)
    leaks = made(LEAKS, leaking, ANSWERS)
    leaks.detail["leaked_words"] = int(sums[LEAKED])
    return [*found, leaks]


def f1_of_counts(sums: np.ndarray) -> np.ndarray:
    """Turn summed counts (R, 6) into F1, in % (R,)."""
    spoken = sums[:, SPOKEN]
    answered = sums[:, ANSWERED]
    matched = sums[:, MATCHED]
    return divide(200.0 * matched, spoken + answered)


def _count(field: Field, pair: Pair, options: Options) -> tuple[int, ...]:
    """Count the hotwords of one utterance in both texts."""
    texts = both_sides(field, pair, options)
    matched = spoken = answered = leaked = 0
    for word in hotwords(pair, texts.tokens):
        expected = occurrences(word, texts.reference)
        found = occurrences(word, texts.hypothesis)
        spoken += expected
        answered += found
        matched += min(expected, found)
        if not expected:
            leaked += found
    is_leaking = leaked > 0
    return (
        matched,
        spoken,
        answered,
        is_leaking,
        pair.answered,
        leaked,
    )


def hotwords(
    pair: Pair, tokens_of: Callable[[str], list[str]] = answer_tokens
) -> list[tuple[str, ...]]:
    """Return the hotwords of a reference as tokens; spellings that differ in case are one."""
    context = context_of(pair.reference)
    found = {}
    for word in context.hotwords:
        tokens = tokens_of(word)
        if tokens:
            found[tuple(tokens)] = None
    return [*found]
