"""Word and character error rates: (substitutions + deletions + insertions) ÷ reference tokens, by language.

WER counts words between spaces. CER counts characters in Chinese and Japanese, words of other scripts in them as one token each, as
WeNet does. MER (mixed) does the same in code-switched utterances, and over all languages of a list together. A missing answer
is all deletions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from wenet_osum.records import Metric
from wenet_osum.score.align import count, loops
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, counts, share
from wenet_osum.score.normalize import CHARACTER_LANGUAGES, MIXED_LANGUAGES, language, prepare
from wenet_osum.tasks import Field
from wenet_osum.tasks.base import join_words

SUBSTITUTIONS, DELETIONS, INSERTIONS, WORDS, WRONG, LOOPS, LOOP_INSERTIONS = range(7)  # columns of an utterance

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


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """A figure per language of the references, and one over all when there are several."""
    lines = [_line(field, pair, options) for pair in pairs]
    langs = sorted({line.lang for line in lines})
    found = [_figure(field, [line for line in lines if line.lang == lang], lang, metric_of(lang), options) for lang in langs]
    if len(langs) > 1:
        found.append(_figure(field, lines, "all", MER, options))
        found[-1].detail["minor"] = True
    return found


def metric_of(lang: str) -> Metric:
    """Choose what is counted in a language: characters, words, or both where it mixes scripts."""
    if lang in MIXED_LANGUAGES:
        return MER
    return CER if lang in CHARACTER_LANGUAGES else WER


def reference_text(field: Field, pair: Pair) -> str:
    """The reference transcript of a field: its words where it has times, else the text."""
    if field.attribute == "words":
        return join_words([w.text for w in pair.reference.words])
    return str(getattr(pair.reference, field.attribute))


def _line(field: Field, pair: Pair, options: Options) -> Line:
    reference = reference_text(field, pair)
    hypothesis = (pair.hypothesis.transcript or "") if pair.answered else ""
    lang = language(pair.reference.lang, reference)
    ref, hyp = prepare(reference, lang, options.normalizer), prepare(hypothesis, lang, options.normalizer)
    found = count(ref, hyp)
    looped = pair.answered and ("loop" in pair.hypothesis.flags or (loops(hyp) and not loops(ref)))
    columns = (
        found.substitutions, found.deletions, found.insertions, len(ref), found.errors > 0, looped, found.insertions if looped else 0
    )  # fmt: skip
    return Line(pair, lang, reference, hypothesis, columns)


def _figure(field: Field, lines: list[Line], subset: str, metric: Metric, options: Options) -> MetricSums:
    columns = np.array([line.columns for line in lines], dtype=float).reshape(len(lines), 7)
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
    # An utterance stands or falls as a whole: its words depend on one another.
    trials = int(np.count_nonzero(columns[:, WORDS]))
    return MetricSums(metric, columns, rate, int(sums[WORDS]), subset, trials, detail)


def _worst(lines: list[Line], limit: int) -> list[dict[str, Any]]:
    """The utterances with the most errors, with both texts."""
    wrong = [line for line in lines if line.columns[WRONG]]
    wrong.sort(key=lambda line: (-sum(line.columns[:WORDS]), line.columns[WORDS], line.pair.reference.key))
    return [
        {
            "key": line.pair.reference.key,
            "lang": line.lang,
            "ref": line.reference,
            "hyp": line.hypothesis,
            "note": describe(line.pair) or f"{sum(line.columns[:WORDS])} errors in {line.columns[WORDS]}",
        }
        for line in wrong[:limit]
    ]


def describe(pair: Pair) -> str:
    """Why there is no answer, or an empty text."""
    if pair.hypothesis is None:
        return "missing"
    return f"failed: {pair.hypothesis.error}" if pair.hypothesis.error is not None else ""
