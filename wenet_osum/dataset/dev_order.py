"""The order in which a dev list is read, and its batches by process."""

from __future__ import annotations

import numpy as np

from wenet_osum.dataset.compose import Costs
from wenet_osum.dataset.pool import Pool


def from_long_to_short(pool: Pool, limit: int | None) -> tuple[np.ndarray, Costs]:
    """Return each utterance of a pool once, or ``limit`` evenly spread ones.

    Returns the draws of a ``SpeechDataset``, each asked its first task, and their costs.
    """
    chosen = np.arange(len(pool))
    if limit and limit < len(pool):
        spread = np.linspace(
            0,
            len(pool) - 1,
            limit,
        )
        chosen = spread.round().astype(int)
    frames = pool.frames[chosen]
    longest_first = np.argsort(-frames, kind="stable")
    order = chosen[longest_first]
    asked = pool.eligible[order].argmax(axis=1)
    zero = np.zeros(len(order), dtype=np.int64)
    columns = (
        zero,
        pool.shard[order],
        pool.row[order],
        asked,
        zero,
    )
    costs = Costs(
        pool.frames[order],
        pool.tokens[order, asked],
        pool.recordings[order],
    )
    return np.stack(columns, axis=1), costs


def share_out(starts: list[int], end: int, world_size: int) -> np.ndarray:
    """Return first and end of each batch, (batches, 2), with fillers: each rank has as many."""
    ends = [*starts[1:], end]
    items = [*zip(starts, ends, strict=True)]
    fillers = -len(starts) % world_size
    items += [(end, end)] * fillers
    return np.array(items, dtype=np.int64)
