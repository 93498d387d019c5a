"""What was counted beside the figures, task by task, as a table: answers that are missing, failed or
unread, references that are left out, and the flags of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wenet_osum.records import Score

TITLE = "Counted"
ALWAYS = ("missing", "failed", "unread", "extra", "left_out")  # columns that say 0 as well


def rows(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Counts of each task. Figures of single languages count a part of what the one over all counts, so that the largest is the whole."""
    found = []
    for task in dict.fromkeys(s.task for s in scores):
        own = [s for s in scores if s.task == task]
        row: dict[str, Any] = {"task": task, "utterances": max(s.utterances for s in own)}
        for score in own:
            for name, times in _counts(score).items():
                row[name] = max(row.get(name, 0), times)
        found.append(row)
    return found


def left_out(scores: Sequence[Score]) -> dict[str, int]:
    """Count the references that lack a field, by field name, where some do."""
    return {s.detail["field"]: s.detail["left_out"] for s in scores if s.detail.get("left_out")}


def _counts(score: Score) -> dict[str, int]:
    detail = score.detail
    flags = {f"flag {name}": times for name, times in detail.get("flags", {}).items()}
    return flags | {name: detail[name] for name in (*ALWAYS, *score.about.counts) if detail.get(name)}


def markdown(scores: Sequence[Score]) -> str:
    """The table as markdown, with a heading; empty without scores."""
    found = rows(scores)
    if not found:
        return ""
    more = sorted({name for row in found for name in row if name.startswith("flag ")})
    special = dict.fromkeys(name for score in scores for name in score.about.counts)
    special = [name for name in special if any(name in row for row in found)]
    head = ["task", "utterances", *ALWAYS, *special, *more]
    lines = [[str(row.get(name, 0)) for name in head] for row in found]
    texts = ["| " + " | ".join(cells) + " |" for cells in [[name.replace("_", " ") for name in head], *lines]]
    return "\n".join([f"## {TITLE}", "", texts[0], "|" + "---|" * len(head), *texts[1:]]) + "\n"
