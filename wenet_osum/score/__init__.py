"""One scorer for all tasks: each field of a task is scored by the metric it names, and a metric is a file of this folder.

``wer`` and ``cer`` score plain strings. All four functions are loaded when first asked for, so that ``tools/compute-wer.py`` starts without numpy.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"compare_task": "scorer", "score_task": "scorer", "cer": "strings", "wer": "strings"}
__all__ = ["cer", "compare_task", "score_task", "wer"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
