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
from wenet_osum.dataset.draw import Draws, count_draws, draw_source
from wenet_osum.dataset.pool import Pool


class Plan:
    """One epoch. Micro-batch g is the draws ``bounds[g]`` to ``bounds[g + 1]``."""

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
        ordered, self.bounds = arrange(draws, batch, rng(seed, epoch, "order"))  # (G + 1,) int64

        # (D,) each, in reading order: where the utterance lies, its number among the pool's tasks,
        # earlier draws of it in this epoch, and what it costs
        self.source = ordered["source"]
        self.shard = ordered["shard"]
        self.row = ordered["row"]
        self.task = ordered["task"]
        self.repeat = ordered["repeat"]
        self.frames = ordered["frames"]
        self.tokens = ordered["tokens"]
        self.seconds = ordered["seconds"]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def draws(self) -> np.ndarray:
        """Return source, shard, row, task and repeat of every draw, (D, 5)."""
        columns = (
            self.source,
            self.shard,
            self.row,
            self.task,
            self.repeat,
        )
        return np.stack(columns, axis=1)

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
        pairs = np.stack([first, end], axis=1)[start:]
        step = self.world_size * self.accumulation
        whole = len(pairs) // step * step
        if whole < len(pairs):
            last = self._fill(pairs[whole:].tolist(), step)
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
        utterances = end - first
        if utterances <= 1:
            return 0
        longest = self.frames[first:end].max()
        return utterances * int(longest)

    def expected_hours(self) -> dict[str, float]:
        """Return the hours of recordings in this epoch by ``source/task``."""
        hours = {}
        for number, pool in enumerate(self.pools):
            for position, task in enumerate(pool.tasks):
                asked = self.task == position
                seconds = self.seconds[asked & (self.source == number)]
                if len(seconds):
                    total = float(seconds.sum(dtype=np.float64))
                    name = f"{pool.source.name}/{task.name}"
                    hours[name] = total / 3600
        return hours

    def costs(self) -> dict[str, np.ndarray]:
        """Return what each micro-batch takes of each budget, (G,)."""
        sizes = np.diff(self.bounds)
        return {
            "frames": sizes * self._longest(),
            "tokens": np.add.reduceat(
                self.tokens,
                self.bounds[:-1],
            ),
            "utterances": sizes,
        }

    def _longest(self) -> np.ndarray:
        """Return the frames of the longest utterance in each micro-batch, (G,)."""
        return np.maximum.reduceat(self.frames, self.bounds[:-1])

    def padding_share(self) -> float:
        """Return the share of frames the encoder computes that are padding, 0 to 1."""
        spoken = int(self.frames.sum(dtype=np.int64))
        computed = int(self.costs()["frames"].sum())
        return 1.0 - spoken / computed

    def longest(self, n: int = 1) -> list[int]:
        """Return the numbers of the micro-batches that the rehearsal tries.

        They are the ``n`` largest by each budget, and the ``n`` with the longest utterance.
        """
        chosen = []
        for cost in (*self.costs().values(), self._longest()):
            largest = np.argsort(-cost, kind="stable")
            chosen += largest[:n].tolist()
        return [*dict.fromkeys(chosen)]
