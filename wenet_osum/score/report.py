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
from wenet_osum.score import page, plots
from wenet_osum.score.targets import target_of, reached
from wenet_osum.score.curves import section as curve_section
from wenet_osum.score.metric_sums import COUNTS, FAULTS

PLAYERS = 3  # utterances of a section that get an audio player
SHOWN = 4  # worst utterances that are not folded away


def data_hash(contents: Iterable[bytes]) -> str:
    """SHA-256 over the contents of lists, in the given order: two scores with the same hash rest on the same lists."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def number(score: Score, value: float) -> str:
    """Write a value with the digits of its metric; a dash when it is undefined."""
    return f"{value:.{score.about.decimals}f}" if math.isfinite(value) else "–"


def written(score: Score) -> tuple[str, str]:
    """Write the value with its unit, and the interval."""
    value = number(score, score.value)
    if value != "–":
        value = f"{value} {score.about.unit}"
    return value, f"[{number(score, score.low)}, {number(score, score.high)}]"


def ordered(scores: Sequence[Score], targets: dict | None = None) -> list[Score]:
    """Choose the scores of the table: the major ones and those with a bar to reach, by task."""
    return [s for s in by_task(scores) if not s.detail.get("minor") or target_of(s, targets or {})]


def by_task(scores: Sequence[Score]) -> list[Score]:
    """Put the scores of a task beside each other; tasks stay in the order they were scored in."""
    order = list(dict.fromkeys(s.task for s in scores))
    return sorted(scores, key=lambda s: order.index(s.task))


def write_json(scores: Sequence[Score], path: str | Path, meta: dict[str, Any] | None = None) -> None:
    """Everything, for programs: ``{"scores": […], **meta}``; undefined values are null."""
    tree = _finite({**(meta or {}), "scores": [dataclasses.asdict(s) for s in scores]})
    _write(path, json.dumps(tree, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: str | Path, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")


def baselines(score: Score) -> tuple[str, str]:
    """Accuracy of the commonest class and of the words alone, where they exist."""
    words = score.detail.get("text_baseline")
    alone = score.detail.get("majority")
    return (f"{alone['accuracy']:.2f}" if alone else ""), (f"{words['accuracy']:.2f}" if words else "")


def markdown_table(scores: Sequence[Score], targets: dict | None = None) -> str:
    """The score table. Columns without any entry are left out."""
    head = ["task", "metric", "subset", "value", "95 % interval", "count", "utterances", "majority", "text only", "to reach"]
    rows = []
    for score in ordered(scores, targets):
        target = target_of(score, targets or {})
        verdict = f"{target[0]} {target[1]:g} {'reached' if reached(score, target) else 'MISSED'}" if target else ""
        name = score.about.title
        rows.append([score.task, name, score.subset, *written(score), str(score.count), str(score.utterances), *baselines(score), verdict])
    keep = [i for i in range(len(head)) if i < 7 or any(row[i] for row in rows)]
    lines = [[row[i].replace("|", "\\|") for i in keep] for row in [head, *rows]]
    widths = [max(len(line[k]) for line in lines) for k in range(len(keep))]
    texts = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (w + 1) + (":" if keep[k] in range(3, 9) else "-") for k, w in enumerate(widths)) + "|"
    return "\n".join([texts[0], rule, *texts[1:]]) + "\n"


def write_markdown(
    scores: Sequence[Score], path: str | Path, meta: dict[str, Any] | None = None, targets: dict | None = None, tables: Iterable[str] = ()
) -> None:
    """The table with command, commit and data hash above it and further ``tables`` of markdown below."""
    facts = "".join(f"- {name}: `{value}`\n" for name, value in (meta or {}).items() if isinstance(value, str) and name != "title" and value)
    beside = "".join(f"\n{table}" for table in tables if table)
    _write(path, f"# {(meta or {}).get('title', 'Scores')}\n\n{facts}\n{markdown_table(scores, targets)}{beside}")


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

    ``meta`` holds title, command, commit, data hash and whatever else the head should say; ``exp`` are folders with a log.jsonl;
    ``audio`` maps (task, key) to the sound and its MIME type; ``sections`` are further parts by title, in HTML.
    """
    facts = dict(meta or {})
    title = str(facts.pop("title", "Scores"))
    shown = by_task(scores)
    names = list(dict.fromkeys(s.task for s in shown))
    links = "".join(f'<a href="#task-{i}">{escape(name)}</a>' for i, name in enumerate(names))
    curves = curve_section(exp)
    more = {title: html for title, html in (sections or {}).items() if html}
    links += "".join(f'<a href="#more-{i}">{escape(title.lower())}</a>' for i, title in enumerate(more))
    links += '<a href="#training">training</a>' if curves else ""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{_fact(k, v)}</dd>" for k, v in facts.items() if isinstance(v, (str, int, float)) and v != "")
    head = f"<h1>{escape(title)}</h1><dl>{rows}</dl><nav>{links}</nav>"
    summary = f'<section><h2>Scores</h2><p class="dim small">{EXPLAIN}</p>{_summary(shown, targets or {})}</section>'
    tasks = "\n".join(_task_section(i, name, [s for s in shown if s.task == name], audio or {}) for i, name in enumerate(names))
    others = "\n".join(f'<section id="more-{i}"><h2>{escape(title)}</h2>{html}</section>' for i, (title, html) in enumerate(more.items()))
    _write(path, page.document(title, f"<header>{head}</header>\n{summary}\n{others}\n{tasks}\n{curves}"))


EXPLAIN = (
    "Intervals: 95 %, bootstrap over utterances; where all are right or all wrong, exact (Clopper-Pearson). "
    "Majority: always the commonest class. Text only: naive Bayes on the reference words. "
    "Missing and unread answers count as wrong."
)


def _fact(name: str, value: object) -> str:
    return f"<code>{escape(str(value))}</code>" if name in ("command", "commit", "data hash") else escape(str(value))


def _summary(scores: list[Score], targets: dict) -> str:
    rows, first, last = [], set(), None
    for score in ordered(scores, targets):
        new = score.task != last
        last = score.task
        first |= {len(rows)} if new and rows else set()
        value, limits = written(score)
        target = target_of(score, targets)
        verdict = _verdict(score, target) if target else ""
        scale = ""
        if score.about.scale:
            direction = "down" if score.about.lower_is_better else "up"
            # The drawing goes from 0 to 100, whatever the scale of the metric.
            percent = 100.0 / score.about.scale
            limits_100 = [percent * v for v in (score.value, score.low, score.high)]
            scale = plots.interval(*limits_100, direction, percent * target[1] if target else None)
        name = escape(score.about.title) + ("" if score.subset == "all" else f' <span class="dim">{escape(score.subset)}</span>')
        task = f'<td class="task">{escape(score.task) if new else ""}</td>'
        cells = [task, name, f'<span class="value">{value}</span>', f'<span class="dim">{limits}</span>', scale]
        rows.append([*cells, f"{score.count:,}", *baselines(score), verdict])
    head = ["task", "metric", ">value", ">95 % interval", "0 – 100 %", ">count", ">majority", ">text only", ">to reach"]
    keep = [i for i in range(len(head)) if i < 6 or any(row[i] for row in rows)]
    return page.table([head[i] for i in keep], [[row[i] for i in keep] for row in rows], "scores", first)


def _verdict(score: Score, target: tuple[str, float]) -> str:
    done = reached(score, target)
    return f'<span class="{"ok" if done else "no"}">{"≤" if target[0] == "<=" else "≥"} {target[1]:g} {"✓" if done else "✗"}</span>'


def _task_section(number: int, task: str, scores: list[Score], audio: dict) -> str:
    parts = [f'<section id="task-{number}"><h2>{escape(task)}</h2>']
    for field in dict.fromkeys(s.detail.get("field", "") for s in scores):
        own = [s for s in scores if s.detail.get("field", "") == field]
        parts.append(f"<h3>{escape(field)}</h3>" + _counts(own) + _plots(own))
        if any(s.detail.get("minor") for s in own):
            parts.append(f"<details><summary>all {len(own)} figures of {escape(field)}</summary>{_all_scores(own)}</details>")
        parts += [_worst(s, audio) for s in _single(own) if s.detail.get("worst")]
    return "".join(parts) + "</section>"


def _single(scores: list[Score]) -> list[Score]:
    """Without figures over all languages where each language has its own."""
    return [s for s in scores if s.subset != "all"] or scores


def _counts(scores: list[Score]) -> str:
    found = []
    for score in _single(scores):
        detail = score.detail
        facts: dict[str, object] = {}
        if "substitutions" in detail:
            facts |= {"S": detail["substitutions"], "D": detail["deletions"], "I": detail["insertions"], "normalizer": detail["normalizer"]}
        facts |= {"median offset": f"{detail['median_offset_ms']:.0f} ms"} if "median_offset_ms" in detail else {}
        names = [name for name in (*COUNTS, *score.about.counts) if detail.get(name)]
        facts |= {name.replace("_", " "): detail[name] for name in names}
        facts |= {f"flag {name}": times for name, times in detail.get("flags", {}).items()}
        if facts:
            facts = {"": f"{score.about.title} {score.subset if score.subset != 'all' else ''}".strip(), **facts}
            faults = {name.replace("_", " ") for name in (*FAULTS, *score.about.faults)}
            found.append(page.chips(facts, faults))
    return "".join(found)


def _plots(scores: list[Score]) -> str:
    parts = []
    for score in scores:
        detail = score.detail
        if "confusion" in detail:
            used = [i for i, name in enumerate(detail["labels"]) if name in detail["classes"]]
            columns = [*used, len(detail["labels"])]
            matrix = [[detail["confusion"][i][j] for j in columns] for i in used if sum(detail["confusion"][i])]
            names = [detail["labels"][i] for i in used if sum(detail["confusion"][i])]
            parts.append(f"<div>{plots.confusion(names, [detail['columns'][j] for j in columns], matrix)}</div>")
            beside = _classes(detail["classes"])
            for ece in (s for s in scores if "bins" in s.detail):
                beside += f'<div class="caption">calibration: ECE {number(ece, ece.value)} % {written(ece)[1]}</div>'
                beside += plots.calibration(ece.detail["bins"])
            parts.append(f"<div>{beside}</div>")
    return f'<div class="side">{"".join(parts)}</div>' if parts else ""


def _classes(classes: dict[str, dict[str, Any]]) -> str:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    rows = [[escape(n), str(c["count"]), cell(c["recall"]), cell(c["precision"]), cell(c["f1"])] for n, c in classes.items()]
    return page.table(["class", ">count", ">recall", ">precision", ">F1"], rows)


def _all_scores(scores: list[Score]) -> str:
    rows = [[escape(s.about.title), escape(s.subset), *written(s), f"{s.count:,}", str(s.utterances)] for s in scores]
    return page.table(["metric", "subset", ">value", ">95 % interval", ">count", ">utterances"], rows)


def _worst(score: Score, audio: dict) -> str:
    rows = []
    for index, row in enumerate(score.detail["worst"]):
        lang = row.get("lang", "whole")
        text = f'<div class="dim small">{escape(row["text"])}</div>' if row.get("text") else ""
        sound = audio.get((score.task, row["key"])) if index < PLAYERS else None
        both = page.side_by_side(row["ref"], row["hyp"], lang)
        rows.append([f'<td class="key">{escape(row["key"])}</td>', both + text + (page.player(sound) if sound else ""), escape(row["note"])])
    name = f"{score.about.title}{'' if score.subset == 'all' else ' ' + score.subset}"
    head = ["utterance", "reference and answer", "what"]
    shown = f'<div class="caption">worst utterances, {escape(name)}</div>{page.table(head, rows[:SHOWN], "worst")}'
    more = f"<details><summary>{len(rows) - SHOWN} more</summary>{page.table(head, rows[SHOWN:], 'worst')}</details>" if len(rows) > SHOWN else ""
    return shown + more
