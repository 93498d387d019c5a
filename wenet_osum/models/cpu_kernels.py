"""Limit the compiled kernels that a process keeps on a CPU."""

from __future__ import annotations

import os

# oneDNN keeps one kernel per shape, 1,024 of them by itself. Hours of audio bring a new length with
# every batch, and the kernels of all lengths take gigabytes.
KERNELS = 64
VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def keep_few() -> None:
    """Bound the kernels that oneDNN keeps, unless the user has; call it before the first kernel."""
    if VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = str(KERNELS)
