"""Prompt sensitivity: how far a task's figures move with the wording they were asked with, and with its language.

``recognize --prompts all`` leaves a folder a wording and ``prompts.json``, which names them; the first is the scoring prompt. The spread is
the highest value minus the lowest; between languages it is the difference of their means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from wenet_osum.records import Utterance
from wenet_osum.score import page
from wenet_osum.score.hypotheses import read_hypotheses
from wenet_osum.score.scorer import score_task
from wenet_osum.tasks import Task

FILE = "prompts.json"
TITLE = "Prompt sensitivity"


class Wording(NamedTuple):
    """One prompt and where its answers are."""

    name: str  # folder, e.g. zh_0
    lang: str
    text: str
    hyp: Path


def wordings(path: str | Path) -> list[Wording]:
    """The wordings decoded under a folder, the scoring prompt first; none without a ``prompts.json``. Raises ValueError for a broken one."""
    file = Path(path) / FILE
    if not file.is_file():
        return []
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["prompts"]
        return [Wording(str(r["folder"]), str(r["lang"]), str(r["text"]), Path(path) / r["folder"]) for r in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read ({error!r}); run recognize --prompts again") from None


def sensitivity(task: Task, references: Sequence[Utterance], asked: Sequence[Wording], normalizer: str = "none") -> list[dict[str, Any]]:
    """A row for each main figure of the task: its value with every wording, and how these spread. Raises as ``score_task`` does."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for wording in asked:
        for score in score_task(task, references, read_hypotheses(wording.hyp, task)[0], normalizer, resamples=1, worst=0):
            if not score.detail.get("minor"):
                found.setdefault((str(score.detail["field"]), score.metric, score.subset), {})[wording.name] = score.value
    return [_row(task, name, values, asked) for name, values in found.items()]


def _row(task: Task, name: tuple[str, str, str], values: dict[str, float], asked: Sequence[Wording]) -> dict[str, Any]:
    known = {k: v for k, v in values.items() if math.isfinite(v)}
    langs = {w.lang: [known[x.name] for x in asked if x.lang == w.lang and x.name in known] for w in asked}
    means = {lang: fmean(found) for lang, found in langs.items() if found}
    row: dict[str, Any] = dict(zip(("task", "field", "metric", "subset"), (task.name, *name), strict=True))
    row |= {"scoring_prompt": values.get(asked[0].name, math.nan), "prompts": len(asked), "values": values, "by_language": means}
    if known:
        low, high = min(known.values()), max(known.values())
        row |= {"mean": fmean(known.values()), "deviation": pstdev(known.values()), "lowest": low, "highest": high, "spread": high - low}
    if len(means) == 2:
        first, second = means
        row["language_difference"] = {f"{first} - {second}": means[first] - means[second]}
    return row


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value: float | None) -> str:
        return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"

    figures = [number(row.get(name)) for name in ("scoring_prompt", "mean", "lowest", "highest", "spread", "deviation")]
    languages = ", ".join(f"{lang} {number(mean)}" for lang, mean in row["by_language"].items())
    difference = ", ".join(f"{name}: {value:+.2f}" for name, value in row.get("language_difference", {}).items())
    return [row["task"], row["field"], f"{row['metric']} {row['subset']}", *figures, languages, difference]


HEAD = ["task", "field", "figure", "scoring prompt", "mean", "lowest", "highest", "spread", "deviation", "mean by language", "difference"]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as markdown, with a heading; empty without rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(cells) + " |" for cells in [HEAD, *map(_cells, rows)]]
    return "\n".join([f"## {TITLE}", "", lines[0], "|" + "---|" * len(HEAD), *lines[1:]]) + "\n"


def section(rows: Sequence[dict[str, Any]], asked: dict[str, Sequence[Wording]]) -> str:
    """The table as HTML and, folded away, every wording of each task with its values."""
    if not rows:
        return ""
    head = [*HEAD[:3], *(f">{name}" for name in HEAD[3:9]), *HEAD[9:]]
    parts = [page.table(head, [[escape(cell) for cell in _cells(row)] for row in rows])]
    for task, found in asked.items():
        own = [row for row in rows if row["task"] == task]
        columns = ["prompt", "wording", *(f">{row['metric']} {row['subset']}" for row in own)]
        lines = [[escape(w.name), escape(w.text), *(f"{row['values'].get(w.name, math.nan):.2f}" for row in own)] for w in found]
        parts.append(f"<details><summary>{escape(task)}: {len(found)} wordings</summary>{page.table(columns, lines)}</details>")
    return "".join(parts)
