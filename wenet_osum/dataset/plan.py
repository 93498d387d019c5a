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
from wenet_osum.dataset.augment import rng
from wenet_osum.dataset.draw import Draws, chunks, count_draws, draw_source, of_pool
from wenet_osum.dataset.pool import Pool

# columns of a plan that the pools know
LOOKED_UP = ("shard", "row", "frames", "recordings", "tokens", "seconds")


class Plan:
    """One epoch. Micro-batch g is the draws ``bounds[g]`` to ``bounds[g + 1]``.

    A draw is kept as its utterance's position in the pool, its task and its repeat, about 7 bytes;
    the columns ``shard``, ``row``, ``frames``, ``recordings``, ``tokens`` and ``seconds`` are
    looked up in the pools when they are asked for.
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
            draws = [
                draw_source(
                    number,
                    pool,
                    seed,
                    epoch,
                )
                for number, pool in enumerate(pools)
            ]
        if not count_draws(draws):
            raise ValueError(
                f"epoch {epoch} draws no utterance from {len(pools)} sources; "
                "raise their weights, or add data"
            )
        self.arranged = arrange(
            draws,
            batch,
            rng(seed, epoch, "order"),
        )
        self.bounds = self.arranged.bounds  # (G + 1,) int64

        # (D,) unsigned each, in reading order: where the utterance lies in its pool, its number
        # among the pool's tasks, earlier draws of it in this epoch
        self.source = self.arranged.source
        self.who = self._in_order(draws, "who")
        self.task = self._in_order(draws, "task")
        self.repeat = self._in_order(draws, "repeat")
        del self.arranged.place

    def _in_order(self, draws: list[Draws], name: str) -> np.ndarray:
        """Return a column of the draws in reading order, (D,)."""
        source, place = self.source, self.arranged.place
        columns = [part[name] for part in draws]
        if len(columns) == 1:
            return columns[0][place]
        ordered = np.empty(
            len(source),
            dtype=np.result_type(*columns),
        )
        for number, column in enumerate(columns):
            mine = np.flatnonzero(source == number)
            ordered[mine] = column[place[mine]]
        return ordered

    def take(self, name: str, first: int, end: int) -> np.ndarray:
        """Return what the pools say of the draws from ``first`` to ``end``: shard, frames, …"""
        rows = slice(first, end)
        source, who, task = self.source[rows], self.who[rows], self.task[rows]
        found = None
        for number, pool in enumerate(self.pools):
            mine = np.flatnonzero(source == number)
            values = of_pool(
                pool,
                name,
                who[mine],
                task[mine],
            )
            if found is None:
                found = np.empty(len(source), dtype=values.dtype)
            found[mine] = values
        return found

    def __getattr__(self, name: str) -> np.ndarray:
        """Look up a column of all draws, (D,)."""
        if name not in LOOKED_UP:
            raise AttributeError(name)
        return self.take(name, 0, len(self.who))

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
        pairs = np.stack(
            [first, end],
            axis=1,
        )[start:]
        step = self.world_size * self.accumulation
        whole = len(pairs) // step * step
        if whole < len(pairs):
            last = self._fill(
                pairs[whole:].tolist(),
                step,
            )
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
        longest = self.take("frames", first, end).max()
        recordings = self.take("recordings", first, end).sum()
        return int(recordings) * int(longest)

    def expected_hours(self) -> dict[str, float]:
        """Return the hours of recordings in this epoch by ``source/task``."""
        most = max(len(pool.tasks) for pool in self.pools)
        size = most * len(self.pools)
        draws, seconds = np.zeros((2, size))
        for rows in chunks(len(self.who)):
            kind = self.source[rows].astype(np.int64) * most + self.task[rows]
            lasting = self.take("seconds", rows.start, rows.stop)
            draws += np.bincount(kind, minlength=size)
            seconds += np.bincount(kind, weights=lasting, minlength=size)
        hours = {}
        for number, pool in enumerate(self.pools):
            for position, task in enumerate(pool.tasks):
                kind = number * most + position
                if draws[kind]:
                    hours[f"{pool.source.name}/{task.name}"] = float(seconds[kind]) / 3600
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
        computed = int(self.arranged.frames.sum())
        return 1.0 - self.arranged.spoken / computed

    def longest(self, n: int = 1) -> list[int]:
        """Return the numbers of the micro-batches that the rehearsal tries.

        They are the ``n`` largest by each budget, and the ``n`` with the longest utterance.
        """
        chosen = []
        for cost in (*self.costs().values(), self.arranged.longest):
            largest = np.argsort(-cost, kind="stable")
            chosen += largest[:n].tolist()
        return [*dict.fromkeys(chosen)]


class PlannedDraws:
    """The draws of a plan as rows of source, shard, row, task and repeat, made when asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan.who)

    def __getitem__(self, draw: int) -> np.ndarray:
        """Return one draw, (5,) int64."""
        plan = self.plan
        source = int(plan.source[draw])
        pool, who = plan.pools[source], plan.who[draw]
        row = (
            source,
            pool.shard[who],
            pool.row[who],
            plan.task[draw],
            plan.repeat[draw],
        )
        return np.array(row, dtype=np.int64)
