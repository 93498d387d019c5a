"""Give every draw its place in the epoch: sources in their shares, shards one after another.

Each source is shuffled in a window of its own that slides over its shards, and goes on at an even
pace through the epoch. So a step holds all sources in their shares, as if it were drawn at random,
while each source is read near-sequentially.

Letters: D draws, G micro-batches.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.compose import Costs, compose
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
    draws = _mixed(parts, batch, draw)
    group = _groups(draws, parts, batch)

    # a group from long to short: neighbors make micro-batches that are padded little
    frames = draws["frames"]
    by_length = np.argsort(
        group * (1 << 32) - frames,
        kind="stable",
    )

    # a kind is a source asked one of its tasks: all that a step should hold in its share
    tasks = int(draws["task"].max()) + 1
    kind = draws["source"] * tasks + draws["task"]
    borders = np.flatnonzero(np.diff(group)) + 1
    orders, sizes = [], []
    for rows in np.split(by_length, borders):
        costs = Costs(
            frames[rows],
            draws["tokens"][rows],
            draws["recordings"][rows],
        )
        order, size = compose(
            costs,
            kind[rows],
            batch,
            draw.random(),
        )
        orders.append(rows[order])
        sizes.append(size)
    ordered = _rows(draws, np.concatenate(orders))
    ends = np.cumsum(np.concatenate(sizes))
    return ordered, np.concatenate([[0], ends])


def _mixed(parts: list[Draws], batch: BatchConfig, draw: np.random.Generator) -> Draws:
    """Spread every source over the whole epoch.

    Any stretch of the result holds all sources in their shares.
    """
    window = shards_side_by_side(batch.window, len(parts))
    moments = [_moments(part["shard_pass"], window, draw) for part in parts]
    draws = {}
    for name in parts[0]:
        draws[name] = np.concatenate([part[name] for part in parts])
    in_time = np.argsort(np.concatenate(moments), kind="stable")
    return _rows(draws, in_time)


def _rows(draws: Draws, rows: np.ndarray) -> Draws:
    """Return some draws, or all in another order."""
    return {name: column[rows] for name, column in draws.items()}


def _groups(draws: Draws, parts: list[Draws], batch: BatchConfig) -> np.ndarray:
    """Return the number of the stretch of the epoch that each draw lies in, (D,).

    Stretches are long enough that their utterances can be sorted by length with little padding,
    and touch few shards.
    """
    passes = [len(np.unique(part["shard_pass"])) for part in parts]
    by_shards = sum(passes) / min(batch.window, GROUP_SHARDS)
    by_size = _micro_batches(draws, batch) / GROUP
    groups = ceil(max(by_size, by_shards))
    size = len(draws["row"])
    return np.arange(size) * groups // size


def shards_side_by_side(window: int, sources: int) -> int:
    """Share the open files among the sources: at most ``window`` shards of each side by side.

    Two neighboring groups of the epoch meet those, the shards that come up meanwhile, and one more
    of each source at the border.
    """
    fitting = (
        OPEN_FILES
        - 2
        * min(
            window,
            GROUP_SHARDS,
        )
    ) // sources - 1
    return max(1, min(window, fitting))


def files_needed(window: int, sources: int) -> int:
    """Return how many files a data process keeps open, so that none is opened twice in a group."""
    return max(
        OPEN_FILES,
        2 * min(window, GROUP_SHARDS) + 2 * sources,
    )


def _moments(shard_pass: np.ndarray, window: int, draw: np.random.Generator) -> np.ndarray:
    """Give each draw of a source its moment in [0, 1), (n,); at any time ``window`` shards mix.

    A shard is read during as much of the epoch as ``window`` shards take, each draw at a random
    moment of it, so that one shard comes up where another ends. Ranks then make the moments even:
    the source goes on at the same pace from the beginning of the epoch to its end.
    """
    size = len(shard_pass)
    shards, position = np.unique(shard_pass, return_inverse=True)
    if len(shards) <= window:
        position = np.zeros_like(position)
    begin = position + window * draw.random(size)
    order = np.argsort(begin, kind="stable")
    places = np.arange(size) + draw.random()
    moment = np.empty(size)
    moment[order] = places / max(1, size)
    return moment


def _micro_batches(draws: Draws, batch: BatchConfig) -> float:
    """Return how many micro-batches the draws would fill without padding."""
    every = draws["frames"] * draws["recordings"]
    frames = int(every.sum(dtype=np.int64))
    tokens = int(draws["tokens"].sum(dtype=np.int64))
    return max(
        frames / batch.max_frames,
        tokens / batch.max_tokens,
        len(draws["frames"]) / batch.max_utterances,
    )
