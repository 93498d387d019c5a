"""The plan of an epoch with every column of every draw in memory, as the toolkit made it first.

It gives the order that ``wenet_osum.dataset.plan`` gives, for the benchmark that compares them
(index_size.py): ten columns a draw, each copied when sources are joined and again for every order.
Copied from ``draw.py`` and ``arrange.py`` of commit b0e0452.

Letters: n utterances of a source, D draws, G micro-batches.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.arrange import GROUP, GROUP_SHARDS, shards_side_by_side
from wenet_osum.dataset.augment import make_rng
from wenet_osum.dataset.compose import Costs, compose
from wenet_osum.dataset.pool import Pool

Draws = dict[str, np.ndarray]


def plain_plan(
    pools: list[Pool], batch: BatchConfig, seed: int, epoch: int
) -> tuple[Draws, np.ndarray]:
    """Return the draws of an epoch in reading order, and the bounds of its micro-batches."""
    draws = [
        draw_source(
            number,
            pool,
            seed,
            epoch,
        )
        for number, pool in enumerate(pools)
    ]
    return arrange(draws, batch, make_rng(seed, epoch, "order"))


def draw_source(number: int, pool: Pool, seed: int, epoch: int) -> Draws:
    """Draw the utterances of source ``number`` for one epoch."""
    name, weight = pool.source.name, pool.source.weight
    times = _times_drawn(pool, seed, epoch)
    everyone = np.arange(len(pool))
    who = np.repeat(everyone, times)

    # the draws of an utterance stand side by side: which of them is it
    position = np.arange(len(who))
    first_draw = np.cumsum(times) - times
    repeat = position - np.repeat(first_draw, times)

    rng = make_rng(seed, epoch, f"draw {name}")
    task = _share_out(
        pool.eligible[who],
        pool.shares,
        rng,
    )
    shard = pool.shard[who]
    return {
        "source": np.full(
            len(who),
            number,
            dtype=np.int32,
        ),
        "shard": shard,
        "row": pool.row[who],
        "task": task,
        "repeat": repeat.astype(np.int32),
        "frames": pool.frames[who].astype(np.int64),
        "recordings": pool.recordings[who].astype(np.int64),
        "tokens": pool.tokens[who, task].astype(np.int64),
        "seconds": pool.seconds[who],
        "shard_pass": _shard_passes(
            shard,
            repeat,
            len(pool.indices),
            weight,
            rng,
        ),
    }


def _times_drawn(pool: Pool, seed: int, epoch: int) -> np.ndarray:
    """Return how often an epoch draws each utterance of a source, (n,) int64."""
    n, weight = len(pool), pool.source.weight
    rng = make_rng(
        seed,
        0,
        f"phase {pool.source.name}",
    )
    phase = (rng.permutation(n) + 0.5) / n
    passed = pool.passes_before
    if passed is None:
        begins, ends = epoch * weight, (epoch + 1) * weight
    else:
        begins, ends = passed, passed + weight
    times = np.floor(ends + phase) - np.floor(begins + phase)
    return times.astype(np.int64)


def _share_out(eligible: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose a task for every draw: (D, T) bool → (D,) int32.

    Within draws that have the same choice, shares are met exactly (± 1).
    """
    chosen = np.zeros(len(eligible), dtype=np.int32)
    for rows in _same_choice(eligible):
        if not len(rows):
            continue
        tasks = eligible[rows[0]]
        allowed = np.where(tasks, shares, 0.0)
        borders = np.cumsum(allowed)

        # evenly spaced points in random order, each in the stretch of one task
        places = rng.permutation(len(rows)) + rng.random()
        points = places / len(rows) * borders[-1]
        task = np.searchsorted(borders, points, side="right")
        last = np.flatnonzero(tasks)[-1]
        chosen[rows] = np.minimum(task, last)
    return chosen


def _same_choice(eligible: np.ndarray) -> list[np.ndarray]:
    """Group draws, (D, T) bool, by the set of tasks they can be asked: their numbers."""
    draws, tasks = eligible.shape
    if tasks <= 1:
        return [np.arange(draws)]
    bits = np.packbits(eligible, axis=1)
    sets, member = np.unique(bits, axis=0, return_inverse=True)
    groups = []
    for number in range(len(sets)):
        same = member.reshape(-1) == number
        groups.append(np.flatnonzero(same))
    return groups


def _shard_passes(
    shard: np.ndarray,
    repeat: np.ndarray,
    shards: int,
    weight: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the moment in [0, 1) at which a draw's shard is read, (D,).

    Passes follow each other; in each the shards come in a new order.
    """
    passes = int(repeat.max(initial=-1)) + 1
    size = (max(passes, 1), shards)
    moments = np.zeros(size)
    for number in range(passes):
        # the last pass is short when the weight has a fraction
        left = max(weight - number, 0.0)
        length = min(1.0, left) or 1.0
        places = rng.permutation(shards) + rng.random(shards)
        begin = number + places / shards * length
        whole = max(weight, number + length)
        moments[number] = begin / whole
    return moments[repeat, shard]


def arrange(
    parts: list[Draws], batch: BatchConfig, rng: np.random.Generator
) -> tuple[Draws, np.ndarray]:
    """Put the draws of all sources into reading order and cut them into micro-batches.

    Returns the draws, (D,) a column, and the bounds of the micro-batches, (G + 1,) int64.
    """
    draws = _mixed(parts, batch, rng)
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
            rng.random(),
        )
        orders.append(rows[order])
        sizes.append(size)
    ordered = _rows(draws, np.concatenate(orders))
    ends = np.cumsum(np.concatenate(sizes))
    return ordered, np.concatenate([[0], ends])


def _mixed(parts: list[Draws], batch: BatchConfig, rng: np.random.Generator) -> Draws:
    """Spread every source over the whole epoch.

    Any stretch of the result holds all sources in their shares.
    """
    window = shards_side_by_side(batch.window, len(parts))
    moments = [_moments(part["shard_pass"], window, rng) for part in parts]
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


def _moments(shard_pass: np.ndarray, window: int, rng: np.random.Generator) -> np.ndarray:
    """Give each draw of a source its moment in [0, 1), (n,); at any time ``window`` shards mix.

    A shard is read during as much of the epoch as ``window`` shards take, each draw at a random
    moment of it, so that one shard comes up where another ends. Ranks then make the moments even:
    the source goes on at the same pace from the beginning of the epoch to its end.
    """
    size = len(shard_pass)
    shards, position = np.unique(shard_pass, return_inverse=True)
    if len(shards) <= window:
        position = np.zeros_like(position)
    begin = position + window * rng.random(size)
    order = np.argsort(begin, kind="stable")
    places = np.arange(size) + rng.random()
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
