"""The user's own prompts: a table by task and language, from a yaml or a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wenet_osum import tasks
from wenet_osum.text import slots

LANGUAGES = ("zh", "en")
# Characters of a value that a message shows.
SHOWN = 80

# Task tags → language → sentences.
PromptTable = dict[str, dict[str, list[str]]]


def read_prompts(source: dict | str | Path | None) -> PromptTable:
    """Read a prompt table by canonical tags.

    Raises ValueError for a malformed table or an unknown task.
    """
    if source is None:
        return {}
    table = source
    if not isinstance(source, dict):
        text = Path(source).read_text(encoding="utf-8")
        table = yaml.safe_load(text)
    if not isinstance(table, dict):
        kind = type(table).__name__
        raise ValueError(
            f"prompts {source} must be a table {{task: {{zh: […], en: […]}}}}, got {kind}"
        )
    read = {}
    for name, rows in table.items():
        if isinstance(rows, list):
            rows = {"zh": rows}
        if not _is_prompts(rows):
            shown = str(rows)[:SHOWN]
            raise ValueError(
                f"prompts of {name!r} must be {{zh: [sentence, …], en: [sentence, …]}}, got {shown}"
            )
        for texts in rows.values():
            for text in texts:
                slots.check(text)
        task = tasks.parse(name)
        read[task.tags] = {lang: list(texts) for lang, texts in rows.items()}
    return read


def _is_prompts(rows: Any) -> bool:
    """Return whether it is a table of sentences by language, at least one in each."""
    if not isinstance(rows, dict):
        return False
    for lang, texts in rows.items():
        if lang not in LANGUAGES or not texts:
            return False
        if not all(isinstance(text, str) for text in texts):
            return False
    return True
