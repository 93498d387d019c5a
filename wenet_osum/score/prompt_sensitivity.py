"""Prompt sensitivity: how far the scores of a task move with the wording of the prompt, and with
its language.

``recognize --prompts all`` leaves one folder per wording and ``prompts.json``, which names them;
the first is the scoring prompt. The spread is the highest value minus the lowest; between languages
it is the difference of their means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from wenet_osum.records import Utterance
from wenet_osum.score.hypotheses import read_hypotheses
from wenet_osum.score.scorer import score_task
from wenet_osum.tasks import Task

FILE = "prompts.json"
# Field, metric and subset.
Name = tuple[str, str, str]


class Wording(NamedTuple):
    """One prompt and where its answers are."""

    # Folder, e.g. zh_0.
    name: str
    lang: str
    text: str
    hyp: Path


def wordings(path: str | Path) -> list[Wording]:
    """Return the wordings decoded under a folder, the scoring prompt first.

    There are none without a ``prompts.json``. Raises ValueError for a broken one.
    """
    folder = Path(path)
    file = folder / FILE
    if not file.is_file():
        return []
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        found = []
        for row in told["prompts"]:
            name = row["folder"]
            wording = Wording(
                name=str(name),
                lang=str(row["lang"]),
                text=str(row["text"]),
                hyp=folder / name,
            )
            found.append(wording)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({error!r}); run recognize --prompts again"
        ) from None
    return found


def sensitivity(
    task: Task,
    references: Sequence[Utterance],
    asked: Sequence[Wording],
    normalizer: str = "none",
) -> list[dict[str, Any]]:
    """Make a row for each main metric of the task: its value with every wording, and their spread.

    Raises ValueError as ``score_task`` does.
    """
    found: dict[Name, dict[str, float]] = {}
    for wording in asked:
        hypotheses, _ = read_hypotheses(wording.hyp, task)
        # Values alone: neither intervals nor examples are shown.
        scores = score_task(task, references, hypotheses, normalizer, resamples=1, worst=0)
        for score in scores:
            if score.detail.get("minor"):
                continue
            name = str(score.detail["field"]), score.metric, score.subset
            values = found.setdefault(name, {})
            values[wording.name] = score.value
    return [_row(task, name, values, asked) for name, values in found.items()]


def _row(
    task: Task, name: Name, values: dict[str, float], asked: Sequence[Wording]
) -> dict[str, Any]:
    """Describe how the values of a metric, by wording, spread."""
    field, metric, subset = name
    means = _means(values, asked)
    row: dict[str, Any] = {
        "task": task.name,
        "field": field,
        "metric": metric,
        "subset": subset,
        "scoring_prompt": values.get(asked[0].name, math.nan),
        "prompts": len(asked),
        "values": values,
        "by_language": means,
    }

    defined = list(filter(math.isfinite, values.values()))
    if defined:
        row["mean"] = fmean(defined)
        row["deviation"] = pstdev(defined)
        row["lowest"] = min(defined)
        row["highest"] = max(defined)
        row["spread"] = row["highest"] - row["lowest"]
    if len(means) == 2:
        first, second = means
        between = f"{first} - {second}"
        row["language_difference"] = {between: means[first] - means[second]}
    return row


def _means(values: dict[str, float], asked: Sequence[Wording]) -> dict[str, float]:
    """Average the values over the wordings of each language, where some are defined."""
    # In the order in which the languages were asked.
    by_language: dict[str, list[float]] = {}
    for wording in asked:
        of_language = by_language.setdefault(wording.lang, [])
        value = values.get(wording.name, math.nan)
        if math.isfinite(value):
            of_language.append(value)

    means = {}
    for lang, found in by_language.items():
        if found:
            means[lang] = fmean(found)
    return means
