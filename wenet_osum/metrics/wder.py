"""WDER of speaker turns: the share of recognized words that have the wrong speaker (Shafey et al.,
2019, arXiv 1907.05337).

(words substituted with the wrong speaker + right words with the wrong speaker) ÷ (substituted +
right words) of the alignment of the words alone. Deleted and inserted words do not count, so it
stands beside the error rate of the words. Speakers of answer and reference are matched one to one
in each utterance, so that as few words as possible are wrong (the Hungarian algorithm, of scipy); a
speaker without a match and words before the first mark are wrong.

An utterance of which no word was recognized, because there is no answer or none of its words is
aligned, counts with all its reference words as wrong: the definition leaves it out, and a system
that says nothing would be without fault.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from wenet_osum.metrics.error_rate import describe
from wenet_osum.records import Metric
from wenet_osum.score.align import align
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, counts, one_class, share
from wenet_osum.score.normalize import language, prepare
from wenet_osum.tasks import Field

# Columns of the counts per utterance.
WRONG, RECOGNIZED, OTHER_NUMBER, UNRECOGNIZED = range(4)

WDER = Metric(
    "wder",
    "WDER",
    lower_is_better=True,
    counts=("other_number_of_speakers", "nothing_recognized"),
    faults=("other_number_of_speakers", "nothing_recognized"),
)


class Said(NamedTuple):
    """The words of an utterance and the speaker of each; None before the first mark."""

    words: list[str]
    speakers: list[int | None]


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute one rate over all utterances."""
    rows = [_row(field, pair, options) for pair in pairs]
    columns = np.array(rows, dtype=float)
    sums = columns.sum(axis=0).astype(int)
    total = int(sums[RECOGNIZED])
    detail = {
        "facts": {"normalizer": options.normalizer},
        "wrong_speaker": int(sums[WRONG]),
        "other_number_of_speakers": int(sums[OTHER_NUMBER]),
        "nothing_recognized": int(sums[UNRECOGNIZED]),
        **counts(field.name, pairs),
        "worst": _worst(field, pairs, rows, options.worst),
    }
    # The words of an utterance depend on one another, so an utterance is a single trial.
    strata = one_class(columns[:, RECOGNIZED] > 0)
    keys = [pair.reference.key for pair in pairs]
    rate = share(WRONG, RECOGNIZED)
    return [MetricSums(WDER, columns, rate, total, strata=strata, detail=detail, keys=keys)]


def wrong_speakers(reference: Said, answer: Said) -> tuple[int, int]:
    """Return the recognized words with the wrong speaker under the best match of speakers, and all
    recognized words."""
    together: Counter[tuple[int | None, int | None]] = Counter()
    for i, j in align(reference.words, answer.words):
        if i is None or j is None:
            continue
        pair = (reference.speakers[i], answer.speakers[j])
        together[pair] += 1

    # Words of each speaker of the reference (rows) that each of the answer (columns) has said.
    ours = sorted({speaker for speaker, _ in together})
    theirs = sorted({speaker for _, speaker in together if speaker is not None})
    table = np.zeros((len(ours), len(theirs)), dtype=int)
    for (expected, answered), times in together.items():
        if answered is not None:
            table[ours.index(expected), theirs.index(answered)] = times

    matched = linear_sum_assignment(table, maximize=True)
    recognized = together.total()
    right = int(table[matched].sum())
    return recognized - right, recognized


def _row(field: Field, pair: Pair, options: Options) -> tuple[int, ...]:
    """Count one utterance."""
    marked = field.value(pair.reference)
    lang = language(pair.reference.lang, field.spoken(pair.reference))
    expected = _said(field, marked, lang, options)
    answered = _said(field, _answer(field, pair), lang, options)

    wrong, recognized = wrong_speakers(expected, answered)
    nothing = not recognized
    if nothing:
        wrong = recognized = len(expected.words)
    speakers = set(answered.speakers) - {None}
    differs = len(speakers) != len(set(expected.speakers))
    return wrong, recognized, differs, nothing


def _answer(field: Field, pair: Pair) -> str:
    """Return the answered turns; an answer without marks is its words alone."""
    if not pair.answered:
        return ""
    words = pair.hypothesis.transcript or ""
    return pair.hypothesis.texts.get(field.name, words)


def _said(field: Field, text: str, lang: str, options: Options) -> Said:
    """Cut marked turns into words with their speakers."""
    said = Said([], [])
    for turn in field.turns(text):
        words = prepare(turn.text, lang, options.normalizer)
        said.words.extend(words)
        said.speakers.extend([turn.speaker] * len(words))
    return said


def _worst(
    field: Field, pairs: list[Pair], rows: list[tuple[int, ...]], limit: int
) -> list[dict[str, Any]]:
    """Return the utterances with the most words of a wrong speaker."""

    def rank(index: int) -> tuple[int, str]:
        return -rows[index][WRONG], pairs[index].reference.key

    wrong = [index for index, row in enumerate(rows) if row[WRONG]]
    found = []
    for index in sorted(wrong, key=rank)[:limit]:
        pair, row = pairs[index], rows[index]
        note = f"{row[WRONG]} of {row[RECOGNIZED]} words have another speaker"
        entry = {
            "key": pair.reference.key,
            "ref": field.value(pair.reference),
            "hyp": _answer(field, pair),
            "note": describe(pair) or note,
        }
        found.append(entry)
    return found
