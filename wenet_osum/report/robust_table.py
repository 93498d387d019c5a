"""The robustness table: metrics of one model under several conditions, side by side.

Every other condition says how far its values lie from those of the first.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from wenet_osum.report.markdown import table_lines

# Task, field, metric and subset.
Name = tuple[str, str, str, str]
# Metrics of one condition, each an entry of score.json.
Metrics = dict[Name, dict[str, Any]]


def read(path: str | Path) -> Metrics:
    """Read the metrics of a ``score.json``, minor ones left out.

    Raises ValueError for a file that is missing or holds no scores.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["scores"]
        found = {}
        for row in rows:
            detail = row["detail"]
            name = (row["task"], detail["field"], row["metric"], row["subset"])
            if not detail.get("minor"):
                found[name] = row
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as scores ({type(error).__name__}: {error}); "
            "score this condition first"
        ) from None


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
        for name, row in scores[first].items():
            # The first condition has nothing to differ from.
            beside = None if condition == first else row
            cells.append(_cell(metrics[name], beside))
        rows.append(cells)
    return "\n".join(table_lines(head, rows)) + "\n"


def _title(name: Name) -> str:
    """Name a column."""
    task, _, metric, subset = name
    if subset == "all":
        return f"{task} {metric}"
    return f"{task} {metric} {subset}"


def _cell(row: dict[str, Any], beside: dict[str, Any] | None) -> str:
    """Write a value with its interval and, where there is one, the difference to ``beside``."""
    numbers = [row["value"], row["low"], row["high"]]
    # One that is undefined is null in the file.
    for number in numbers:
        if number is None or not math.isfinite(number):
            return "–"

    value, low, high = numbers
    text = f"{value:.1f} ({low:.1f}–{high:.1f})"
    if beside is None or beside["value"] is None:
        return text
    difference = value - beside["value"]
    return f"{text}, {difference:+.1f}"
