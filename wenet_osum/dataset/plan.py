"""Plan the order of one epoch, fixed by (seed, epoch) from the indices alone.

The sequence of micro-batches does not depend on the number of ranks; ranks take turns in it.

    draw_source  which utterances, how often, asked what   (draw.py)
    arrange      in which order                            (arrange.py)
    compose      which of them make a micro-batch          (compose.py)

Letters: D draws, G micro-batches, W ranks.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.arrange import arrange
from wenet_osum.dataset.augment import make_rng
from wenet_osum.dataset.draw import Draws, chunks, count_draws, draw_source, of_pool
from wenet_osum.dataset.pool import Pool


class Plan:
    """One epoch. Micro-batch g is the draws ``bounds[g]`` to ``bounds[g + 1]``.

    A draw is kept as its utterance's position in the pool, its task and its repeat, about 7 bytes;
    what else is known of it is looked up in the pools when it is asked for: ``shard``, ``row``,
    ``frames``, ``recordings``, ``tokens`` and ``seconds``.
    """

    def __init__(
        self,
        pools: list[Pool],
        batch: BatchConfig,
        seed: int,
        epoch: int,
        world_size: int = 1,
        accumulation: int = 1,
        draws: list[Draws] | None = None,
    ) -> None:
        """Plan a whole epoch, or ``draws``: what is left of one that was begun under another plan.

        Raises ValueError when there is nothing to draw.
        """
        self.pools = pools
        self.world_size = world_size
        self.accumulation = accumulation
        # utterances left out, and those not asked one of their source's tasks, by reason
        self.dropped = sum((pool.dropped for pool in pools), Counter())
        self.restricted = sum((pool.restricted for pool in pools), Counter())
        if draws is None:
            draws = []
            for number, pool in enumerate(pools):
                own = draw_source(
                    number,
                    pool,
                    seed,
                    epoch,
                )
                draws.append(own)
        if not count_draws(draws):
            raise ValueError(
                f"epoch {epoch} draws no utterance from {len(pools)} sources; "
                "raise their weights, or add data"
            )
        generator = make_rng(seed, epoch, "order")
        self.arranged, place = arrange(draws, batch, generator)
        self.bounds = self.arranged.bounds  # (G + 1,) int64

        # (D,) unsigned each, in reading order: where the utterance lies in its pool, its number
        # among the pool's tasks, earlier draws of it in this epoch
        self.source = self.arranged.source
        self.position = self._in_order(draws, place, "position")
        self.task = self._in_order(draws, place, "task")
        self.repeat = self._in_order(draws, place, "repeat")

    def _in_order(self, draws: list[Draws], place: np.ndarray, name: str) -> np.ndarray:
        """Return a column of the draws in reading order, (D,); ``place`` is theirs in a source."""
        source = self.source
        columns = [part[name] for part in draws]
        if len(columns) == 1:
            return columns[0][place]
        kind = np.result_type(*columns)
        ordered = np.empty(len(source), dtype=kind)
        for number, column in enumerate(columns):
            of_source = source == number
            mine = np.flatnonzero(of_source)
            ordered[mine] = column[place[mine]]
        return ordered

    def take(self, name: str, first: int, end: int) -> np.ndarray:
        """Return what the pools say of the draws from ``first`` to ``end``: shard, frames, …"""
        rows = slice(first, end)
        source, position, task = self.source[rows], self.position[rows], self.task[rows]
        found = None
        for number, pool in enumerate(self.pools):
            of_source = source == number
            mine = np.flatnonzero(of_source)
            values = of_pool(
                pool,
                name,
                position[mine],
                task[mine],
            )
            if found is None:
                found = np.empty(len(source), dtype=values.dtype)
            found[mine] = values
        return found

    def column(self, name: str) -> np.ndarray:
        """Look up a column of all draws, (D,), as ``take`` does."""
        return self.take(name, 0, len(self.position))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def draws(self) -> PlannedDraws:
        """Return source, shard, row, task and repeat of every draw, (D, 5)."""
        return PlannedDraws(self)

    def items(self, rank: int, start: int = 0) -> np.ndarray:
        """Return what a rank reads after ``start`` global micro-batches are done.

        The result is (micro-batches, 2), first draw and end; equal ones are fillers. Every rank
        gets the same number, a multiple of ``accumulation``. Micro-batches that do not fill the
        last step are split until they do; fillers stand in where there are fewer utterances than
        places.
        """
        assert 0 <= rank < self.world_size, (rank, self.world_size)
        assert start >= 0, start
        first, end = self.bounds[:-1], self.bounds[1:]
        every = np.stack([first, end], axis=1)
        pairs = every[start:]
        step = self.world_size * self.accumulation
        whole = len(pairs) // step * step
        if whole < len(pairs):
            left = pairs[whole:].tolist()
            last = self._fill(left, step)
            pairs = np.concatenate([pairs[:whole], last])
        return pairs[rank :: self.world_size]

    def _fill(self, pieces: list[list[int]], step: int) -> list[list[int]]:
        """Split the largest micro-batches until there are ``step`` of them."""
        while len(pieces) < step:
            sizes = [self._size_to_split(*piece) for piece in pieces]
            largest = int(np.argmax(sizes))
            if not sizes[largest]:
                # nothing is left to split: the others are empty
                _, last = pieces[-1]
                fillers = step - len(pieces)
                return pieces + [[last, last]] * fillers
            first, end = pieces[largest]
            middle = (first + end) // 2
            halves = [[first, middle], [middle, end]]
            pieces[largest : largest + 1] = halves
        return pieces

    def _size_to_split(self, first: int, end: int) -> int:
        """Return the frames of a micro-batch with padding; 0 where it cannot be split."""
        if end - first <= 1:
            return 0
        frames = self.take("frames", first, end)
        recordings = self.take("recordings", first, end)
        return int(recordings.sum()) * int(frames.max())

    def expected_hours(self) -> dict[str, float]:
        """Return the hours of recordings in this epoch by ``source/task``."""
        most = max(len(pool.tasks) for pool in self.pools)
        size = most * len(self.pools)
        draws, seconds = np.zeros((2, size))
        for rows in chunks(len(self.position)):
            source = self.source[rows].astype(np.int64)
            kind = source * most + self.task[rows]
            lasting = self.take("seconds", rows.start, rows.stop)
            draws += np.bincount(kind, minlength=size)
            seconds += np.bincount(
                kind,
                weights=lasting,
                minlength=size,
            )
        hours = {}
        for number, pool in enumerate(self.pools):
            for position, task in enumerate(pool.tasks):
                kind = number * most + position
                if not draws[kind]:
                    continue
                name = f"{pool.source.name}/{task.name}"
                hours[name] = float(seconds[kind]) / 3600
        return hours

    def costs(self) -> dict[str, np.ndarray]:
        """Return what each micro-batch takes of each budget, (G,)."""
        return {
            "frames": self.arranged.frames,
            "tokens": self.arranged.tokens,
            "utterances": np.diff(self.bounds),
        }

    def padding_share(self) -> float:
        """Return the share of frames the encoder computes that are padding, 0 to 1."""
        arranged = self.arranged
        computed = int(arranged.frames.sum())
        spoken = arranged.spoken / computed
        return 1.0 - spoken

    def longest(self, n: int = 1) -> list[int]:
        """Return the numbers of the micro-batches that the rehearsal tries.

        They are the ``n`` largest by each budget, and the ``n`` with the longest utterance.
        """
        chosen = []
        budgets = self.costs().values()
        for cost in (*budgets, self.arranged.longest):
            largest = np.argsort(-cost, kind="stable")
            chosen += largest[:n].tolist()
        return [*dict.fromkeys(chosen)]


class PlannedDraws:
    """The draws of a plan as rows of source, shard, row, task and repeat, made when asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan.position)

    def __getitem__(self, draw: int) -> np.ndarray:
        """Return one draw, (5,) int64."""
        plan = self.plan
        source = int(plan.source[draw])
        pool = plan.pools[source]
        position = plan.position[draw]
        row = (
            source,
            pool.shard[position],
            pool.row[position],
            plan.task[draw],
            plan.repeat[draw],
        )
        return np.array(row, dtype=np.int64)
