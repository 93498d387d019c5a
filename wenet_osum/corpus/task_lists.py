"""Make one test list per task out of one manifest: the utterances that hold all its fields."""

from __future__ import annotations

import re

from wenet_osum import tasks
from wenet_osum.records import Utterance


def choose(utterances: list[Utterance], task: str, limit: int | None = None) -> list[Utterance]:
    """Return the utterances that a task can be scored on, in order.

    At most ``limit`` of them are taken, at even distances. Raises ValueError when there are none.
    """
    wanted = tasks.parse(task)
    found = []
    for utterance in utterances:
        if wanted.present(utterance):
            found.append(utterance)
    if not found:
        names = [field.name for field in wanted.fields]
        fields = ", ".join(names)
        none = f"none of {len(utterances)} utterances holds {fields}"
        raise ValueError(f"{none}, which task {task} needs")

    if limit is None or len(found) <= limit:
        return found
    chosen = []
    for number in range(limit):
        index = number * len(found) // limit
        chosen.append(found[index])
    return chosen


def reference_lines(utterances: list[Utterance], task: str) -> str:
    """Write the targets of utterances as ``key target`` lines, for compute-wer.py."""
    parsed, lines = tasks.parse(task), []
    for utterance in utterances:
        # One line per utterance, and a key without white space, as recognize writes its text.
        key = re.sub(r"\s", "_", utterance.key)
        target = " ".join(parsed.write(utterance).split())
        lines.append(f"{key} {target}\n")
    return "".join(lines)
