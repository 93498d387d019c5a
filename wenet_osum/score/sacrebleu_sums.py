"""Metrics of sacrebleu as sums over utterances: BLEU and chrF of a whole list, with intervals.

sacrebleu (Post, 2018, W18-6319) computes both from counts of each segment that it adds up: lengths
and n-gram matches. These counts are the columns here, and sacrebleu makes the figure of their sums,
so that it is the one of ``corpus_score``. The functions taken are those that its own bootstrap
uses.

Utterances are told apart by the language of the translation, which decides how BLEU cuts a text
into words. The signature names all that decides about a figure; only figures of the same signature
can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from wenet_osum.records import Metric
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, Statistic, counts
from wenet_osum.score.normalize import language
from wenet_osum.tasks import Field

# Guess from the script → what it says of a language.
BY_SCRIPT = {"en": "und", "mixed": "zh"}
# Makes sacrebleu's metric for a language.
Maker = Callable[[str], Any]


def compute(
    field: Field, pairs: list[Pair], options: Options, metric: Metric, make: Maker
) -> list[MetricSums]:
    """Compute a figure per target language; there is none over several languages.

    A missing, failed or unread answer counts as an empty text. Texts are taken as they are: the
    normalizer is for transcripts.
    """
    by_language: dict[str, list[Pair]] = {}
    for pair in pairs:
        lang = target_language(field, pair)
        own = by_language.setdefault(lang, [])
        own.append(pair)

    found = []
    for lang in sorted(by_language):
        sums = _sums(field, by_language[lang], lang, options, metric, make(lang))
        found.append(sums)
    return found


def target_language(field: Field, pair: Pair) -> str:
    """Return the language of a reference: its ``target_lang``, else guessed from the script.

    A script that several languages have is "und"; Chinese with a word of another script stays
    Chinese.
    """
    text = str(field.value(pair.reference))
    given = pair.reference.get("target_lang")
    if given:
        return language(str(given), text)
    guessed = language(None, text)
    return BY_SCRIPT.get(guessed, guessed)


def answer_text(field: Field, pair: Pair) -> str:
    """Return the answered text; empty where there is none."""
    if not pair.answered:
        return ""
    return pair.hypothesis.texts.get(field.name, "")


def _sums(
    field: Field,
    pairs: list[Pair],
    lang: str,
    options: Options,
    metric: Metric,
    scorer: Any,
) -> MetricSums:
    """Count the n-grams of the utterances of one language."""
    references = [str(field.value(pair.reference)) for pair in pairs]
    answers = [answer_text(field, pair) for pair in pairs]
    statistics = scorer._extract_corpus_statistics(answers, [references])
    columns = np.array(statistics, dtype=float)

    total = len(pairs)
    empty = sum(not text.strip() for text in answers)
    signature = scorer.get_signature()
    detail = {
        "facts": {"signature": str(signature)},
        "empty": empty,
        **counts(field.name, pairs),
    }
    return MetricSums(
        metric,
        columns,
        _statistic(scorer),
        total,
        lang,
        strata=np.zeros(total, dtype=int),
        detail=detail,
        keys=[pair.reference.key for pair in pairs],
    )


def _statistic(scorer: Any) -> Statistic:
    """Make the statistic that takes sacrebleu's figure of each row of sums (R, C)."""

    def statistic(sums: np.ndarray) -> np.ndarray:
        values = []
        for row in np.rint(sums).astype(int).tolist():
            score = scorer._compute_score_from_stats(row)
            # Rounding leaves a perfect list a little above.
            value = min(score.score, 100.0)
            values.append(value)
        return np.array(values)

    return statistic
