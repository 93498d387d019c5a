"""Word and character error rates by language: (S + D + I) ÷ reference tokens.

S, D and I are the substitutions, deletions and insertions of the best alignment. WER counts words
between spaces. CER counts characters in Chinese and Japanese, where each word of another script is
one token, as in WeNet. MER (mixed) does the same in code-switched utterances, and over all
languages of a list together. A missing answer counts as all deletions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from wenet_osum.records import Metric
from wenet_osum.score.align import count, loops
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, counts, one_class, share
from wenet_osum.score.normalize import CHARACTER_LANGUAGES, MIXED_LANGUAGES, language, prepare
from wenet_osum.tasks import Field

# Columns of the counts per utterance.
SUBSTITUTIONS, DELETIONS, INSERTIONS, WORDS, WRONG, LOOPS, LOOP_INSERTIONS = range(7)

LIKE_WER = {"lower_is_better": True, "counts": ("loops",), "faults": ("loops",)}
WER = Metric("wer", "WER", **LIKE_WER)
CER = Metric("cer", "CER", **LIKE_WER)
MER = Metric("mer", "MER", **LIKE_WER)


class Line(NamedTuple):
    """One scored utterance."""

    pair: Pair
    lang: str
    reference: str
    hypothesis: str
    columns: tuple[int, ...]

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return sum(self.columns[:WORDS])


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute a rate per language of the references, and one over all if there are several."""
    usual = _usual_language(field, pairs)
    lines = [_line(field, pair, options, usual) for pair in pairs]
    langs = sorted({line.lang for line in lines})
    found = []

    for lang in langs:
        own = [line for line in lines if line.lang == lang]
        found.append(_rate(field, own, lang, metric_of(lang), options))

    if len(langs) > 1:
        over_all = _rate(field, lines, "all", MER, options)
        over_all.detail["minor"] = True
        found.append(over_all)
    return found


def metric_of(lang: str) -> Metric:
    """Choose what is counted in a language: characters, words, or both where it mixes scripts."""
    if lang in MIXED_LANGUAGES:
        return MER
    return CER if lang in CHARACTER_LANGUAGES else WER


def _usual_language(field: Field, pairs: list[Pair]) -> str | None:
    """Return the language of most references, None where none tells one."""
    found: Counter = Counter()
    for pair in pairs:
        reference = field.spoken(pair.reference)
        if pair.reference.lang or reference:
            found[language(pair.reference.lang, reference)] += 1
    return max(found, key=found.__getitem__, default=None)


def _line(field: Field, pair: Pair, options: Options, usual: str | None) -> Line:
    """Align one utterance and count its errors.

    Silence whose language the list does not tell is in the ``usual`` one, whatever is answered.
    """
    # The words alone, without times and marks.
    reference = field.spoken(pair.reference)
    hypothesis = (pair.hypothesis.transcript or "") if pair.answered else ""
    lang = language(pair.reference.lang, reference or hypothesis)
    if usual and not reference and not pair.reference.lang:
        lang = usual
    expected = prepare(reference, lang, options.normalizer)
    answered = prepare(hypothesis, lang, options.normalizer)
    found = count(expected, answered)

    # The decoder flags its own loops; answers of other tools show them by their text.
    looped = False
    if pair.answered:
        flagged = "loop" in pair.hypothesis.flags
        looped = flagged or (loops(answered) and not loops(expected))

    columns = (
        found.substitutions,
        found.deletions,
        found.insertions,
        len(expected),
        found.errors > 0,
        looped,
        found.insertions if looped else 0,
    )
    return Line(pair, lang, reference, hypothesis, columns)


def _rate(
    field: Field, lines: list[Line], subset: str, metric: Metric, options: Options
) -> MetricSums:
    """Sum up the utterances of a subset."""
    rows = [line.columns for line in lines]
    columns = np.array(rows, dtype=float)
    sums = columns.sum(axis=0).astype(int)
    detail = {
        "normalizer": options.normalizer,
        "substitutions": int(sums[SUBSTITUTIONS]),
        "deletions": int(sums[DELETIONS]),
        "insertions": int(sums[INSERTIONS]),
        "correct": int(sums[WORDS] - sums[SUBSTITUTIONS] - sums[DELETIONS]),
        "wrong_utterances": int(sums[WRONG]),
        "loops": int(sums[LOOPS]),
        "loop_insertions": int(sums[LOOP_INSERTIONS]),
        **counts(field.name, [line.pair for line in lines]),
        "worst": _worst(lines, options.worst),
    }
    rate = share([SUBSTITUTIONS, DELETIONS, INSERTIONS], WORDS)
    # The errors in an utterance depend on one another, so an utterance is a single trial.
    strata = one_class(columns[:, WORDS] > 0)
    keys = [line.pair.reference.key for line in lines]
    return MetricSums(metric, columns, rate, int(sums[WORDS]), subset, strata, detail, keys)


def _worst(lines: list[Line], limit: int) -> list[dict[str, Any]]:
    """Return the utterances with the most errors, with both texts."""

    def rank(line: Line) -> tuple[int, int, str]:
        return -line.errors, line.columns[WORDS], line.pair.reference.key

    wrong = [line for line in lines if line.columns[WRONG]]
    rows = []
    for line in sorted(wrong, key=rank)[:limit]:
        row = {
            "key": line.pair.reference.key,
            "lang": line.lang,
            "ref": line.reference,
            "hyp": line.hypothesis,
            "note": describe(line.pair) or f"{line.errors} errors in {line.columns[WORDS]}",
        }
        rows.append(row)
    return rows


def describe(pair: Pair) -> str:
    """Say why there is no answer; empty when there is one."""
    if pair.hypothesis is None:
        return "missing"
    if pair.hypothesis.error is not None:
        return f"failed: {pair.hypothesis.error}"
    return ""
