"""The part of the report on one task: counts, plots and the worst utterances of its fields."""

from __future__ import annotations

from html import escape
from typing import Any

from wenet_osum.records import Score
from wenet_osum.report import page, plots
from wenet_osum.report.values import number, written
from wenet_osum.score import counts
from wenet_osum.score.metric_sums import COUNTS, FAULTS

# Worst utterances of a metric that get an audio player.
PLAYERS = 3
# Worst utterances that are not folded away.
SHOWN = 4


def task_section(anchor: str, task: str, scores: list[Score], audio: dict) -> str:
    """Write the section of a task, field by field, as HTML.

    Links lead to ``anchor``; ``audio`` maps (task, key) to the sound and its MIME type.
    """
    fields: dict[str, list[Score]] = {}
    for score in scores:
        name = score.detail.get("field", "")
        own = fields.setdefault(name, [])
        own.append(score)

    parts = []
    for name, own in fields.items():
        heading = escape(name)
        parts.append(f"<h3>{heading}</h3>")
        parts.append(_counts(own))
        parts.append(_plots(own))

        # The table at the top has the others already.
        if any(score.detail.get("minor") for score in own):
            summary = f"all {len(own)} figures of {heading}"
            parts.append(page.details(summary, _all_scores(own)))
        for score in _single(own):
            if score.detail.get("worst"):
                parts.append(_worst(score, audio))
    return page.section(anchor, task, "".join(parts))


def _single(scores: list[Score]) -> list[Score]:
    """Leave out scores over all languages where each language has its own of the kind."""
    parts = {counts.kind(score) for score in scores if score.subset != "all"}
    return [score for score in scores if score.subset != "all" or counts.kind(score) not in parts]


def _title(score: Score) -> str:
    """Name a score by its metric and, where it is a part, its subset."""
    if score.subset == "all":
        return score.about.title
    return f"{score.about.title} {score.subset}"


def _counts(scores: list[Score]) -> str:
    """Write a row of counts for each score that has some."""
    found = []
    for score in _single(scores):
        facts = _facts(score)
        if not facts:
            continue
        faults = (*FAULTS, *score.about.faults)
        loud = {_spaced(name) for name in faults}
        named = {"": _title(score), **facts}
        found.append(page.chips(named, loud))
    return "".join(found)


def _facts(score: Score) -> dict[str, object]:
    """Collect what was counted beside a score, by the name to show."""
    detail = score.detail
    facts: dict[str, object] = {}
    if "substitutions" in detail:
        facts["S"] = detail["substitutions"]
        facts["D"] = detail["deletions"]
        facts["I"] = detail["insertions"]
        facts["normalizer"] = detail["normalizer"]
    if "median_offset_ms" in detail:
        offset = detail["median_offset_ms"]
        facts["median offset"] = f"{offset:.0f} ms"
    # What a metric says of how it was computed.
    facts |= detail.get("facts", {})

    # Counts of zero are left out.
    for name in (*COUNTS, *score.about.counts):
        if detail.get(name):
            facts[_spaced(name)] = detail[name]
    flags = detail.get("flags", {})
    for name, times in flags.items():
        facts[f"flag {name}"] = times
    return facts


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _plots(scores: list[Score]) -> str:
    """Draw the confusion matrices and, beside each, the classes and the calibration."""
    parts = []
    for score in scores:
        if "confusion" not in score.detail:
            continue
        beside = _classes(score.detail["classes"])
        for ece in scores:
            if "bins" in ece.detail:
                beside += _calibration(ece)
        matrix = _confusion(score.detail)
        parts.append(f"<div>{matrix}</div>")
        parts.append(f"<div>{beside}</div>")
    if not parts:
        return ""
    joined = "".join(parts)
    return f'<div class="side">{joined}</div>'


def _confusion(detail: dict[str, Any]) -> str:
    """Draw a confusion matrix without what does not occur.

    Its rows are classes of the references, its columns those and the answered ones, with a last
    column for what was not answered.
    """
    labels = detail["labels"]
    occurring = detail["classes"]
    used = [index for index, name in enumerate(labels) if name in occurring]
    columns = [*used, len(labels)]

    names, matrix = [], []
    for index in used:
        row = detail["confusion"][index]
        if sum(row):
            names.append(labels[index])
            matrix.append([row[column] for column in columns])

    titles = [detail["columns"][column] for column in columns]
    return plots.confusion(names, titles, matrix)


def _calibration(ece: Score) -> str:
    """Draw the reliability diagram under the calibration error."""
    value = number(ece, ece.value)
    _, limits = written(ece)
    caption = page.caption(f"calibration: ECE {value} % {limits}")
    bins = ece.detail["bins"]
    return caption + plots.calibration(bins)


def _classes(classes: dict[str, dict[str, Any]]) -> str:
    """Write the table of the classes; rates are in %, a dash where undefined."""
    rows = []
    for name, counted in classes.items():
        row = [
            escape(name),
            str(counted["count"]),
            _rate(counted["recall"]),
            _rate(counted["precision"]),
            _rate(counted["f1"]),
        ]
        rows.append(row)
    head = ["class", ">count", ">recall", ">precision", ">F1"]
    return page.table(head, rows)


def _rate(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}"


def _all_scores(scores: list[Score]) -> str:
    """Write the table of all scores of a field, minor ones too."""
    rows = []
    for score in scores:
        row = [
            escape(score.about.title),
            escape(score.subset),
            *written(score),
            f"{score.count:,}",
            str(score.utterances),
        ]
        rows.append(row)
    head = ["metric", "subset", ">value", ">95 % interval", ">count", ">utterances"]
    return page.table(head, rows)


def _worst(score: Score, audio: dict) -> str:
    """Write the worst utterances of a score; all but the first few are folded away."""
    rows = []
    for index, row in enumerate(score.detail["worst"]):
        sound = audio.get((score.task, row["key"]))
        key = escape(row["key"])
        cells = [
            f'<td class="key">{key}</td>',
            _answer(row, sound if index < PLAYERS else None),
            escape(row["note"]),
        ]
        rows.append(cells)

    head = ["utterance", "reference and answer", "what"]
    title = escape(_title(score))
    html = page.caption(f"worst utterances, {title}")
    html += page.table(head, rows[:SHOWN], "worst")

    folded = rows[SHOWN:]
    if folded:
        table = page.table(head, folded, "worst")
        html += page.details(f"{len(folded)} more", table)
    return html


def _answer(row: dict[str, Any], sound: tuple[bytes, str] | None) -> str:
    """Write the reference above the answer, then the transcript and a player where they exist."""
    lang = row.get("lang", "whole")
    html = page.side_by_side(row["ref"], row["hyp"], lang)
    if row.get("text"):
        text = escape(row["text"])
        html += f'<div class="dim small">{text}</div>'
    if sound:
        html += page.player(sound)
    return html
