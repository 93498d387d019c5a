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
    wrong, recognized, other_number, nothing = sums.tolist()
    detail = {
        "facts": {"normalizer": options.normalizer},
        "wrong_speaker": wrong,
        "other_number_of_speakers": other_number,
        "nothing_recognized": nothing,
        **counts(field.name, pairs),
        "worst": _worst(field, pairs, rows, options.worst),
    }
    # The words of an utterance depend on one another, so an utterance is a single trial.
    trials = columns[:, RECOGNIZED] > 0
    rate = MetricSums(
        WDER,
        columns,
        share(WRONG, RECOGNIZED),
        recognized,
        strata=one_class(trials),
        detail=detail,
        keys=[pair.reference.key for pair in pairs],
    )
    return [rate]


def wrong_speakers(reference: Said, answer: Said) -> tuple[int, int]:
    """Return the recognized words with the wrong speaker under the best match of speakers, and all
    recognized words."""
    together: Counter[tuple[int | None, int | None]] = Counter()
    for i, j in align(reference.words, answer.words):
        if i is None or j is None:
            continue
        expected = reference.speakers[i]
        answered = answer.speakers[j]
        together[expected, answered] += 1

    # Number the speakers on both sides; words before the first mark have none.
    ours: dict[int | None, int] = {}
    theirs: dict[int | None, int] = {}
    for expected, answered in together:
        ours.setdefault(expected, len(ours))
        if answered is not None:
            theirs.setdefault(answered, len(theirs))

    # Words of each speaker of the reference (rows) that each of the answer (columns) has said.
    table = np.zeros((len(ours), len(theirs)), dtype=int)
    for (expected, answered), times in together.items():
        if answered is None:
            continue
        row = ours[expected]
        column = theirs[answered]
        table[row, column] = times

    matched = linear_sum_assignment(table, maximize=True)
    right = int(table[matched].sum())
    recognized = together.total()
    return recognized - right, recognized


def _row(field: Field, pair: Pair, options: Options) -> tuple[int, ...]:
    """Count one utterance."""
    marked = field.value(pair.reference)
    spoken = field.spoken(pair.reference)
    lang = language(pair.reference.lang, spoken)
    expected = _said(field, marked, lang, options)
    answer = _answer(field, pair)
    answered = _said(field, answer, lang, options)

    wrong, recognized = wrong_speakers(expected, answered)
    nothing = not recognized
    if nothing:
        wrong = recognized = len(expected.words)

    # Words before the first mark belong to nobody.
    of_reference = set(expected.speakers)
    of_answer = set(answered.speakers)
    of_answer.discard(None)
    differs = len(of_answer) != len(of_reference)
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
    for speaker, piece in field.turns(text):
        words = prepare(piece, lang, options.normalizer)
        speakers = [speaker] * len(words)
        said.words.extend(words)
        said.speakers.extend(speakers)
    return said


def _worst(
    field: Field, pairs: list[Pair], rows: list[tuple[int, ...]], limit: int
) -> list[dict[str, Any]]:
    """Return the utterances with the most words of a wrong speaker."""
    ranked = []
    for pair, counted in zip(pairs, rows, strict=True):
        wrong, recognized, *_ = counted
        if not wrong:
            continue
        note = f"{wrong} of {recognized} words have another speaker"
        row = {
            "key": pair.reference.key,
            "ref": field.value(pair.reference),
            "hyp": _answer(field, pair),
            "note": describe(pair) or note,
        }
        ranked.append((-wrong, row["key"], row))
    ranked.sort(key=lambda entry: entry[:2])
    return [row for _, _, row in ranked[:limit]]
