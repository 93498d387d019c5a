"""The robustness table: metrics of one model under several conditions, side by side.

Every other condition says how far its values lie from those of the first.
"""

from __future__ import annotations

import math
from pathlib import Path

from wenet_osum.records import Score
from wenet_osum.report.markdown import table_lines
from wenet_osum.report.values import plain
from wenet_osum.score import score_json
from wenet_osum.tasks import parse

# Task, field, metric and subset.
Name = tuple[str, str, str, str]
# Metrics of one condition.
Metrics = dict[Name, Score]


def read(path: str | Path) -> Metrics:
    """Read the metrics of a ``score.json``, minor ones left out.

    Raises ValueError for a file that is missing or holds no scores.
    """
    _, scores = score_json.read(path)
    found = {}
    for score in scores:
        if score.detail.get("minor"):
            continue
        field = score.detail.get("field", "")
        name = (score.task, field, score.metric, score.subset)
        found[name] = score
    return found


def table(scores: dict[str, Metrics]) -> str:
    """Write the table as markdown.

    It has a row per condition and a column per metric of the first condition: the value, its
    interval, and the difference to the first condition.

    Raises ValueError when there is no condition, or one lacks a metric.
    """
    if not scores:
        raise ValueError("no condition to make a table of; tools/make_robust_lists.py makes some")
    first = next(iter(scores))
    for condition, metrics in scores.items():
        for name in scores[first]:
            if name not in metrics:
                lacking = " ".join(name)
                raise ValueError(
                    f"condition {condition} has no {lacking}, which {first} has; "
                    "score all conditions with the same tasks"
                )

    head = ["condition", *map(_title, scores[first])]
    rows = []
    for condition, metrics in scores.items():
        cells = [condition]
        for name, score in scores[first].items():
            # The first condition has nothing to differ from.
            beside = None if condition == first else score
            cells.append(_cell(metrics[name], beside))
        rows.append(cells)
    return "\n".join(table_lines(head, rows)) + "\n"


def _title(name: Name) -> str:
    """Name a column."""
    task, field, metric, subset = name
    # A task of several labels has an accuracy of each.
    if field and len(parse(task).label_fields) > 1:
        metric = f"{metric}, {field}"
    if subset == "all":
        return f"{task} {metric}"
    return f"{task} {metric} {subset}"


def _cell(score: Score, beside: Score | None) -> str:
    """Write a value with its interval and, where there is one, the difference to ``beside``."""
    if not math.isfinite(score.value):
        return "–"
    text = plain(score.value, ".1f")
    # Of a single speaker there is no interval.
    if math.isfinite(score.low) and math.isfinite(score.high):
        low = plain(score.low, ".1f")
        high = plain(score.high, ".1f")
        text += f" ({low}–{high})"
    if beside is None or not math.isfinite(beside.value):
        return text
    difference = score.value - beside.value
    return f"{text}, {difference:+.1f}"
