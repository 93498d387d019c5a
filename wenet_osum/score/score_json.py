"""Scores as ``score.json``: everything that ``score`` found, for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wenet_osum.files import write_text
from wenet_osum.records import Score


def read(path: str | Path) -> tuple[dict[str, Any], list[Score]]:
    """Read a ``score.json``; return all that is in it, and its scores.

    Raises ValueError for a file that is missing or holds no scores.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
        return tree, [Score.from_dict(row) for row in tree["scores"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read as scores ({type(error).__name__}: {error}); "
            "`wenet_osum score` writes it into its --out"
        ) from None


def write(scores: Sequence[Score], path: str | Path, meta: dict[str, Any] | None = None) -> None:
    """Write everything for programs: ``{"scores": […], **meta}``; undefined values are null."""
    tree = dict(meta or {})
    tree["scores"] = [dataclasses.asdict(score) for score in scores]
    text = json.dumps(
        _finite(tree),
        ensure_ascii=False,
        indent=1,
        allow_nan=False,
    )
    write_text(path, text + "\n", errors="backslashreplace")


def _finite(value: Any) -> Any:
    """Replace undefined numbers of a tree, which JSON does not have, by None."""
    if isinstance(value, dict):
        found = {}
        for name, entry in value.items():
            found[str(name)] = _finite(entry)
        return found
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
