"""Two systems on the same list, as a table: first minus second by the paired bootstrap of bootstrap.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from wenet_osum.score import page
from wenet_osum.score.bootstrap import Difference

TITLE = "Comparison"
LEVEL = 0.05  # below it a difference is called one
HEAD = ["task", "field", "figure", "first", "second", "difference", "95 % interval", "p", "better"]
EXPLAIN = (
    "First minus second system on the same utterances, paired bootstrap, two-sided p. A side is called better when p < "
    f"{LEVEL:g}; with many rows some differences are chance. Where no utterance differs, the interval is "
    "the exact bound of as many equal ones."
)


def row(
    task: str, name: tuple[str, str, str], values: tuple[float, float], difference: Difference, paths: tuple[str, str], lower_is_better: bool
) -> dict[str, Any]:
    """One figure compared; ``values`` and ``paths`` are (first, second), ``lower_is_better`` tells which side won."""
    found = difference._asdict()
    side = "" if not found["p_value"] < LEVEL else "first" if (found["difference"] < 0) == lower_is_better else "second"
    named = dict(zip(("task", "field", "metric", "subset"), (task, *name), strict=True))
    return named | {"first": paths[0], "second": paths[1], "first_value": values[0], "second_value": values[1], **found, "better": side}


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value: float, form: str = ".2f") -> str:
        return format(value, form) if math.isfinite(value) else "–"

    values = [number(row["first_value"]), number(row["second_value"]), number(row["difference"], "+.2f")]
    limits = f"[{number(row['low'], '+.2f')}, {number(row['high'], '+.2f')}]"
    return [row["task"], row["field"], f"{row['metric']} {row['subset']}", *values, limits, f"{row['p_value']:.3f}", row["better"] or "–"]


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence a figure, for the terminal."""
    form = "{task} {metric} {subset}: difference {difference:+.2f} [{low:+.2f}, {high:+.2f}], p = {p_value:.3f}"
    return [form.format(**row) for row in rows]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as markdown, with a heading; empty without rows."""
    if not rows:
        return ""
    texts = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in [HEAD, *map(_cells, rows)]]
    return "\n".join([f"## {TITLE}", "", EXPLAIN, _sides(rows), "", texts[0], "|" + "---|" * len(HEAD), *texts[1:]]) + "\n"


def _sides(rows: Sequence[dict[str, Any]]) -> str:
    pairs = dict.fromkeys((row["first"], row["second"]) for row in rows)
    return " ".join(f"First: `{first}`, second: `{second}`." for first, second in pairs)


def section(rows: Sequence[dict[str, Any]]) -> str:
    """The table as HTML; empty without rows."""
    if not rows:
        return ""
    head = [*HEAD[:3], *(f">{name}" for name in HEAD[3:8]), HEAD[8]]
    marks = {"first": "ok", "second": "no"}
    cells = [[escape(c) for c in _cells(row)] for row in rows]
    for row, line in zip(rows, cells, strict=True):
        if row["better"]:
            line[-1] = f'<span class="{marks[row["better"]]}">{row["better"]}</span>'
    return f'<p class="dim small">{EXPLAIN} {escape(_sides(rows))}</p>{page.table(head, cells)}'
