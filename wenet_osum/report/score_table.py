"""The table of scores as markdown, on the terminal and in ``score.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wenet_osum.files import write_text
from wenet_osum.records import Score
from wenet_osum.report.values import written
from wenet_osum.score import resampling
from wenet_osum.score.targets import reached, target_of

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


def markdown_table(scores: Sequence[Score], targets: dict | None = None) -> str:
    """Write the table of scores. Columns without any entry are left out."""
    rows = []
    names = titles(scores)
    for score in ordered(scores, targets):
        row = [
            score.task,
            names[id(score)],
            score.subset,
            *written(score),
            str(score.count),
            str(score.utterances),
            clusters(score),
            *baselines(score),
            _outcome(score, targets or {}),
        ]
        rows.append(row)

    kept = filled_columns(len(HEAD), KEPT, rows)
    lines = []
    for row in [HEAD, *rows]:
        cells = []
        for column in kept:
            cells.append(row[column].replace("|", "\\|"))
        lines.append(cells)

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


def titles(scores: Sequence[Score]) -> dict[int, str]:
    """Return the title of each score by its ``id``. Where a task has several figures of one metric,
    as one with two labels has accuracies, the field stands behind it."""
    times: Counter = Counter()
    for score in scores:
        times[score.task, score.metric, score.subset] += 1
    found = {}
    for score in scores:
        title = score.about.title
        field = score.detail.get("field")
        if field and times[score.task, score.metric, score.subset] > 1:
            title = f"{title}, {field}"
        found[id(score)] = title
    return found


def clusters(score: Score) -> str:
    """Write the number of clusters that were drawn from; empty where utterances were drawn."""
    number = resampling.clusters(score)
    if number is None:
        return ""
    return f"{number:,}"


def filled_columns(columns: int, always: int, rows: list[list[str]]) -> list[int]:
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
    write_text(path, text, errors="backslashreplace")
