"""Scores as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from wenet_osum.files import write_text
from wenet_osum.records import Score
from wenet_osum.report import page, plots
from wenet_osum.report.curves import section as curve_section
from wenet_osum.report.score_table import (
    baselines,
    by_task,
    clusters,
    filled_columns,
    ordered,
    titles,
)
from wenet_osum.report.task_section import task_section
from wenet_osum.report.values import written
from wenet_osum.score import resampling
from wenet_osum.score.targets import reached, target_of

# Entries of the head that are set as code.
CODE = ("command", "commit", "data hash")
EXPLAIN = (
    "Intervals: {intervals}; "
    "where all are right or all wrong, exact (Clopper-Pearson). "
    "Majority: always the commonest class. Text only: naive Bayes on the reference words. "
    "Missing and unread answers count as wrong."
)


def write_page(
    scores: Sequence[Score],
    path: str | Path,
    *,
    meta: dict[str, Any] | None = None,
    targets: dict | None = None,
    exp: Sequence[str | Path] = (),
    audio: dict[tuple[str, str], tuple[bytes, str]] | None = None,
    sections: dict[str, str] | None = None,
) -> None:
    """Write the HTML page.

    ``meta`` holds title, command, commit, data hash and whatever else the head should say; ``exp``
    are folders with a log.jsonl; ``audio`` maps (task, key) to the sound and its MIME type;
    ``sections`` are further parts by title, in HTML.
    """
    facts = dict(meta or {})
    title = str(facts.pop("title", "Scores"))
    shown = by_task(scores)
    links, parts = [], []

    # A section per task.
    for index, task in enumerate(dict.fromkeys(score.task for score in shown)):
        own = [score for score in shown if score.task == task]
        anchor = f"task-{index}"
        links.append(_link(anchor, task))
        parts.append(task_section(anchor, task, own, audio or {}))

    # The further parts stand before the tasks on the page, and behind them in the links.
    more = []
    filled = {name: html for name, html in (sections or {}).items() if html}
    for index, (name, html) in enumerate(filled.items()):
        anchor = f"more-{index}"
        links.append(_link(anchor, name.lower()))
        more.append(page.section(anchor, name, html))

    curves = curve_section(exp)
    if curves:
        links.append(_link("training", "training"))
    summary = _summary(shown, targets or {})
    explained = EXPLAIN.format(intervals=resampling.described(resampling.units(shown)))
    body = [
        f"<header>{_head(title, facts, links)}</header>",
        f'<section><h2>Scores</h2><p class="dim small">{explained}</p>{summary}</section>',
        "\n".join(more),
        "\n".join(parts),
        curves,
    ]
    text = page.document(title, "\n".join(body))
    write_text(path, text, errors="backslashreplace")


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{anchor}">{escape(text)}</a>'


def _head(title: str, facts: dict[str, Any], links: list[str]) -> str:
    """Write the head of the page: its title, what is known of the run, links to the sections."""
    rows = ""
    for name, value in facts.items():
        # Other facts are for programs.
        if not isinstance(value, (str, int, float)) or value == "":
            continue
        text = escape(str(value))
        if name in CODE:
            text = f"<code>{text}</code>"
        rows += f"<dt>{escape(name)}</dt><dd>{text}</dd>"

    heading = f"<h1>{escape(title)}</h1>"
    joined = "".join(links)
    return f"{heading}<dl>{rows}</dl><nav>{joined}</nav>"


def _summary(scores: list[Score], targets: dict) -> str:
    """Write the table of the page. Columns without any entry are left out."""
    rows: list[list[str]] = []
    first: set[int] = set()
    last = None
    names = titles(scores)
    for score in ordered(scores, targets):
        # The task is named once, and a line is drawn above each but the first.
        new = score.task != last
        last = score.task
        if new and rows:
            first.add(len(rows))
        target = target_of(score, targets)
        value, limits = written(score)
        row = [
            f'<td class="task">{escape(score.task) if new else ""}</td>',
            _named(score, names[id(score)]),
            f'<span class="value">{value}</span>',
            f'<span class="dim">{limits}</span>',
            _scale(score, target),
            f"{score.count:,}",
            clusters(score),
            *baselines(score),
            _verdict(score, target) if target else "",
        ]
        rows.append(row)

    head = [
        "task",
        "metric",
        ">value",
        ">95 % interval",
        "0 – 100 %",
        ">count",
        ">clusters",
        ">majority",
        ">text only",
        ">to reach",
    ]
    kept = filled_columns(len(head), 6, rows)
    cells = []
    for row in rows:
        cells.append([row[column] for column in kept])
    return page.table([head[column] for column in kept], cells, "scores", first)


def _named(score: Score, title: str) -> str:
    """Write the title of a score and, where it is a part, the subset."""
    name = escape(title)
    if score.subset == "all":
        return name
    subset = escape(score.subset)
    return f'{name} <span class="dim">{subset}</span>'


def _scale(score: Score, target: tuple[str, float] | None) -> str:
    """Draw a value with its interval on a scale; empty for a metric without an upper end."""
    if not score.about.scale:
        return ""
    # The drawing goes from 0 to 100, whatever the scale of the metric.
    percent = 100.0 / score.about.scale
    mark = percent * target[1] if target else None
    return plots.interval(
        percent * score.value,
        percent * score.low,
        percent * score.high,
        "down" if score.about.lower_is_better else "up",
        mark,
    )


def _verdict(score: Score, target: tuple[str, float]) -> str:
    """Write the target and whether it is reached."""
    sign, value = target
    sign = "≤" if sign == "<=" else "≥"
    style, mark = "no", "✗"
    if reached(score, target):
        style, mark = "ok", "✓"
    return f'<span class="{style}">{sign} {value:g} {mark}</span>'
