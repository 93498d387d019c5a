"""Give every draw its place in the epoch: sources in their shares, shards one after another.

Each source is shuffled in a window of its own that slides over its shards, and goes on at an even
pace through the epoch. So a step holds all sources in their shares, as if it were drawn at random,
while each source is read near-sequentially.

Letters: D draws, G micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.columns import narrow
from wenet_osum.dataset.compose import Costs, compose
from wenet_osum.dataset.draw import Draws, count_draws

# micro-batches cut from utterances sorted by length together: fewer pad more, more need more files
GROUP = 150
GROUP_SHARDS = 4  # shards whose draws make a group at most, where shards are small
OPEN_FILES = 32  # files that a data process keeps open


@dataclass
class Arranged:
    """The draws of an epoch in reading order, and its micro-batches with what they cost."""

    source: np.ndarray  # (D,) unsigned
    bounds: np.ndarray  # (G + 1,) int64
    frames: np.ndarray  # (G,) int64, with padding
    tokens: np.ndarray  # (G,) int64
    longest: np.ndarray  # (G,) int64, frames of the longest recording
    spoken: int  # frames without padding


def arrange(
    parts: list[Draws], batch: BatchConfig, rng: np.random.Generator
) -> tuple[Arranged, np.ndarray]:
    """Put the draws of all sources into reading order and cut them into micro-batches.

    Returns them with the place of each among the draws of its source, (D,) unsigned.
    One stretch of the epoch is looked at after the other, so memory holds the costs of one alone.
    """
    source, place = _mixed(parts, batch, rng)
    tasks = 1 + max(int(part.task.max(initial=0)) for part in parts)
    sizes, costs, spoken = [], [], 0
    for rows in _groups(parts, batch):
        numbers, places = source[rows], place[rows]
        of_group, task = _costs(parts, numbers, places)

        # a group from long to short: neighbors make micro-batches that are padded little
        by_length = np.argsort(-of_group.frames, kind="stable")
        sorted_costs = of_group.take(by_length)

        # a kind is a source asked one of its tasks: all that a step should hold in its share
        kind = numbers.astype(np.int64) * tasks + task
        sorted_kind = kind[by_length]
        phase = rng.random()
        order, size = compose(
            sorted_costs,
            sorted_kind,
            batch,
            phase,
        )
        reading = by_length[order]
        source[rows] = numbers[reading]
        place[rows] = places[reading]
        sizes.append(size)
        costs.append(_sums(sorted_costs.take(order), size))
        spoken += of_group.spoken()
    all_sizes = np.concatenate(sizes)
    ends = np.cumsum(all_sizes)
    bounds = np.concatenate([[0], ends])
    frames, tokens, longest = np.concatenate(costs, axis=1)
    arranged = Arranged(
        source=source,
        bounds=bounds,
        frames=frames,
        tokens=tokens,
        longest=longest,
        spoken=spoken,
    )
    return arranged, place


def _costs(parts: list[Draws], source: np.ndarray, place: np.ndarray) -> tuple[Costs, np.ndarray]:
    """Return what the draws at ``place`` of their sources cost, and their tasks."""
    size = len(source)
    columns = np.zeros((4, size), dtype=np.int64)
    frames, tokens, recordings, task = columns
    for part in parts:
        of_source = source == part.number
        mine = np.flatnonzero(of_source)
        rows = place[mine]
        frames[mine] = part.take("frames", rows)
        tokens[mine] = part.take("tokens", rows)
        recordings[mine] = part.take("recordings", rows)
        task[mine] = part.task[rows]
    return Costs(frames, tokens, recordings), task


def _sums(costs: Costs, sizes: np.ndarray) -> np.ndarray:
    """Return padded frames, tokens and longest recording of each micro-batch, (3, G) int64.

    ``costs`` are those of the utterances in reading order.
    """
    starts = np.cumsum(sizes) - sizes
    recordings = np.add.reduceat(costs.recordings, starts)
    longest = np.maximum.reduceat(costs.frames, starts)
    tokens = np.add.reduceat(costs.tokens, starts)
    padded = recordings * longest
    return np.stack([padded, tokens, longest])


def _mixed(
    parts: list[Draws], batch: BatchConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Spread every source over the whole epoch: the source and its draw, (D,) both.

    Any stretch of the result holds all sources in their shares.
    """
    window = shards_side_by_side(batch.window, len(parts))
    orders, moments = [], []
    for part in parts:
        order, begin = _in_time(part, window, rng)
        orders.append(order)
        moments.append(begin)
    sizes = [len(order) for order in orders]
    every = np.arange(len(parts))
    numbers = narrow(every)
    source = np.repeat(numbers, sizes)
    place = np.concatenate(orders)
    if len(parts) == 1:
        return source, place

    # each source is in order already, which a stable sort makes use of
    orders.clear()
    together = np.concatenate(moments)
    moments.clear()
    in_time = np.argsort(together, kind="stable")
    return source[in_time], place[in_time]


def _groups(parts: list[Draws], batch: BatchConfig) -> Iterator[slice]:
    """Cut the epoch into stretches of neighboring draws.

    They are long enough that their utterances can be sorted by length with little padding, and
    touch few shards.
    """
    passes = sum(part.passes for part in parts)
    of_group = min(batch.window, GROUP_SHARDS)
    by_shards = passes / of_group
    by_size = _micro_batches(parts, batch) / GROUP
    groups = ceil(max(by_size, by_shards))
    size = count_draws(parts)
    number = np.arange(groups + 1)
    rounded_up = -(-number * size // groups)
    borders = np.unique(rounded_up)
    for first, end in pairwise(borders.tolist()):
        yield slice(first, end)


def shards_side_by_side(window: int, sources: int) -> int:
    """Share the open files among the sources: at most ``window`` shards of each side by side.

    Two neighboring groups of the epoch meet those, the shards that come up meanwhile, and one more
    of each source at the border.
    """
    of_group = min(window, GROUP_SHARDS)
    left = OPEN_FILES - 2 * of_group
    fitting = left // sources - 1
    most = min(window, fitting)
    return max(1, most)


def files_needed(window: int, sources: int) -> int:
    """Return how many files a data process keeps open, so that none is opened twice in a group."""
    of_group = min(window, GROUP_SHARDS)
    needed = 2 * of_group + 2 * sources
    return max(OPEN_FILES, needed)


def _in_time(part: Draws, window: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Order the draws of a source, (n,), and give each its moment in [0, 1), (n,), in that order.

    A shard is read during as much of the epoch as ``window`` shards take, each draw at a random
    moment of it, so that one shard comes up where another ends. Ranks then make the moments even:
    the source goes on at the same pace from the beginning of the epoch to its end.
    """
    size = len(part)
    begin = rng.random(size)
    begin *= window
    if part.passes > window:
        begin += part.shard_pass
    order = np.argsort(begin, kind="stable")
    places = np.arange(size) + rng.random()
    places /= max(1, size)
    return narrow(order), places


def _micro_batches(parts: list[Draws], batch: BatchConfig) -> float:
    """Return how many micro-batches the draws would fill without padding."""
    totals = [part.totals() for part in parts]
    frames, tokens = np.sum(totals, axis=0).tolist()
    return max(
        frames / batch.max_frames,
        tokens / batch.max_tokens,
        count_draws(parts) / batch.max_utterances,
    )
