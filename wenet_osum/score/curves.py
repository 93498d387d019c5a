"""Loss and accuracy of training runs, from the ``log.jsonl`` of their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.score import plots

MEASURES = {"loss": "loss", "acc": "token accuracy", "labels": "labels right"}
POINTS = 400  # most points drawn of a line


def read_log(path: str | Path) -> tuple[dict[tuple[str, str], dict[str, list[tuple[float, float]]]], int]:
    """(split, measure) → task → (step, value) …, and the number of lines that are no log rows."""
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    bad = 0
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            step, split, task = float(row["step"]), str(row["split"]), str(row["task"])
        except (ValueError, KeyError, TypeError):
            bad += bool(line.strip())
            continue
        if row["task"] is None:  # rates and times of the whole run
            continue
        for measure in MEASURES:
            if isinstance(row.get(measure), (int, float)):
                found.setdefault((split, measure), {}).setdefault(task, []).append((step, float(row[measure])))
    return found, bad


def section(folders: Sequence[str | Path]) -> str:
    """The report's part on training: a row of pictures a run; empty when no folder has a log."""
    runs = []
    for folder in folders:
        path = Path(folder) / "log.jsonl"
        if path.is_file():
            runs.append(_run(Path(folder).name or str(folder), path))
    runs = [run for run in runs if run]
    return f'<section id="training"><h2>Training</h2>{"".join(runs)}</section>' if runs else ""


def _run(name: str, path: Path) -> str:
    logged, bad = read_log(path)
    there = dict.fromkeys(task for lines in logged.values() for task in lines)
    order = [*tasks.names(), *there]  # a task keeps its color from run to run
    colors = {task: order.index(task) for task in there}
    drawn = []
    for measure, title in MEASURES.items():
        for split in ("train", *sorted({s for s, _ in logged} - {"train"})):
            lines = {task: _thin(sorted(points)) for task, points in logged.get((split, measure), {}).items()}
            drawn.append(plots.curves(lines, f"{split} {title}", colors) if lines else "")
    if not any(drawn):
        return ""
    legend = "".join(f'<span><i style="background:var(--s{i % plots.SERIES})"></i>{escape(task)}</span>' for task, i in colors.items())
    note = f'<span class="dim">{bad} lines of the log could not be read</span>' if bad else ""
    pictured = "".join(f"<div>{picture}</div>" for picture in drawn if picture)
    return f'<h3>{escape(name)}</h3><div class="legend">{legend}{note}</div><div class="side">{pictured}</div>'


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS of them, the last one included."""
    stride = -(-len(points) // POINTS)
    return points[::-1][::stride][::-1] if stride > 1 else points
