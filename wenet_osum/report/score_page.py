"""Scores as ``score.json``, as a markdown table, and as one HTML page that needs no network."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from wenet_osum.records import Score
from wenet_osum.report import page, plots
from wenet_osum.report.curves import section as curve_section
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


def data_hash(contents: Iterable[bytes]) -> str:
    """Return the SHA-256 over the contents of lists, in the given order.

    Two scores with the same hash rest on the same lists.
    """
    digest = hashlib.sha256()
    for content in contents:
        of_list = hashlib.sha256(content).digest()
        digest.update(of_list)
    return digest.hexdigest()


def ordered(scores: Sequence[Score], targets: dict | None = None) -> list[Score]:
    """Choose the scores of the table: the major ones and those with a target, by task."""
    chosen = []
    for score in by_task(scores):
        if not score.detail.get("minor") or target_of(score, targets or {}):
            chosen.append(score)
    return chosen


def by_task(scores: Sequence[Score]) -> list[Score]:
    """Put the scores of a task beside each other; tasks stay in the order they were scored in."""
    found: dict[str, list[Score]] = {}
    for score in scores:
        own = found.setdefault(score.task, [])
        own.append(score)
    return [score for own in found.values() for score in own]


def write_json(
    scores: Sequence[Score], path: str | Path, meta: dict[str, Any] | None = None
) -> None:
    """Write everything for programs: ``{"scores": […], **meta}``; undefined values are null."""
    tree = dict(meta or {})
    tree["scores"] = [dataclasses.asdict(score) for score in scores]
    text = json.dumps(
        _finite(tree),
        ensure_ascii=False,
        indent=1,
        allow_nan=False,
    )
    _write(path, text + "\n")


def _finite(value: Any) -> Any:
    """Replace undefined numbers of a tree, which JSON does not have, by None."""
    if isinstance(value, dict):
        found = {}
        for name, entry in value.items():
            found[str(name)] = _finite(entry)
        return found
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(path: str | Path, text: str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def baselines(score: Score) -> tuple[str, str]:
    """Write the accuracy of the commonest class and of the words alone, empty where unknown."""
    cells = []
    for name in ("majority", "text_baseline"):
        found = score.detail.get(name)
        if found:
            cells.append(f"{found['accuracy']:.2f}")
        else:
            cells.append("")
    return tuple(cells)


# Columns of the markdown table: the first seven always stand, the numbers are set to the right.
HEAD = [
    "task",
    "metric",
    "subset",
    "value",
    "95 % interval",
    "count",
    "utterances",
    "clusters",
    "majority",
    "text only",
    "to reach",
]
KEPT = 7
NUMBERS = range(3, 10)


def markdown_table(scores: Sequence[Score], targets: dict | None = None) -> str:
    """Write the table of scores. Columns without any entry are left out."""
    rows = []
    for score in ordered(scores, targets):
        row = [
            score.task,
            score.about.title,
            score.subset,
            *written(score),
            str(score.count),
            str(score.utterances),
            _clusters(score),
            *baselines(score),
            _outcome(score, targets or {}),
        ]
        rows.append(row)

    kept = _filled(len(HEAD), KEPT, rows)
    lines = []
    for row in [HEAD, *rows]:
        cells = [row[column] for column in kept]
        lines.append([cell.replace("|", "\\|") for cell in cells])

    # Columns are as wide as their widest cell, so that the text reads as a table too.
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    texts = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        texts.append("| " + " | ".join(cells) + " |")
    rule = "|"
    for column, width in zip(kept, widths, strict=True):
        rule += "-" * (width + 1)
        rule += ":|" if column in NUMBERS else "-|"
    return "\n".join([texts[0], rule, *texts[1:]]) + "\n"


def _clusters(score: Score) -> str:
    """Write the number of clusters that were drawn from; empty where utterances were drawn."""
    number = resampling.clusters(score)
    return "" if number is None else f"{number:,}"


def _filled(columns: int, always: int, rows: list[list[str]]) -> list[int]:
    """Return the columns to show: the first ``always`` ones and those with an entry."""
    kept = list(range(always))
    for column in range(always, columns):
        if any(row[column] for row in rows):
            kept.append(column)
    return kept


def _outcome(score: Score, targets: dict) -> str:
    """Write the target of a score and whether it is reached; empty without one."""
    target = target_of(score, targets)
    if not target:
        return ""
    sign, value = target
    outcome = "reached" if reached(score, target) else "MISSED"
    return f"{sign} {value:g} {outcome}"


def write_markdown(
    scores: Sequence[Score],
    path: str | Path,
    meta: dict[str, Any] | None = None,
    targets: dict | None = None,
    tables: Iterable[str] = (),
) -> None:
    """Write the table with command, commit and data hash above it and more ``tables`` below."""
    facts = dict(meta or {})
    text = f"# {facts.pop('title', 'Scores')}\n\n"
    for name, value in facts.items():
        if isinstance(value, str) and value:
            text += f"- {name}: `{value}`\n"
    text += "\n" + markdown_table(scores, targets)
    for table in tables:
        if table:
            text += "\n" + table
    _write(path, text)


def write_report(
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
    _write(path, page.document(title, "\n".join(body)))


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
            _named(score),
            f'<span class="value">{value}</span>',
            f'<span class="dim">{limits}</span>',
            _scale(score, target),
            f"{score.count:,}",
            _clusters(score),
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
    kept = _filled(len(head), 6, rows)
    cells = []
    for row in rows:
        cells.append([row[column] for column in kept])
    return page.table([head[column] for column in kept], cells, "scores", first)


def _named(score: Score) -> str:
    """Write the metric and, where it is a part, the subset."""
    name = escape(score.about.title)
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
