"""The robustness table: the figures of one model under several conditions side by side, and how far each lies from the first condition."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Name = tuple[str, str, str, str]  # task, field, metric, subset


def read(path: str | Path) -> dict[Name, dict[str, Any]]:
    """The figures in a ``score.json``, minor ones left out. Raises ValueError for a file that is missing or is none."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["scores"]
        return {(r["task"], r["detail"]["field"], r["metric"], r["subset"]): r for r in rows if not r["detail"].get("minor")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as scores ({type(error).__name__}: {error}); score this condition first") from None


def table(scores: dict[str, dict[Name, dict[str, Any]]]) -> str:
    """Markdown: a row a condition, a column a figure of the first one, with its interval and the difference to the first condition.

    Raises ValueError when there is no condition, or one lacks a figure.
    """
    if not scores:
        raise ValueError("no condition to make a table of; tools/make_robust_lists.py makes some")
    first, names = next(iter(scores)), [*next(iter(scores.values()))]
    for condition, figures in scores.items():
        if lacking := [name for name in names if name not in figures]:
            raise ValueError(f"condition {condition} has no {' '.join(lacking[0])}, which {first} has; score all conditions with the same tasks")
    head = ["condition", *(f"{task} {metric}{'' if subset == 'all' else ' ' + subset}" for task, _, metric, subset in names)]
    rows = [[condition, *(_cell(figures[n], None if condition == first else scores[first][n]) for n in names)] for condition, figures in scores.items()]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def _cell(row: dict[str, Any], beside: dict[str, Any] | None) -> str:
    values = [row["value"], row["low"], row["high"]]
    if any(v is None or not math.isfinite(v) for v in values):
        return "–"
    text = "{:.1f} ({:.1f}–{:.1f})".format(*values)
    return text if beside is None or beside["value"] is None else f"{text}, {row['value'] - beside['value']:+.1f}"
