"""The result of a cell: what it answered right, utterance by utterance, what it was trained on, and
its learning curve.
"""

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
from wenet_osum.tasks.base import Task
from wenet_osum.text.template import Template
from wenet_osum.train.checkpoint import read_state


def result_of(cell: Cell, folder: Path, shared: Path, data: str) -> dict[str, Any]:
    """Decode and score the trained cell in ``folder``."""
    model = build.load(folder / "train/final")
    template = Template.load(folder / "train/final")
    state = read_state(folder / "train/final")
    rows = [
        json.loads(line)
        for line in (folder / "train/log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return {
        "cell": {"x": cell.x, "arm": cell.arm, "seed": cell.seed},
        "encoder": encoder_hash(shared),
        "commit": commit(),
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "audio_s": round(state.audio_s, 1),
        "speech_tokens": round(state.audio_s * SPEECH_TOKENS_A_SECOND),
        "answer_tokens": round(
            sum(row["tokens"] for row in rows if row["split"] == "train" and row["task"])
        ),
        "curve": curve(rows, cell),
        "tests": {
            x.name: tested(
                model, template, x, cell.asked(x), f"{data}/{x.corpus}/test/{x.task}.list"
            )
            for x in cell.scored_on()
        },
    }


def encoder_hash(folder: Path) -> str:
    """The first 12 digits of the SHA-256 of an encoder's weights, by name."""
    found = hashlib.sha256()
    for name, tensor in sorted(build.load(folder).encoder.state_dict().items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def curve(rows: list[dict[str, Any]], cell: Cell) -> dict[str, list[list[float]]]:
    """X → (step, share of dev utterances whose label is right by teacher forcing) …; X without
    labels have none.
    """
    found: dict[str, list[list[float]]] = {}
    for x in cell.scored_on():
        names = {cell.asked(x), tasks.parse(cell.asked(x)).name}
        points = [
            [row["step"], row["labels"]]
            for row in rows
            if row["split"] == "dev" and row["task"] in names and "labels" in row
        ]
        if points and not (
            cell.x != x.name and x.name.startswith("toy_")
        ):  # the cell of everything has dev lists of the real corpora
            found[x.name] = points
    return found


def tested(model: Any, template: Template, x: X, tags: str, path: str) -> dict[str, Any]:
    """Which utterances of the test list are right, and the figures of the scorer."""
    task = template.task(tags)
    references = list(read_manifest(path))
    found = answers(
        model,
        template,
        path,
        tags,
    )
    figures = {
        f"{s.detail['field']}/{s.metric}/{s.subset}": [
            round(v, 3) for v in (s.value, s.low, s.high)
        ]
        for s in score_task(task, references, found)
    }
    truth = Counter(
        u.reply if x.reply else tasks.parse(x.task).fields[-1].value(u) for u in references
    )
    return {
        "task": task.tags,
        "utterances": len(references),
        "majority": None if x.reply else round(100 * max(truth.values()) / len(references), 2),
        "right": right(task, x, references, found),
        "figures": figures,
    }


def right(
    task: Task, x: X, references: list[Utterance], found: dict[str, Hypothesis]
) -> dict[str, int]:
    """Key → 1 where the answer to X is right; an utterance without an answer is wrong."""
    field = tasks.parse(x.task).fields[-1]

    def said(hypothesis: Hypothesis | None) -> str | None:
        if hypothesis is None:
            return None
        if x.reply:
            return " ".join((hypothesis.reply or "").split())
        return hypothesis.labels.get(field.name)

    return {
        u.key: int(
            said(found.get(u.key))
            == (" ".join(field.value(u).split()) if x.reply else field.value(u))
        )
        for u in references
    }
