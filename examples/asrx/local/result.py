"""The result of a cell: what it answered right, what it was trained on, its learning curve."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from answer import answers
from arms import Cell, X
from budget import SPEECH_TOKENS_A_SECOND

from wenet_osum import tasks
from wenet_osum.bin._metadata import commit
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.models import build
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score.scorer import score_task
from wenet_osum.text.template import Template
from wenet_osum.train.checkpoint import read_state


def result_of(cell: Cell, folder: Path, shared: Path, data: str) -> dict[str, Any]:
    """Decode and score the trained cell in ``folder``."""
    final = folder / "train/final"
    model = build.load(final)
    template = Template.load(final)
    tests = {}
    for x in cell.scored_on():
        path = f"{data}/{x.corpus}/test/{x.task}.list"
        tests[x.name] = tested(
            model,
            template,
            x,
            cell.asked(x),
            path,
        )

    state = read_state(final)
    log = (folder / "train/log.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in log.splitlines()]
    answered = [row["tokens"] for row in rows if row["split"] == "train" and row["task"]]
    return {
        "cell": {"x": cell.x, "arm": cell.arm, "seed": cell.seed},
        "encoder": encoder_hash(shared),
        "commit": commit(),
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "audio_s": round(state.audio_s, 1),
        "speech_tokens": round(state.audio_s * SPEECH_TOKENS_A_SECOND),
        "answer_tokens": round(sum(answered)),
        "curve": curve(rows, cell),
        "tests": tests,
    }


def encoder_hash(folder: Path) -> str:
    """Return the first 12 digits of the SHA-256 of an encoder's weights, by name."""
    weights = build.load(folder).encoder.state_dict()
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def curve(rows: list[dict[str, Any]], cell: Cell) -> dict[str, list[list[float]]]:
    """Return by X (step, share of dev utterances whose label is right by teacher forcing) …

    X without labels have none.
    """
    found: dict[str, list[list[float]]] = {}
    for x in cell.scored_on():
        # The cell of everything has dev lists of the real corpora.
        if cell.x != x.name and x.name.startswith("toy_"):
            continue
        names = {cell.asked(x), tasks.parse(cell.asked(x)).name}
        points = []
        for row in rows:
            if row["split"] == "dev" and row["task"] in names and "labels" in row:
                points.append([row["step"], row["labels"]])
        if points:
            found[x.name] = points
    return found


def tested(model: Any, template: Template, x: X, tags: str, path: str) -> dict[str, Any]:
    """Return which utterances of the test list are right, and the figures of the scorer."""
    task = template.task(tags)
    references = list(read_manifest(path))
    found = answers(
        model,
        template,
        path,
        tags,
    )
    figures = {}
    for score in score_task(task, references, found):
        name = f"{score.detail['field']}/{score.metric}/{score.subset}"
        interval = (score.value, score.low, score.high)
        figures[name] = [round(value, 3) for value in interval]
    return {
        "task": task.tags,
        "utterances": len(references),
        "majority": majority(x, references),
        "right": right(x, references, found),
        "figures": figures,
    }


def majority(x: X, references: list[Utterance]) -> float | None:
    """Return the share of the most frequent label, in %; None for free answers."""
    if x.reply:
        return None
    field = tasks.parse(x.task).fields[-1]
    counts = Counter(field.value(utterance) for utterance in references)
    return round(100 * max(counts.values()) / len(references), 2)


def right(x: X, references: list[Utterance], found: dict[str, Hypothesis]) -> dict[str, int]:
    """Return by key 1 where the answer to X is right; one without an answer is wrong."""
    field = tasks.parse(x.task).fields[-1]
    marks = {}
    for utterance in references:
        wanted = field.value(utterance)
        if x.reply:
            wanted = " ".join(wanted.split())
        answer = found.get(utterance.key)
        marks[utterance.key] = int(
            answer is not None
            and said(
                answer,
                x,
                field.name,
            )
            == wanted
        )
    return marks


def said(answer: Hypothesis, x: X, name: str) -> str | None:
    """Return what an answer says of X: the reply with its white space made even, or the label."""
    if x.reply:
        reply = answer.reply or ""
        return " ".join(reply.split())
    return answer.labels.get(name)
