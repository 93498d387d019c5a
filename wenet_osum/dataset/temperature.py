"""Sources between their sizes and equal shares: p ∝ (utterances · weight)^(1/T).

At T = 1 an epoch holds what the weights say; the higher T, the more alike are the sources' shares.
Soundwave (arXiv 2502.12900) begins at 1 and adds 5 every epoch, so that rare tasks are learned once
speech is understood. The number of draws of an epoch stays the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from wenet_osum.dataset.pool import Pool


def apply(pools: list[Pool], temperatures: Sequence[float], epoch: int) -> list[Pool]:
    """Return the pools with the weights of ``epoch``, and the passes that epochs before have made.

    ``temperatures`` are those of epoch 0, 1, …, the last of all that follow.
    """
    if set(temperatures) == {1.0}:
        return pools
    sizes = np.array([len(pool) for pool in pools])
    weights = np.array([pool.source.weight for pool in pools])
    before = np.zeros(len(pools))
    for earlier in range(epoch):
        value = at(temperatures, earlier)
        before += passes(sizes, weights, value)
    value = at(temperatures, epoch)
    now = passes(sizes, weights, value)

    found = []
    for number, pool in enumerate(pools):
        weight = float(now[number])
        made = float(before[number])
        source = dataclasses.replace(pool.source, weight=weight)
        changed = dataclasses.replace(pool, source=source, passes_before=made)
        found.append(changed)
    return found


def at(temperatures: Sequence[float], epoch: int) -> float:
    """Return the temperature of an epoch."""
    last = len(temperatures) - 1
    return temperatures[min(epoch, last)]


def passes(sizes: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
    """Return how often an epoch passes over each source, (K,), from its utterances and weights."""
    draws = sizes * weights
    total = draws.sum()
    if not total:
        return weights
    # Divided by the largest, so that no power overflows. A source without utterances draws none.
    relative = draws / draws.max()
    shares = relative ** (1 / temperature)
    wanted = total * shares / shares.sum()
    return wanted / np.maximum(sizes, 1)
