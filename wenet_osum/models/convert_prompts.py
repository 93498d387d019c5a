"""The prompt_config.yaml that lies beside a published OSUM checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wenet_osum import tasks


def about_prompts(table: dict[str, Any], left_out: list[str]) -> list[str]:
    """Say which prompts the folder has."""
    if table:
        said = [f"prompts of {len(table)} tasks"]
    else:
        said = ["no --prompts: the toolkit's own will be asked, which it was not trained with"]
    if left_out:
        names = ", ".join(left_out)
        said.append(f"prompts left out, no such task here: {names}")
    return said


def read_prompts(path: str | Path | None) -> tuple[dict[str, Any], list[str]]:
    """Read the prompts of a yaml {tags: [sentence, …]} by tags, and the entries whose tags are no
    task.

    Raises ValueError when it cannot be read.
    """
    if path is None:
        return {}, []
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--prompts {path} cannot be read: {reason}; "
            "give a yaml with {task tags: [sentence, …]}"
        ) from None
    if not isinstance(table, dict):
        kind = type(table).__name__
        raise ValueError(
            f"--prompts {path} must be a table {{task tags: [sentence, …]}}, got {kind}"
        )
    known: dict[str, Any] = {}
    left_out = []
    for name, rows in table.items():
        if _is_task(name):
            known[name] = rows
        else:
            left_out.append(str(name))
    if not known:
        names = ", ".join(left_out) or "its 0 entries"
        raise ValueError(
            f"--prompts {path}: none of {names} is a task, e.g. <TRANSCRIBE> <EMOTION>; "
            "give another yaml"
        )
    return known, left_out


def _is_task(name: Any) -> bool:
    try:
        tasks.parse(str(name))
    except ValueError:
        return False
    return True
