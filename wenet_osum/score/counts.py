"""What was counted beside the metrics of each task.

These are answers that are missing, failed or unread, references that are left out, and the flags of
the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wenet_osum.records import Score
from wenet_osum.score.metric_sums import COUNTS


def rows(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Count for each task: a row with its name, its utterances and what was counted.

    Scores of single languages count a part of what the one over all counts, so that the largest
    count is that of the whole.
    """
    found: dict[str, dict[str, Any]] = {}
    for score in scores:
        empty = {"task": score.task, "utterances": 0}
        row = found.setdefault(score.task, empty)
        counted = {"utterances": score.utterances, **_counts(score)}

        for name, times in counted.items():
            so_far = row.get(name, 0)
            row[name] = max(so_far, times)
    return list(found.values())


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
