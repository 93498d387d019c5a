"""Draw an epoch: how often each utterance, for which task, and when its shard is read.

Letters: D draws, T tasks of a source.

Weights. An utterance of a source with weight w has been drawn floor(E·w + phase) times after E
epochs, its phase spread evenly over [0, 1) by the seed. So an epoch holds n·w draws (± 1), and over
any number of epochs no utterance is drawn more than once oftener than another.

Tasks. Each draw goes to one of the tasks that the utterance can be asked, with probability share ÷
(sum of the shares of those tasks); the numbers are exact (± 1) for each set of such tasks.
``{ser: 1.0, asr: 0.5}`` with weight 1 asks two thirds ser and one third asr.
"""

from __future__ import annotations

import numpy as np

from wenet_osum.dataset.augment import rng
from wenet_osum.dataset.pool import Pool

# draws of one source in any order, all (D,): source, shard, row, task, repeat (how often the epoch
# has drawn the utterance before), frames, tokens, seconds, shard_pass
Draws = dict[str, np.ndarray]


def count_draws(parts: list[Draws]) -> int:
    """Return how many draws the parts hold."""
    return sum(len(part["row"]) for part in parts)


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

    draw = rng(seed, epoch, f"draw {name}")
    task = _share_out(
        pool.eligible[who],
        pool.shares,
        draw,
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
        "tokens": pool.tokens[who, task].astype(np.int64),
        "seconds": pool.seconds[who],
        "shard_pass": _shard_passes(
            shard,
            repeat,
            len(pool.indices),
            weight,
            draw,
        ),
    }


def _times_drawn(pool: Pool, seed: int, epoch: int) -> np.ndarray:
    """Return how often an epoch draws each utterance of a source, (n,) int64."""
    n, weight = len(pool), pool.source.weight
    draw = rng(
        seed,
        0,
        f"phase {pool.source.name}",
    )
    phase = (draw.permutation(n) + 0.5) / n
    passed = pool.passes_before
    if passed is None:
        begins, ends = epoch * weight, (epoch + 1) * weight
    else:
        begins, ends = passed, passed + weight
    times = np.floor(ends + phase) - np.floor(begins + phase)
    return times.astype(np.int64)


def _share_out(eligible: np.ndarray, shares: np.ndarray, draw: np.random.Generator) -> np.ndarray:
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
        places = draw.permutation(len(rows)) + draw.random()
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
    draw: np.random.Generator,
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
        places = draw.permutation(shards) + draw.random(shards)
        begin = number + places / shards * length
        whole = max(weight, number + length)
        moments[number] = begin / whole
    return moments[repeat, shard]
