"""Loss and accuracy of training runs, from the ``log.jsonl`` of their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.report import plots, svg

# What a training run writes in its folder.
LOG = "log.jsonl"
# Entries of a log row that are drawn, with their titles.
MEASURES = {"loss": "loss", "acc": "token accuracy", "labels": "labels right"}
# Most points drawn of a line.
POINTS = 400
# Steps with their values.
Points = list[tuple[float, float]]


def read_log(path: str | Path) -> tuple[dict[tuple[str, str], dict[str, Points]], int]:
    """Read a ``log.jsonl``.

    Returns (split, measure) → task → points, and the number of lines that are no log rows.
    """
    found: dict[tuple[str, str], dict[str, Points]] = {}
    bad = 0
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            row = json.loads(line)
            step, split, task = float(row["step"]), str(row["split"]), str(row["task"])
        except (ValueError, KeyError, TypeError):
            bad += bool(line.strip())
            continue

        # Rows without a task are rates and times of the whole run.
        if row["task"] is None:
            continue
        for measure in MEASURES:
            value = row.get(measure)
            if isinstance(value, (int, float)):
                lines = found.setdefault((split, measure), {})
                points = lines.setdefault(task, [])
                points.append((step, float(value)))
    return found, bad


def section(folders: Sequence[str | Path]) -> str:
    """Write the report's part on training: a row of plots per run; empty without any log."""
    runs = []
    for folder in folders:
        path = Path(folder) / LOG
        if path.is_file():
            name = Path(folder).name or str(folder)
            runs.append(_run(name, path))
    drawn = "".join(runs)
    if not drawn:
        return ""

    return f'<section id="training"><h2>Training</h2>{drawn}</section>'


def _run(name: str, path: Path) -> str:
    """Draw the plots of one run; empty when its log has nothing to draw."""
    logged, bad = read_log(path)
    there = dict.fromkeys(task for lines in logged.values() for task in lines)
    # A task keeps its color from run to run.
    order = [*tasks.names(), *there]
    colors = {task: order.index(task) for task in there}

    # The plots of training stand before those of the other splits.
    others = {split for split, _ in logged} - {"train"}
    drawn = []
    for measure, title in MEASURES.items():
        for split in ("train", *sorted(others)):
            lines = {}
            for task, points in logged.get((split, measure), {}).items():
                lines[task] = _thin(sorted(points))
            plot = plots.curves(lines, f"{split} {title}", colors)
            if plot:
                drawn.append(f"<div>{plot}</div>")
    if not drawn:
        return ""

    legend = ""
    for task, index in colors.items():
        color = svg.color_of(index)
        legend += f'<span><i style="background:{color}"></i>{escape(task)}</span>'
    if bad:
        legend += f'<span class="dim">{bad} lines of the log could not be read</span>'
    return (
        f'<h3>{escape(name)}</h3><div class="legend">{legend}</div>'
        f'<div class="side">{"".join(drawn)}</div>'
    )


def _thin(points: Points) -> Points:
    """Return at most POINTS of the points, the last one included."""
    stride = -(-len(points) // POINTS)
    if stride <= 1:
        return points
    # Counted from the end, so that the last one stays.
    kept = points[::-1][::stride]
    return kept[::-1]
