"""Word times. Words are paired by alignment first; then the times of paired words are compared.

Two words pair when the edit-distance alignment puts the same word (case and punctuation aside) on
both sides; Δ is hypothesis minus reference. Definitions:

- ``aas_ms``: mean of (|Δstart| + |Δend|) / 2 over paired words, the accumulated averaging shift of
  Shi et al. (2023, arXiv 2301.12343).
- ``aas_debiased_ms``: the same after the median of all Δ is taken off, for a constant offset
  between two aligners is no error of precision. Its interval holds that offset fixed.
- ``within_100ms`` (50, 200): share of the boundaries (start and end counted singly) of paired words
  with |Δ| ≤ collar.
- ``within_100ms_all``: the same over the boundaries of all reference words; an unpaired word has
  two wrong ones.
- ``word_f1_100ms``: a word is right when it is paired and both its boundaries lie within the
  collar; F1 = 2 right ÷ (reference + hypothesis words).
- ``coverage``: paired ÷ reference words.

A missing answer pairs no word. Its words count in the denominators of all but the first three.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from wenet_osum.metrics import error_rate
from wenet_osum.records import Metric, Utterance, Word
from wenet_osum.score.align import align
from wenet_osum.score.metric_sums import (
    MetricSums,
    Options,
    Pair,
    Statistic,
    counts,
    one_class,
    share,
)
from wenet_osum.score.normalize import fold, language
from wenet_osum.tasks import Field

COLLARS_MS = (50, 100, 200)
# In binary, 1.1 s − 1.0 s is a little more than 100 ms.
SLACK_MS = 1e-3
# How far after the end of the audio a time may lie: two frames of rounding.
EDGE_S = 0.02

# Columns of the sums per utterance. For each collar follow the boundaries within it, then the
# words with both boundaries within it.
REFERENCE, HYPOTHESIS, PAIRED, SHIFT, DEBIASED = range(5)
BOUNDARIES = 5
RIGHT = BOUNDARIES + len(COLLARS_MS)

# Faults of an answer's own times.
ODD = ("order_violations", "overlaps", "outside_audio")
MS = {"unit": "ms", "lower_is_better": True, "decimals": 1, "scale": None}
AAS = Metric("aas_ms", "AAS", **MS, counts=ODD, faults=("order_violations", "outside_audio"))
AAS_DEBIASED = Metric("aas_debiased_ms", "AAS, median offset removed", **MS)
COVERAGE = Metric("coverage", "word coverage")
# The others are minor in reports.
MAIN = ("aas_ms", "within_100ms", "within_100ms_all", "word_f1_100ms")


@dataclass
class Line:
    """One scored utterance: times of its paired words and what is wrong with the answer's times."""

    pair: Pair
    lang: str
    # number of hypothesis words
    words: int
    # (paired words, 2): Δstart and Δend
    delta_ms: np.ndarray
    faults: dict[str, int]


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute error rates of the words, then metrics of their times.

    The times are measured per language, and over all languages when there are several.
    """
    found = error_rate.compute(field, pairs, options)
    lines = [_line(pair) for pair in pairs]
    langs = sorted({line.lang for line in lines})
    if len(langs) == 1:
        # The only language is the whole.
        return found + _subset(lines, langs[0], True, options)

    for lang in langs:
        own = [line for line in lines if line.lang == lang]
        found += _subset(own, lang, False, options)
    found += _subset(lines, "all", True, options)
    return found


def pair_words(reference: list[Word], hypothesis: list[Word]) -> list[tuple[int, int]]:
    """Return the positions (reference, hypothesis) of the words that pair."""
    ref = [fold(word.text) for word in reference]
    hyp = [fold(word.text) for word in hypothesis]
    paired = []
    for i, j in align(ref, hyp):
        if i is None or j is None:
            continue
        # Substituted words stand at the same position of the alignment but do not pair.
        if ref[i] == hyp[j]:
            paired.append((i, j))
    return paired


def time_faults(words: list[Word], duration: float | None) -> dict[str, int]:
    """Count the faults of an answer's own times.

    An order violation is an end before its start or a start before the last one. An overlap is a
    start before the last end. A word is outside when it leaves the audio of ``duration`` s; of
    unknown length (None) no word does.
    """
    faults = dict.fromkeys(ODD, 0)
    for word in words:
        faults["order_violations"] += word.end < word.start
        if duration:
            latest = max(word.start, word.end)
            faults["outside_audio"] += latest > duration + EDGE_S

    for word, following in pairwise(words):
        faults["order_violations"] += following.start < word.start
        faults["overlaps"] += following.start < word.end
    return faults


def duration_of(utterance: Utterance) -> float | None:
    """Return the length of the recording or segment in s, None where the list does not say."""
    if utterance.duration:
        return utterance.duration
    if utterance.end is None:
        return None
    return utterance.end - (utterance.start or 0.0)


def _line(pair: Pair) -> Line:
    """Pair the words of one utterance and measure how far their times lie apart."""
    reference = pair.reference.words
    words = (pair.hypothesis.words or []) if pair.answered else []
    shifts = []
    for i, j in pair_words(reference, words):
        start = words[j].start - reference[i].start
        end = words[j].end - reference[i].end
        shifts.append([start, end])
    delta_ms = 1000.0 * np.array(shifts, dtype=float).reshape(-1, 2)

    # The decoder knows the length of the audio where the list does not say it.
    duration = duration_of(pair.reference)
    if not duration and pair.answered:
        duration = pair.hypothesis.duration

    faults = time_faults(words, duration)
    text = "".join(word.text for word in reference)
    lang = language(pair.reference.lang, text)
    return Line(pair, lang, len(words), delta_ms, faults)


def _columns(lines: list[Line], offset_ms: float) -> np.ndarray:
    """Return what each utterance adds to the sums: (U, RIGHT + collars)."""
    columns = np.zeros((len(lines), RIGHT + len(COLLARS_MS)))
    for row, line in zip(columns, lines, strict=True):
        row[REFERENCE] = len(line.pair.reference.words)
        row[HYPOTHESIS] = line.words
        row[PAIRED] = len(line.delta_ms)

        # The shift of a word is the mean over its start and end.
        delta = np.abs(line.delta_ms)
        row[SHIFT] = delta.mean(axis=1).sum()
        debiased = np.abs(line.delta_ms - offset_ms)
        row[DEBIASED] = debiased.mean(axis=1).sum()

        for index, collar in enumerate(COLLARS_MS):
            # A word is right when both its boundaries are.
            inside = delta <= collar + SLACK_MS
            row[BOUNDARIES + index] = inside.sum()
            row[RIGHT + index] = inside.all(axis=1).sum()
    return columns


def _subset(lines: list[Line], subset: str, whole: bool, options: Options) -> list[MetricSums]:
    """Compute the metrics of a subset; ``whole`` says that it holds all utterances."""
    # The median offset of two aligners is taken over all boundaries of the subset.
    deltas = np.concatenate([line.delta_ms.ravel() for line in lines])
    offset = float(np.median(deltas)) if len(deltas) else 0.0
    columns = _columns(lines, offset)
    sums = columns.sum(axis=0)

    reference = int(sums[REFERENCE])
    paired = int(sums[PAIRED])
    keys = [line.pair.reference.key for line in lines]
    found = []
    for metric, statistic, count in _statistics(reference, paired):
        minor = not whole or metric.name not in MAIN
        one = MetricSums(
            metric,
            columns,
            statistic,
            count,
            subset,
            _strata(metric, columns),
            {"minor": minor},
            keys,
        )
        found.append(one)
    found[0].detail |= _detail(lines, sums, offset, options)
    return found


def _strata(metric: Metric, columns: np.ndarray) -> np.ndarray | None:
    """Tell which utterances are trials of a metric: those that have words to measure.

    The words of an utterance depend on one another. A mean in ms is no share of trials: None.
    """
    if metric.unit == "ms":
        return None
    of_all = not metric.name.startswith("within_") or metric.name.endswith("_all")
    words = REFERENCE if of_all else PAIRED
    return one_class(columns[:, words] > 0)


def _statistics(reference: int, paired: int) -> list[tuple[Metric, Statistic, int]]:
    """List all metrics of times with their statistic and what they are a share or mean of.

    ``reference`` and ``paired`` are numbers of words.
    """
    mean_shift = _undefined_when_empty(SHIFT, PAIRED, 1.0)
    mean_debiased = _undefined_when_empty(DEBIASED, PAIRED, 1.0)
    table = [
        (AAS, mean_shift, paired),
        (AAS_DEBIASED, mean_debiased, paired),
        (COVERAGE, share(PAIRED, REFERENCE), reference),
    ]
    for index, collar in enumerate(COLLARS_MS):
        within, within_all, word_f1 = collar_metrics(collar)

        # A word has two boundaries, so that 100 % of its words are 50 % of its boundaries.
        of_paired = _undefined_when_empty(BOUNDARIES + index, PAIRED, 50.0)
        of_all = share(BOUNDARIES + index, REFERENCE, 50.0)
        table.append((within, of_paired, 2 * paired))
        table.append((within_all, of_all, 2 * reference))
        table.append((word_f1, _f1(RIGHT + index), reference))
    return table


def _undefined_when_empty(top: int, bottom: int, scale: float) -> Statistic:
    """Make a mean over paired words undefined without any; 0 would be the best possible value."""
    ratio = share(top, bottom, scale)

    def statistic(sums: np.ndarray) -> np.ndarray:
        defined = sums[:, bottom] > 0
        return np.where(defined, ratio(sums), np.nan)

    return statistic


def collar_metrics(collar: int) -> tuple[Metric, Metric, Metric]:
    """Name the three metrics that allow times to be ``collar`` ms off."""
    title = f"boundaries within {collar} ms"
    name = f"within_{collar}ms"
    return (
        Metric(name, title),
        Metric(f"{name}_all", f"{title}, of all words"),
        Metric(f"word_f1_{collar}ms", f"word F1 at {collar} ms"),
    )


def _f1(right: int) -> Statistic:
    """Make the F1 in % of the words whose number stands in column ``right``."""
    ratio = share(0, 1, 200.0)

    def statistic(sums: np.ndarray) -> np.ndarray:
        words = sums[:, REFERENCE] + sums[:, HYPOTHESIS]
        both = np.stack([sums[:, right], words], axis=1)
        return ratio(both)

    return statistic


def _detail(lines: list[Line], sums: np.ndarray, offset: float, options: Options) -> dict[str, Any]:
    """Collect what a report shows beside the times."""
    faults = dict.fromkeys(ODD, 0)
    for line in lines:
        for name in ODD:
            faults[name] += line.faults[name]
    return {
        "median_offset_ms": round(offset, 3),
        "reference_words": int(sums[REFERENCE]),
        "hypothesis_words": int(sums[HYPOTHESIS]),
        "paired_words": int(sums[PAIRED]),
        **faults,
        **counts("words", [line.pair for line in lines]),
        "worst": _worst(lines, options.worst),
    }


def _worst(lines: list[Line], limit: int) -> list[dict[str, Any]]:
    """Return the answers with the largest mean shift; words stand with their times."""
    ranked = []
    for line in lines:
        if not len(line.delta_ms):
            continue
        shift = float(np.abs(line.delta_ms).mean())
        if shift > 0:
            ranked.append((shift, line))
    ranked.sort(key=lambda item: (-item[0], item[1].pair.reference.key))

    rows = []
    for shift, line in ranked[:limit]:
        row = {
            "key": line.pair.reference.key,
            # A word and its times are compared as one unit.
            "lang": "whole",
            "ref": written(line.pair.reference.words),
            "hyp": written(line.pair.hypothesis.words),
            "note": f"mean shift {shift:.0f} ms",
        }
        rows.append(row)
    return rows


def written(words: list[Word]) -> str:
    """Write words with their times for people: ``0.52 word 0.94``."""
    pieces = []
    for word in words:
        pieces.append(f"{word.start:.2f} {word.text} {word.end:.2f}")
    return " ".join(pieces)
