"""One test list per task out of one manifest: the utterances that hold all fields of the task."""

from __future__ import annotations

from wenet_osum import tasks
from wenet_osum.records import Utterance


def choose(utterances: list[Utterance], task: str, limit: int | None = None) -> list[Utterance]:
    """The utterances a task can be scored on, in order; at most ``limit``, taken at even distances. Raises ValueError when there are none."""
    wanted = tasks.parse(task)
    found = [u for u in utterances if wanted.present(u)]
    if not found:
        raise ValueError(f"none of {len(utterances)} utterances holds {', '.join(f.name for f in wanted.fields)}, which task {task} needs")
    if limit is None or len(found) <= limit:
        return found
    return [found[i * len(found) // limit] for i in range(limit)]

