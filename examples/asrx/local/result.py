"""The result of a cell: what it answered right, what it was trained on, its learning curve."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from arms import Cell, X, list_of

from wenet_osum import tasks
from wenet_osum.bin._metadata import commit
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.decode import load, options
from wenet_osum.decode.jobs import read_list
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.models import unread
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score.resampling import speakers_of
from wenet_osum.score.scorer import score_task
from wenet_osum.tasks import Task
from wenet_osum.train.checkpoint import read_state
from wenet_osum.train.compare import answers

# All lists are English; their transcripts have capitals, and training is in lower case.
NORMALIZER = "whisper_en"


def result_of(cell: Cell, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Decode and score the trained cell in ``folder``; ``args`` are those of cells.py."""
    final = folder / "train/final"
    recognizer = recognizer_of(final, args.dtype)
    tests = {}
    for x in cell.scored_on():
        path = list_of(x, args.data, "test")
        tags = cell.asked(x)
        jobs, _ = read_list(path)
        found = answers(recognizer, tags, jobs, folder / f"{x.name}.jsonl")
        task = recognizer.template.task(tags)
        tests[x.name] = tested(task, x, path, found)

    state = read_state(final)
    rows = []
    log = folder / "train/log.jsonl"
    told = log.read_text(encoding="utf-8")
    for line in told.splitlines():
        row = json.loads(line)
        rows.append(row)
    answered = 0.0
    for row in rows:
        if row["split"] == "train" and row["task"]:
            answered += row["tokens"]
    return {
        "cell": {"x": cell.x, "arm": cell.arm, "seed": cell.seed},
        "encoder": encoder_hash(args.shared),
        "commit": commit(),
        "steps": state.step,
        "epochs": state.epoch,
        "seconds": round(state.seconds, 1),
        "audio_s": round(state.audio_s, 1),
        "answer_tokens": round(answered),
        "curve": curve(rows, cell),
        "tests": tests,
    }


def encoder_hash(folder: Path) -> str:
    """Return the first 12 digits of the SHA-256 of an encoder's weights, by name."""
    places = unread.find(str(folder))
    found = hashlib.sha256()
    for name in sorted(places):
        if name.startswith("encoder."):
            data = name.encode()
            found.update(data)
            tensor = places[name].read()
            # As bytes: numpy has no bfloat16, in which a model may be saved.
            numbers = tensor.flatten().contiguous().view(torch.uint8)
            data = numbers.numpy().tobytes()
            found.update(data)
    digest = found.hexdigest()
    return digest[:12]


def recognizer_of(model: Path, dtype: str) -> Recognizer:
    """Load a model to answer with."""
    asked = options.from_settings({"lang": "en", "dtype": dtype})
    asked.model = str(model)
    asked.task = "auto"
    return load.recognizer(asked)


def curve(rows: list[dict[str, Any]], cell: Cell) -> dict[str, list[list[float]]]:
    """Return by X (step, share of dev utterances whose label is right by teacher forcing) …"""
    found: dict[str, list[list[float]]] = {}
    for x in cell.scored_on():
        tags = cell.asked(x)
        asked = tasks.parse(tags)
        names = {tags, asked.name}
        points = []
        for row in rows:
            if row["split"] == "dev" and row["task"] in names and "labels" in row:
                point = [row["step"], row["labels"]]
                points.append(point)
        if points:
            found[x.name] = points
    return found


def tested(task: Task, x: X, path: str, found: dict[str, Hypothesis]) -> dict[str, Any]:
    """Return which utterances of the test list are right, and the figures of the scorer."""
    references = list(read_manifest(path))
    figures = {}
    scores = score_task(task, references, found, NORMALIZER, resample="speaker")
    for score in scores:
        name = f"{score.detail['field']}/{score.metric}/{score.subset}"
        interval = (score.value, score.low, score.high)
        figures[name] = [round(value, 3) for value in interval]
    return {
        "task": task.tags,
        "utterances": len(references),
        "majority": majority(x, references),
        "right": right(x, references, found),
        "speakers": speakers_of(references),
        "figures": figures,
    }


def majority(x: X, references: list[Utterance]) -> float:
    """Return the share of the most frequent label, in %."""
    field = tasks.parse(x.task).fields[-1]
    counts: Counter = Counter()
    for utterance in references:
        label = field.value(utterance)
        counts[label] += 1
    _, most = counts.most_common(1)[0]
    share = 100 * most / len(references)
    return round(share, 2)


def right(x: X, references: list[Utterance], found: dict[str, Hypothesis]) -> dict[str, int]:
    """Return by key 1 where the answer to X is right; one without an answer is wrong."""
    field = tasks.parse(x.task).fields[-1]
    marks = {}
    for utterance in references:
        wanted = field.value(utterance)
        answer = found.get(utterance.key)
        said = answer.labels.get(field.name) if answer else None
        marks[utterance.key] = int(said == wanted)
    return marks
