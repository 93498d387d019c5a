"""Word times. Words are paired by alignment first; then the times of paired words are compared.

Two words pair when the edit-distance alignment puts the same word (case and punctuation aside) at both places; Δ is hypothesis minus
reference. Definitions:

- ``aas_ms``: mean of (|Δstart| + |Δend|) / 2 over paired words, the accumulated averaging shift of Shi et al. (2023, arXiv 2301.12343).
- ``aas_debiased_ms``: the same after the median of all Δ is taken off: a constant offset between two aligners is no error of precision.
  Its interval holds that offset fixed.
- ``within_100ms`` (50, 200): share of the boundaries (start and end counted singly) of paired words with |Δ| ≤ collar.
- ``within_100ms_all``: the same over the boundaries of all reference words; an unpaired word has two wrong ones.
- ``word_f1_100ms``: a word is right when it is paired and both its boundaries lie within the collar; F1 = 2 right ÷ (reference +
  hypothesis words).
- ``coverage``: paired ÷ reference words.

A missing answer pairs no word. Its words count in the denominators of all but the first three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wenet_osum.metrics import error_rate
from wenet_osum.records import Metric, Utterance, Word
from wenet_osum.score.align import align
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, counts, share
from wenet_osum.score.normalize import fold, language
from wenet_osum.tasks import Field

COLLARS_MS = (50, 100, 200)
SLACK_MS = 1e-3  # 1.1 s − 1.0 s is a little more than 100 ms in binary
EDGE_S = 0.02  # how far after the end of the audio a time may lie: two frames of rounding
REFERENCE, HYPOTHESIS, PAIRED, SHIFT, DEBIASED = range(5)  # columns of an utterance; boundaries and right words follow, a collar each
BOUNDARIES, RIGHT = 5, 5 + len(COLLARS_MS)
ODD = ("order_violations", "overlaps", "outside_audio")  # faults of an answer's own times
MS = {"unit": "ms", "lower_is_better": True, "decimals": 1, "scale": None}
AAS = Metric("aas_ms", "AAS", **MS, counts=ODD, faults=("order_violations", "outside_audio"))
AAS_DEBIASED = Metric("aas_debiased_ms", "AAS, median offset removed", **MS)
COVERAGE = Metric("coverage", "word coverage")
MAIN = ("aas_ms", "within_100ms", "within_100ms_all", "word_f1_100ms")  # others are minor in reports


@dataclass
class Line:
    """One scored utterance: times of its paired words and what is wrong with the answer's own times."""

    pair: Pair
    lang: str
    words: int  # hypothesis words
    delta_ms: np.ndarray  # (paired, 2): Δstart, Δend
    faults: dict[str, int]


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Error rates of the words, then time figures per language and over all languages when there are several."""
    lines = [_line(pair) for pair in pairs]
    langs = sorted({line.lang for line in lines})
    found = error_rate.compute(field, pairs, options)
    for subset in [*langs, "all"] if len(langs) > 1 else langs:
        whole = subset == "all" or len(langs) == 1
        found += _subset([line for line in lines if subset in (line.lang, "all")], subset, whole, options)
    return found


def pair_words(reference: list[Word], hypothesis: list[Word]) -> list[tuple[int, int]]:
    """Positions of the words that pair."""
    ref, hyp = [fold(w.text) for w in reference], [fold(w.text) for w in hypothesis]
    return [(i, j) for i, j in align(ref, hyp) if i is not None and j is not None and ref[i] == hyp[j]]


def time_faults(words: list[Word], duration: float | None) -> dict[str, int]:
    """Order violations (an end before its start, a start before the last one), and words that leave the audio (unknown length: 0)."""
    order = sum(w.end < w.start for w in words) + sum(b.start < a.start for a, b in zip(words, words[1:], strict=False))
    outside = sum(max(w.start, w.end) > duration + EDGE_S for w in words) if duration else 0
    overlaps = sum(b.start < a.end for a, b in zip(words, words[1:], strict=False))
    return {"order_violations": order, "overlaps": overlaps, "outside_audio": outside}


def duration_of(utterance: Utterance) -> float | None:
    """Length of the recording or segment, s, where the list tells."""
    if utterance.duration:
        return utterance.duration
    return utterance.end - (utterance.start or 0.0) if utterance.end is not None else None


def _line(pair: Pair) -> Line:
    reference = pair.reference.words
    words = (pair.hypothesis.words or []) if pair.answered else []
    paired = pair_words(reference, words)
    delta = [[words[j].start - reference[i].start, words[j].end - reference[i].end] for i, j in paired]
    duration = duration_of(pair.reference) or (pair.hypothesis.duration if pair.answered else None)
    lang = language(pair.reference.lang, "".join(w.text for w in reference))
    return Line(pair, lang, len(words), 1000.0 * np.array(delta, dtype=float).reshape(-1, 2), time_faults(words, duration))


def _columns(lines: list[Line], offset_ms: float) -> np.ndarray:
    rows = []
    for line in lines:
        delta = np.abs(line.delta_ms)
        inside = [delta <= collar + SLACK_MS for collar in COLLARS_MS]
        row = [len(line.pair.reference.words), line.words, len(delta), delta.mean(axis=1).sum() if len(delta) else 0.0]
        row += [np.abs(line.delta_ms - offset_ms).mean(axis=1).sum() if len(delta) else 0.0]
        rows.append([*row, *(x.sum() for x in inside), *(x.all(axis=1).sum() for x in inside)])
    return np.array(rows, dtype=float).reshape(len(lines), RIGHT + len(COLLARS_MS))


def _undefined_when_empty(top: int, bottom: int, scale: float) -> Any:
    """A mean over paired words does not exist without any; 0 would be the best possible value."""
    ratio = share(top, bottom, scale)
    return lambda sums: np.where(sums[:, bottom] > 0, ratio(sums), np.nan)


def _subset(lines: list[Line], subset: str, whole: bool, options: Options) -> list[MetricSums]:
    deltas = np.concatenate([line.delta_ms.ravel() for line in lines])
    offset = float(np.median(deltas)) if len(deltas) else 0.0
    columns = _columns(lines, offset)
    sums = columns.sum(axis=0)
    reference, paired = int(sums[REFERENCE]), int(sums[PAIRED])
    table = [
        (AAS, _undefined_when_empty(SHIFT, PAIRED, 1.0), paired),
        (AAS_DEBIASED, _undefined_when_empty(DEBIASED, PAIRED, 1.0), paired),
        (COVERAGE, share(PAIRED, REFERENCE), reference),
    ]
    for i, collar in enumerate(COLLARS_MS):
        within, within_all, word_f1 = collar_metrics(collar)
        # A word has two boundaries.
        table.append((within, _undefined_when_empty(BOUNDARIES + i, PAIRED, 50.0), 2 * paired))
        table.append((within_all, share(BOUNDARIES + i, REFERENCE, 50.0), 2 * reference))
        table.append((word_f1, _f1(RIGHT + i), reference))
    found = []
    for metric, statistic, count in table:
        of_paired = metric.name.startswith("within_") and not metric.name.endswith("_all")
        told = np.count_nonzero(columns[:, PAIRED if of_paired else REFERENCE])
        trials = 0 if metric.unit == "ms" else int(told)
        minor = not whole or metric.name not in MAIN
        found.append(MetricSums(metric, columns, statistic, count, subset, trials, {"minor": minor}))
    found[0].detail |= _detail(lines, sums, offset, options)
    return found


def collar_metrics(collar: int) -> tuple[Metric, Metric, Metric]:
    """Name the three metrics that allow times to be ``collar`` ms off."""
    title = f"boundaries within {collar} ms"
    return (
        Metric(f"within_{collar}ms", title),
        Metric(f"within_{collar}ms_all", f"{title}, of all words"),
        Metric(f"word_f1_{collar}ms", f"word F1 at {collar} ms"),
    )


def _f1(right: int) -> Any:
    def statistic(sums: np.ndarray) -> np.ndarray:
        return share(0, 1, 200.0)(np.stack([sums[:, right], sums[:, REFERENCE] + sums[:, HYPOTHESIS]], axis=1))

    return statistic


def _detail(lines: list[Line], sums: np.ndarray, offset: float, options: Options) -> dict[str, Any]:
    faults = {name: sum(line.faults[name] for line in lines) for name in ODD}
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
    """The answers with the largest mean shift; words with their times side by side."""
    shifts = [(float(np.abs(line.delta_ms).mean()), line) for line in lines if len(line.delta_ms)]
    shifts.sort(key=lambda item: (-item[0], item[1].pair.reference.key))
    return [
        {
            "key": line.pair.reference.key,
            "lang": "whole",  # a word and its times are one unit
            "ref": written(line.pair.reference.words),
            "hyp": written(line.pair.hypothesis.words),
            "note": f"mean shift {shift:.0f} ms",
        }
        for shift, line in shifts[:limit]
        if shift > 0
    ]


def written(words: list[Word]) -> str:
    """Words with their times, for people: ``0.52 word 0.94``."""
    return " ".join(f"{w.start:.2f} {w.text} {w.end:.2f}" for w in words)
