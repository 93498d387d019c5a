"""One scorer for all tasks: each field of a task is scored by the metric it names (``metrics/``).

``wer`` and ``cer`` score plain strings. All four functions are loaded when first asked for, so that
``tools/compute-wer.py`` starts without numpy.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"compare_task": "scorer", "score_task": "scorer", "cer": "strings", "wer": "strings"}
__all__ = ["cer", "compare_task", "score_task", "wer"]


def __getattr__(name: str) -> Any:
    """Load a function of this page when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)

    module = importlib.import_module(f"{__name__}.{home}")
    return getattr(module, name)
