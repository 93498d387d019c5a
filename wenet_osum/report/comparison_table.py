"""The table of two systems on the same list: first minus second by the paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from wenet_osum.report import page
from wenet_osum.report.markdown import titled_table
from wenet_osum.report.values import plain
from wenet_osum.score.comparison import LEVEL
from wenet_osum.score.resampling import described

TITLE = "Comparison"
HEAD = [
    "task",
    "field",
    "figure",
    "first",
    "second",
    "difference",
    "95 % interval",
    "p",
    "better",
]
EXPLAIN = (
    "First minus second system on the same utterances, paired bootstrap ({intervals}), "
    "two-sided p. "
    f"A side is called better when p < {LEVEL:g}; with many rows some differences are chance. "
    "Where no utterance differs, the interval is the exact bound of as many equal ones."
)


def _cells(row: dict[str, Any]) -> list[str]:
    """Write the cells of a row, in the order of HEAD."""
    name = f"{row['metric']} {row['subset']}"
    low = plain(row["low"], "+.2f")
    high = plain(row["high"], "+.2f")
    return [
        row["task"],
        row["field"],
        name,
        plain(row["first_value"]),
        plain(row["second_value"]),
        plain(row["difference"], "+.2f"),
        f"[{low}, {high}]",
        plain(row["p_value"], ".3f"),
        row["better"] or "–",
    ]


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Write a sentence per row, for the terminal."""
    form = (
        "{task} {metric} {subset}: difference {difference:+.2f} "
        "[{low:+.2f}, {high:+.2f}], p = {p_value:.3f}, {resample}s resampled"
    )
    return [form.format(**row) for row in rows]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Write the table as markdown, with a heading; empty without rows."""
    if not rows:
        return ""
    above = [_explained(rows), _sides(rows), ""]
    cells = map(_cells, rows)
    return titled_table(TITLE, HEAD, cells, above)


def _explained(rows: Sequence[dict[str, Any]]) -> str:
    """Say how the systems were compared."""
    units = {row["resample"] for row in rows}
    intervals = described(units)
    return EXPLAIN.format(intervals=intervals)


def _sides(rows: Sequence[dict[str, Any]]) -> str:
    """Say which answers were compared with which."""
    sentences = []
    for row in rows:
        sentence = f"First: `{row['first']}`, second: `{row['second']}`."
        if sentence not in sentences:
            sentences.append(sentence)
    return " ".join(sentences)


def section(rows: Sequence[dict[str, Any]]) -> str:
    """Write the table as HTML; empty without rows."""
    if not rows:
        return ""
    marks = {"first": "ok", "second": "no"}
    lines = []
    for row in rows:
        cells = [escape(cell) for cell in _cells(row)]
        better = row["better"]
        if better:
            cells[-1] = f'<span class="{marks[better]}">{better}</span>'
        lines.append(cells)

    # Columns of numbers begin behind task, field and metric and end before the better side.
    numbers = [f">{name}" for name in HEAD[3:8]]
    head = [*HEAD[:3], *numbers, HEAD[8]]
    explained = _explained(rows)
    sides = escape(_sides(rows))
    told = f'<p class="dim small">{explained} {sides}</p>'
    return told + page.table(head, lines)
