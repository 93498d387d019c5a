"""One scorer for all tasks: each field of a task is scored by the metric it names, and a metric is a file of this folder.

``score_task`` and ``compare_task`` are loaded when first asked for, so that ``tools/compute-wer.py`` starts without numpy.
"""

from __future__ import annotations

from typing import Any

__all__ = ["compare_task", "score_task"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wenet_osum.score import scorer

    return getattr(scorer, name)
