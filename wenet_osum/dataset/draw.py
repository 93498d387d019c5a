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

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wenet_osum.dataset.augment import make_rng
from wenet_osum.dataset.columns import narrow
from wenet_osum.dataset.pool import Pool

CHUNK = 1 << 20  # draws whose costs are looked up together, so that memory stays small


@dataclass
class Draws:
    """Draws of one source in any order.

    An utterance goes by its position in the pool, which knows all else: so a draw takes about 10
    bytes, however much is known of it.
    """

    number: int  # of the source
    pool: Pool
    position: np.ndarray  # (D,) unsigned, the utterance's position in the pool
    task: np.ndarray  # (D,) unsigned, its number among the pool's tasks
    repeat: np.ndarray  # (D,) unsigned, how often the epoch has drawn the utterance before
    # (D,) unsigned, the place of the pass over a shard among all of the source, from 0 on
    shard_pass: np.ndarray
    passes: int  # over shards

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return what the pool or these draws say of each, (D,)."""
        everything = slice(None)
        return self.take(name, everything)

    def take(self, name: str, rows: np.ndarray | slice) -> np.ndarray:
        """Return a column of some draws; costs as int64."""
        if name in ("position", "task", "repeat", "shard_pass"):
            return getattr(self, name)[rows]
        position = self.position[rows]
        task = self.task[rows]
        return of_pool(
            self.pool,
            name,
            position,
            task,
        )

    def totals(self) -> tuple[int, int]:
        """Sum the frames of all recordings, and the tokens."""
        frames, tokens = 0, 0
        for rows in chunks(len(self)):
            recordings = self.take("recordings", rows)
            every = self.take("frames", rows) * recordings
            frames += int(every.sum())
            own = self.take("tokens", rows)
            tokens += int(own.sum())
        return frames, tokens


def of_pool(pool: Pool, name: str, position: np.ndarray, task: np.ndarray) -> np.ndarray:
    """Return what a pool says of the utterances at ``position``, asked ``task``, (n,) both."""
    if name == "tokens":
        return pool.tokens[position, task].astype(np.int64)
    found = getattr(pool, name)[position]
    if name in ("frames", "recordings"):
        return found.astype(np.int64)
    return found


def chunks(size: int) -> Iterator[slice]:
    """Cut ``size`` draws into stretches of ``CHUNK``."""
    for first in range(0, size, CHUNK):
        end = min(first + CHUNK, size)
        yield slice(first, end)


def count_draws(parts: list[Draws]) -> int:
    """Return how many draws the parts hold."""
    return sum(len(part) for part in parts)


def draw_source(number: int, pool: Pool, seed: int, epoch: int) -> Draws:
    """Draw the utterances of source ``number`` for one epoch."""
    name, weight = pool.source.name, pool.source.weight
    times = _times_drawn(pool, seed, epoch)
    position, repeat = _repeated(times)
    rng = make_rng(seed, epoch, f"draw {name}")
    task = _share_out(
        pool.eligible,
        position,
        pool.shares,
        rng,
    )
    shard_pass, passes = _shard_passes(
        pool.shard[position],
        repeat,
        len(pool.indices),
        weight,
        rng,
    )
    return Draws(number, pool, position, task, repeat, shard_pass, passes)


def _times_drawn(pool: Pool, seed: int, epoch: int) -> np.ndarray:
    """Return how often an epoch draws each utterance of a source, (n,) unsigned."""
    n, weight = len(pool), pool.source.weight
    rng = make_rng(
        seed,
        0,
        f"phase {pool.source.name}",
    )
    phase = rng.permutation(n) + 0.5
    phase /= n
    passed = pool.passes_before
    if passed is None:
        begins, ends = epoch * weight, (epoch + 1) * weight
    else:
        begins, ends = passed, passed + weight
    times = np.floor(ends + phase)
    times -= np.floor(begins + phase)
    return narrow(times.astype(np.uint32))


def _repeated(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeat the position of each utterance ``times`` (n,): the positions and which of them it is.

    Both are (D,) unsigned; the draws of an utterance stand side by side.
    """
    every = np.arange(len(times))
    everyone = narrow(every)
    position = np.repeat(everyone, times)
    if times.max(initial=0) <= 1:
        size = len(position)
        return position, np.zeros(size, dtype=np.uint8)
    number = np.arange(len(position))
    first_draw = np.cumsum(times, dtype=np.int64) - times
    number -= np.repeat(first_draw, times)
    return position, narrow(number)


def _share_out(
    eligible: np.ndarray, position: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Choose a task for every draw: eligible (n, T) bool, position (D,) → (D,) unsigned.

    Within draws that have the same choice, shares are met exactly (± 1).
    """
    last_task = max(
        eligible.shape[1] - 1,
        0,
    )
    chosen = np.zeros(
        len(position),
        dtype=np.min_scalar_type(last_task),
    )
    for rows in _same_choice(eligible, position):
        if not len(rows):
            continue
        tasks = eligible[position[rows[0]]]
        allowed = np.where(tasks, shares, 0.0)
        borders = np.cumsum(allowed)

        # evenly spaced points in random order, each in the stretch of one task
        places = rng.permutation(len(rows)) + rng.random()
        last = np.flatnonzero(tasks)[-1]
        if tasks.sum() == 1:
            chosen[rows] = last
            continue
        points = places / len(rows) * borders[-1]
        task = np.searchsorted(borders, points, side="right")
        chosen[rows] = np.minimum(task, last)
    return chosen


def _same_choice(eligible: np.ndarray, position: np.ndarray) -> Iterator[np.ndarray]:
    """Group the draws of ``position``, (D,), by the tasks they can be asked: their numbers."""
    if eligible.shape[1] <= 1:
        yield np.arange(len(position))
        return
    sets, member = _sets(eligible)
    of_draw = member[position]
    present = np.bincount(of_draw, minlength=sets)
    for number in np.flatnonzero(present):
        yield np.flatnonzero(of_draw == number)


def _sets(eligible: np.ndarray) -> tuple[int, np.ndarray]:
    """Number the sets of tasks that occur, (n, T) bool: how many, and that of each row, (n,).

    Sets are in the order of their bits, the first task's first.
    """
    # byte by byte: what was told apart by those before is told apart by the next
    member = np.zeros(len(eligible), dtype=np.uint8)
    count = 1
    for first in range(0, eligible.shape[1], 8):
        byte = np.packbits(
            eligible[:, first : first + 8],
            axis=1,
        )[:, 0]
        joined = member.astype(np.uint32) * 256 + byte
        occurs = np.bincount(joined, minlength=count * 256) > 0
        number = np.cumsum(occurs) - 1
        count = int(occurs.sum())
        member = narrow(number)[joined]
    return count, member


def _shard_passes(
    shard: np.ndarray,
    repeat: np.ndarray,
    shards: int,
    weight: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int]:
    """Put the passes over shards in order: the place of each draw's, (D,), and their number.

    Passes over all shards follow each other; in each the shards come in a new order.
    """
    passes = int(repeat.max()) + 1 if len(repeat) else 0
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

    # those with a draw, by the moment in [0, 1) at which they begin
    drawn = np.zeros(size, dtype=bool)
    for rows in chunks(len(shard)):
        drawn[repeat[rows], shard[rows]] = True
    values, place = np.unique(moments[drawn], return_inverse=True)
    places = np.zeros(size, dtype=np.uint32)
    places[drawn] = place
    return places[repeat, shard], len(values)
