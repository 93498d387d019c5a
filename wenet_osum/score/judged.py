"""The metric ``judge``: the mean verdict of a judge, 0 to 10, over the replies that got one (the
scale of AIR-Bench's chat part, arXiv 2402.07729).

A missing, failed, unread or empty reply gets 0 without asking. Refusals and answers without a
verdict are counted and stand outside the mean, since they say something about the judge and nothing
about the reply.

Letters: U replies, R draws of the bootstrap.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from wenet_osum.records import Metric
from wenet_osum.score.judge import MOST, REFUSED, UNPARSABLE, Judge, Verdict
from wenet_osum.score.metric_sums import MetricSums, Pair, divide
from wenet_osum.score.normalize import language

ODD = (REFUSED, UNPARSABLE)
POINTS = Metric("judge", "judge's points", unit="of 10", scale=MOST, counts=ODD, faults=ODD)
NO_REPLY = Verdict(0.0, "", "no reply", "")
# Columns of the sums: replies with a verdict, and their points.
JUDGED, GIVEN = 0, 1


def compute(
    pairs: list[Pair], texts: list[tuple[str, str]], judge: Judge, worst: int
) -> MetricSums:
    """Return the mean verdict; ``texts`` are (reference, reply) of the pairs, and ``worst`` how
    many of the worst replies are shown."""
    verdicts, not_asked = _verdicts(pairs, texts, judge)
    count = len(pairs)
    columns = np.zeros((count, 2))
    models: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for row, verdict in zip(columns, verdicts, strict=True):
        row[JUDGED] = verdict.points is not None
        row[GIVEN] = verdict.points or 0.0
        models[verdict.model] += 1
        faults[verdict.fault] += 1
    # Of replies that were not asked about.
    del models[""]

    # What the report says beside it.
    facts = judge.facts()
    facts["answered_by"] = dict(sorted(models.items()))
    facts["not_asked"] = not_asked
    detail: dict[str, Any] = {"judge": facts}
    for name in ODD:
        detail[name] = faults[name]
    detail["worst"] = _worst(pairs, texts, verdicts, worst)

    judged = int(columns[:, JUDGED].sum())
    keys = [pair.reference.key for pair in pairs]
    return MetricSums(
        POINTS,
        columns,
        _mean,
        judged,
        detail=detail,
        keys=keys,
    )


def _verdicts(
    pairs: list[Pair], texts: list[tuple[str, str]], judge: Judge
) -> tuple[list[Verdict], int]:
    """Ask about all replies that say something; returns verdicts, and how many were not asked."""
    asked, cases = [], []
    for number, (reference, reply) in enumerate(texts):
        if not reply.strip():
            continue
        question = pairs[number].reference.txt or ""
        asked.append(number)
        cases.append({"question": question, "reference": reference, "reply": reply})
    verdicts = [NO_REPLY] * len(pairs)
    for number, verdict in zip(asked, judge.verdicts(cases), strict=True):
        verdicts[number] = verdict
    return verdicts, len(pairs) - len(asked)


def _mean(sums: np.ndarray) -> np.ndarray:
    """Return the points per verdict, (R,), of sums (R, 2).

    It is undefined without verdicts, where 0 ÷ 0 would read as the worst.
    """
    judged = sums[:, JUDGED]
    means = divide(sums[:, GIVEN], judged)
    return np.where(judged > 0, means, np.nan)


def _worst(
    pairs: list[Pair], texts: list[tuple[str, str]], verdicts: list[Verdict], limit: int
) -> list[dict[str, Any]]:
    """Return the replies without a verdict, then those with the fewest points."""

    def rank(number: int) -> tuple[float, str]:
        points = verdicts[number].points
        return -1.0 if points is None else points, pairs[number].reference.key

    order = sorted(range(len(pairs)), key=rank)
    rows = []
    for number in order[:limit]:
        verdict = verdicts[number]
        if verdict.points == MOST:
            continue
        utterance = pairs[number].reference
        reference, reply = texts[number]
        row = {
            "key": utterance.key,
            "lang": language(utterance.lang, reference),
            "ref": reference,
            "hyp": reply,
            "note": _note(verdict),
            "text": utterance.txt or "",
        }
        rows.append(row)
    return rows


def _note(verdict: Verdict) -> str:
    if verdict.fault:
        return f"{verdict.fault}: {verdict.reason}"
    return f"{verdict.points:g} of {MOST:g}: {verdict.reason}"
