"""The table of prompt sensitivity: how far metrics move with the wording of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from wenet_osum.report import page
from wenet_osum.report.markdown import titled_table
from wenet_osum.report.values import plain
from wenet_osum.score.prompt_sensitivity import Wording

TITLE = "Prompt sensitivity"
# Entry of a row → its heading in tables.
NUMBERS = {
    "scoring_prompt": "scoring prompt",
    "mean": "mean",
    "lowest": "lowest",
    "highest": "highest",
    "spread": "spread",
    "deviation": "deviation",
}
HEAD = ["task", "field", "figure", *NUMBERS.values(), "mean by language", "difference"]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Write the table as markdown, with a heading; empty without rows."""
    if not rows:
        return ""
    cells = map(_cells, rows)
    return titled_table(TITLE, HEAD, cells)


def section(rows: Sequence[dict[str, Any]], asked: dict[str, Sequence[Wording]]) -> str:
    """Write the table as HTML and, folded away, every wording of each task with its values."""
    if not rows:
        return ""
    head = []
    for name in HEAD:
        right = ">" if name in NUMBERS.values() else ""
        head.append(right + name)
    cells = []
    for row in rows:
        escaped = map(escape, _cells(row))
        cells.append(list(escaped))
    written = page.table(head, cells)

    for task, found in asked.items():
        own = [row for row in rows if row["task"] == task]
        summary = f"{escape(task)}: {len(found)} wordings"
        content = _table_of_wordings(own, found)
        written += page.details(summary, content)
    return written


def _table_of_wordings(rows: Sequence[dict[str, Any]], asked: Sequence[Wording]) -> str:
    """Write the value of each metric of a task with each of its wordings."""
    columns = ["prompt", "wording"]
    for row in rows:
        columns.append(f">{_metric(row)}")
    lines = []
    for wording in asked:
        line = [escape(wording.name), escape(wording.text)]
        for row in rows:
            value = row["values"].get(wording.name)
            line.append(plain(value))
        lines.append(line)
    return page.table(columns, lines)


def _cells(row: dict[str, Any]) -> list[str]:
    """Write the cells of a row, in the order of HEAD."""
    languages = []
    for lang, mean in row["by_language"].items():
        languages.append(f"{lang} {plain(mean)}")
    differences = []
    for name, value in row.get("language_difference", {}).items():
        differences.append(f"{name}: {value:+.2f}")
    return [
        row["task"],
        row["field"],
        _metric(row),
        *[plain(row.get(name)) for name in NUMBERS],
        ", ".join(languages),
        ", ".join(differences),
    ]


def _metric(row: dict[str, Any]) -> str:
    return f"{row['metric']} {row['subset']}"
