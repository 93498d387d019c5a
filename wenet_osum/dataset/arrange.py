"""Give every draw its place in the epoch: sources mixed in their shares, shards read one after another.

Each source is shuffled in a window of its own that slides over its shards, and goes on at an even
pace through the epoch. So a step holds all sources in their shares, as if it were drawn at random,
while each source is read near-sequentially.

Letters: D draws, G micro-batches.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.compose import compose
from wenet_osum.dataset.draw import Draws

# micro-batches cut from utterances sorted by length together: fewer pad more, more need more files
GROUP = 150
GROUP_SHARDS = 4  # shards whose draws make a group at most, where shards are small
OPEN_FILES = 32  # files that a data process keeps open


def arrange(
    parts: list[Draws], batch: BatchConfig, draw: np.random.Generator
) -> tuple[Draws, np.ndarray]:
    """Put the draws of all sources into reading order and cut them into micro-batches.

    Returns the draws, (D,) a column, and the bounds of the micro-batches, (G + 1,) int64.
    """
    # every source is spread over the whole epoch, so that any stretch of it holds all of them in
    # their shares
    window = shards_side_by_side(batch.window, len(parts))
    moment = np.concatenate([_moments(part["shard_pass"], window, draw) for part in parts])
    stream = np.argsort(moment, kind="stable")
    draws = {name: np.concatenate([part[name] for part in parts])[stream] for name in parts[0]}

    # stretches of the epoch, long enough that their utterances can be sorted by length with little
    # padding
    passes = sum(len(np.unique(part["shard_pass"])) for part in parts)
    shards = min(batch.window, GROUP_SHARDS)
    groups = ceil(max(_micro_batches(draws, batch) / GROUP, passes / shards))
    group = np.arange(len(stream)) * groups // len(stream)
    by_length = np.argsort(group * (1 << 32) - draws["frames"], kind="stable")

    # a kind is a source asked one of its tasks: all that a step should hold in its share
    kind = draws["source"] * (int(draws["task"].max()) + 1) + draws["task"]
    orders, sizes = [], []
    for rows in np.split(by_length, np.flatnonzero(np.diff(group)) + 1):
        costs = (draws[name][rows] for name in ("frames", "tokens"))
        order, size = compose(*costs, kind[rows], batch, draw.random())
        orders.append(rows[order])
        sizes.append(size)
    order = np.concatenate(orders)
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    return {name: column[order] for name, column in draws.items()}, bounds


def shards_side_by_side(window: int, sources: int) -> int:
    """Share the open files among the sources: at most ``window`` shards of each side by side.

    Two neighboring groups of the epoch meet those, the shards that come up meanwhile, and one more
    of each source at the border.
    """
    fitting = (OPEN_FILES - 2 * min(window, GROUP_SHARDS)) // sources - 1
    return max(1, min(window, fitting))


def files_needed(window: int, sources: int) -> int:
    """Return how many files a data process keeps open, so that none is opened twice in a group."""
    return max(OPEN_FILES, 2 * min(window, GROUP_SHARDS) + 2 * sources)


def _moments(shard_pass: np.ndarray, window: int, draw: np.random.Generator) -> np.ndarray:
    """Give each draw of a source its moment in [0, 1), (n,); ``window`` shards are mixed at any time.

    A shard is read during as much of the epoch as ``window`` shards take, each draw at a random
    moment of it, so that one shard comes up where another ends. Ranks then make the moments even:
    the source goes on at the same pace from the beginning of the epoch to its end.
    """
    shards, position = np.unique(shard_pass, return_inverse=True)
    if len(shards) <= window:
        position = np.zeros_like(position)
    order = np.argsort(position + window * draw.random(len(position)), kind="stable")
    moment = np.empty(len(order))
    moment[order] = (np.arange(len(order)) + draw.random()) / max(1, len(order))
    return moment


def _micro_batches(draws: Draws, batch: BatchConfig) -> float:
    """Return how many micro-batches the draws would fill without padding."""
    frames = draws["frames"].sum(dtype=np.int64) / batch.max_frames
    tokens = draws["tokens"].sum(dtype=np.int64) / batch.max_tokens
    return max(frames, tokens, len(draws["frames"]) / batch.max_utterances)
