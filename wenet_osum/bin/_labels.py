"""The label sets that answers were chosen from, as recognize leaves them in ``settings.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wenet_osum.decode.write import SETTINGS
from wenet_osum.score.hypotheses import find_file
from wenet_osum.tasks import Task

# What is done about sets that differ.
RULE = "each task is scored with the set of its (first) answers, --labels gives one for all"
# Characters of a faulty value that are shown.
SHOWN = 60


def label_sets(hyp: str | Path, task: Task) -> dict[str, list[str]]:
    """Read the sets of the task's label fields by field name; {} where no settings tell them.

    Raises ValueError for sets that are not lists of texts.
    """
    # Answers of another tool have no settings; whoever reads them says what is wrong with them.
    try:
        answers = find_file(hyp, task)
        path = answers.parent / SETTINGS
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text)
    except (OSError, ValueError):
        return {}

    found = None
    if isinstance(settings, dict):
        found = settings.get("labels")
    if not isinstance(found, dict):
        return {}
    names = {field.name for field in task.label_fields}
    own = {name: labels for name, labels in found.items() if name in names}
    for name, labels in own.items():
        if not are_texts(labels):
            got = str(labels)[:SHOWN]
            raise ValueError(
                f"{path}: labels of {name} must be a list of texts, got {got}; give --labels"
            )
    return own


def are_texts(labels: Any) -> bool:
    """Return whether a value is a list of texts."""
    if not isinstance(labels, list):
        return False
    return all(isinstance(label, str) for label in labels)


def disagreements(answers: Iterable[tuple[str, dict[str, list[str]]]]) -> list[str]:
    """Name the fields whose sets differ between answers, given as (path, sets)."""
    # Field → set → the first answers with that set.
    fields: dict[str, dict[tuple[str, ...], str]] = {}
    for path, sets in answers:
        for name, labels in sets.items():
            of_field = fields.setdefault(name, {})
            of_field.setdefault(tuple(labels), path)

    found = []
    for name, of_field in fields.items():
        if len(of_field) < 2:
            continue
        pieces = []
        for labels, path in of_field.items():
            listed = ", ".join(labels)
            pieces.append(f"{path}: {listed}")
        sets = "; ".join(pieces)
        found.append(f"answers were chosen from different sets of {name} labels ({sets}); {RULE}")
    return found
