"""The label sets that answers were chosen from, as recognize leaves them in ``settings.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from wenet_osum.decode.write import SETTINGS
from wenet_osum.score.hypotheses import find_file
from wenet_osum.tasks import Task

RULE = "each task is scored with the set of its (first) answers, --labels gives one for all"


def label_sets(hyp: str | Path, task: Task) -> dict[str, list[str]]:
    """Read the sets of the task's label fields by field name; {} where nothing says them.

    Raises ValueError for sets that are not lists of texts.
    """
    try:
        path = find_file(hyp, task).parent / SETTINGS
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # answers of another tool; whoever reads them says what is wrong with them
    told = found.get("labels") if isinstance(found, dict) else None
    names = {field.name for field in task.label_fields}
    own = {k: v for k, v in told.items() if k in names} if isinstance(told, dict) else {}
    for name, labels in own.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            got = str(labels)[:60]
            raise ValueError(f"{path}: labels of {name} must be a list of texts, got {got}; give --labels")
    return own


def disagreements(answers: Iterable[tuple[str, dict[str, list[str]]]]) -> list[str]:
    """Name the fields whose sets differ between answers, given as (path, sets)."""
    fields: dict[str, dict[tuple[str, ...], str]] = {}
    for path, sets in answers:
        for name, labels in sets.items():
            fields.setdefault(name, {}).setdefault(tuple(labels), path)
    found = []
    for name, sets in fields.items():
        if len(sets) > 1:
            told = "; ".join(f"{path}: {', '.join(labels)}" for labels, path in sets.items())
            found.append(f"answers were chosen from different sets of {name} labels ({told}); {RULE}")
    return found
