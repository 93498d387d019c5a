"""What was counted beside the metrics of each task.

These are answers that are missing, failed or unread, references that are left out, and the flags of
the decoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from wenet_osum.records import Score
from wenet_osum.score.metric_sums import COUNTS

# What is counted of the whole list, in the score of every language.
OF_LIST = ("extra", "left_out")


def rows(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Count for each task: a row with its name, its utterances and what was counted.

    A score of one language counts a part of the whole: those of the languages are added up, metric
    by metric. Of several fields and metrics the largest count is that of the task.
    """
    wholes: dict[str, Counter] = {}
    parts: dict[tuple[str, str, str], Counter] = {}
    for score in scores:
        whole = wholes.setdefault(score.task, Counter())
        counted = Counter(_counts(score))
        counted["utterances"] = score.utterances
        if score.subset == "all":
            whole |= counted
            continue

        field = score.detail.get("field", "")
        place = (score.task, field, kind(score))
        part = parts.setdefault(place, Counter())
        for name in OF_LIST:
            most = max(part[name], counted.pop(name, 0))
            part[name] = most
        part += counted

    for place, part in parts.items():
        task = place[0]
        wholes[task] |= part
    found = []
    for task, counted in wholes.items():
        row = {"task": task, "utterances": 0}
        found.append(row | counted)
    return found


def of_task(scores: Sequence[Score], name: str) -> int:
    """Return a count of the scores of one task, e.g. ``missing``."""
    most = 0
    for row in rows(scores):
        times = row.get(name, 0)
        most = max(most, times)
    return most


def kind(score: Score) -> str:
    """Name what the languages of a field are scored by: words or characters are one."""
    return "errors" if score.metric in ("wer", "cer", "mer") else score.metric


def left_out(scores: Sequence[Score]) -> dict[str, int]:
    """Count the references that lack a field, by field name, where some do."""
    found = {}
    for score in scores:
        times = score.detail.get("left_out")
        if times:
            found[score.detail["field"]] = times
    return found


def _counts(score: Score) -> dict[str, int]:
    """Return the counts of one score by the name of their column."""
    found = {}
    flags = score.detail.get("flags", {})
    for name, times in flags.items():
        found[f"flag {name}"] = times
    for name in (*COUNTS, *score.about.counts):
        times = score.detail.get(name)
        if times:
            found[name] = times
    return found
