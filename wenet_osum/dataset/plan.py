"""Who reads what, when: the order of one epoch, fixed by (seed, epoch) from the indices alone.

The sequence of micro-batches does not depend on the number of ranks; ranks take turns in it. Letters: D draws, G micro-batches, W ranks.

Weights. An utterance of a source with weight w has been drawn floor(E·w + phase) times after E epochs, its phase spread evenly over [0, 1) by
the seed. So an epoch holds n·w draws (± 1), and over any number of epochs no utterance is drawn more than once oftener than another.

Tasks. Each draw goes to one of the tasks that the utterance can be asked, with probability share ÷ (sum of the shares of those tasks); the
numbers are exact (± 1) for each set of such tasks. ``{ser: 1.0, asr: 0.5}`` with weight 1 asks two thirds ser and one third asr.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.augment import rng
from wenet_osum.dataset.pool import Pool


class Plan:
    """One epoch. Draws lie in reading order; micro-batch g is the draws ``bounds[g]`` to ``bounds[g + 1]``."""

    def __init__(self, pools: list[Pool], batch: BatchConfig, seed: int, epoch: int, world_size: int = 1, accumulation: int = 1) -> None:
        """Raises ValueError when the epoch would be empty."""
        self.pools, self.world_size, self.accumulation = pools, world_size, accumulation
        self.dropped = sum((p.dropped for p in pools), Counter())  # utterances left out, by reason
        self.narrowed = sum((p.narrowed for p in pools), Counter())  # utterances not asked one of their source's tasks, by reason
        parts = [_draw(number, pool, seed, epoch) for number, pool in enumerate(pools)]
        draws = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if parts else {}
        if not draws or not len(draws["row"]):
            raise ValueError(f"epoch {epoch} draws no utterance from {len(pools)} sources; raise their weights, or add data")
        self._arrange(draws, batch, rng(seed, epoch, "order"))

    def _arrange(self, draws: dict[str, np.ndarray], batch: BatchConfig, draw: np.random.Generator) -> None:
        """Windows of shards; in each, sorted by length, cut into micro-batches, and these shuffled."""
        visits, place = np.unique(draws.pop("visit"), return_inverse=True)  # a visit is one pass over one shard; its value orders the epoch
        window = place // batch.window
        shuffled = draw.permutation(len(place))  # decides among equal lengths
        order = shuffled[np.argsort((window * (1 << 32) - draws["frames"])[shuffled], kind="stable")]
        frames, tokens, window = draws["frames"][order], draws["tokens"][order], window[order]
        ends = [*(np.flatnonzero(np.diff(window)) + 1).tolist(), len(window)]
        starts = np.array(cut(frames, tokens, ends, batch) or [0], dtype=np.int64)
        sizes = np.diff([*starts.tolist(), len(window)])
        turn = np.lexsort((draw.random(len(starts)), window[starts]))
        order = order[_ranges(starts[turn], sizes[turn])]
        self.bounds = np.concatenate([[0], np.cumsum(sizes[turn])])  # (G + 1,) int64
        self.source, self.shard, self.row = (draws[n][order] for n in ("source", "shard", "row"))  # (D,) where the utterance lies
        self.task, self.repeat = draws["task"][order], draws["repeat"][order]  # (D,) number in the pool's tasks; earlier draws in this epoch
        self.frames, self.tokens, self.seconds = (draws[n][order] for n in ("frames", "tokens", "seconds"))  # (D,)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def items(self, rank: int, start: int = 0) -> np.ndarray:
        """What a rank reads after ``start`` global micro-batches are done: (micro-batches, 2) first draw and end; equal ones are fillers.

        Every rank gets the same number, a multiple of ``accumulation``. Micro-batches that do not fill the last step are split until they do;
        fillers stand in where there are fewer utterances than places.
        """
        assert 0 <= rank < self.world_size and start >= 0, (rank, self.world_size, start)
        pairs = np.stack([self.bounds[:-1], self.bounds[1:]], axis=1)[start:]
        step = self.world_size * self.accumulation
        whole = len(pairs) // step * step
        if whole < len(pairs):
            pairs = np.concatenate([pairs[:whole], self._fill(pairs[whole:].tolist(), step)])
        return pairs[rank :: self.world_size]

    def _fill(self, pieces: list[list[int]], step: int) -> list[list[int]]:
        while len(pieces) < step:
            sizes = [(end - first) * int(self.frames[first:end].max(initial=0)) if end - first > 1 else 0 for first, end in pieces]
            largest = int(np.argmax(sizes))
            if not sizes[largest]:
                last = pieces[-1][1]
                return pieces + [[last, last]] * (step - len(pieces))
            first, end = pieces[largest]
            pieces[largest : largest + 1] = [[first, (first + end) // 2], [(first + end) // 2, end]]
        return pieces

    def expected_hours(self) -> dict[str, float]:
        """Hours of recordings in this epoch by ``source/task``."""
        hours = {}
        for number, pool in enumerate(self.pools):
            for t, task in enumerate(pool.tasks):
                chosen = (self.source == number) & (self.task == t)
                if chosen.any():
                    hours[f"{pool.source.name}/{task.name}"] = float(self.seconds[chosen].sum(dtype=np.float64) / 3600)
        return hours

    def _costs(self) -> dict[str, np.ndarray]:
        """What each micro-batch takes of each budget, (G,)."""
        first = self.bounds[:-1]
        sizes = np.diff(self.bounds)
        return {"frames": sizes * np.maximum.reduceat(self.frames, first), "tokens": np.add.reduceat(self.tokens, first), "utterances": sizes}

    def padding_share(self) -> float:
        """Share of frames the encoder computes that are padding, 0 to 1."""
        return 1.0 - float(self.frames.sum(dtype=np.int64)) / float(self._costs()["frames"].sum())

    def longest(self, n: int = 1) -> list[int]:
        """Global numbers of the ``n`` largest micro-batches by each budget, and of the ``n`` with the longest utterance: for the rehearsal."""
        costs = self._costs() | {"longest": np.maximum.reduceat(self.frames, self.bounds[:-1])}
        chosen = [g for cost in costs.values() for g in np.argsort(-cost, kind="stable")[:n].tolist()]
        return [*dict.fromkeys(chosen)]


def cut(frames: np.ndarray, tokens: np.ndarray, ends: list[int], batch: BatchConfig) -> list[int]:
    """Where micro-batches start: utterances sorted from long to short up to each of ``ends``, cut by the three budgets.

    Every utterance must fit the budgets alone.
    """
    longest, total = frames.tolist(), np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)]).tolist()
    starts, first = [], 0
    for end in ends:
        while first < end:
            starts.append(first)
            fitting = bisect_right(total, total[first] + batch.max_tokens, first) - 1
            first = max(first + 1, min(end, fitting, first + min(batch.max_frames // longest[first], batch.max_utterances)))
    return starts


def _draw(number: int, pool: Pool, seed: int, epoch: int) -> dict[str, np.ndarray]:
    """The draws of one source in one epoch, without order; ``visit`` in [0, 1) places each shard's passes evenly over the epoch."""
    n, weight, name = len(pool), pool.source.weight, pool.source.name
    phase = (rng(seed, 0, f"phase {name}").permutation(n) + 0.5) / n
    times = (np.floor((epoch + 1) * weight + phase) - np.floor(epoch * weight + phase)).astype(np.int64)
    who = np.repeat(np.arange(n), times)
    repeat = np.arange(len(who)) - np.repeat(np.cumsum(times) - times, times)
    draw = rng(seed, epoch, f"draw {name}")
    task = _share_out(pool.able[who], pool.shares, draw)
    shard = pool.shard[who]
    return {
        "source": np.full(len(who), number, dtype=np.int32),
        "shard": shard,
        "row": pool.row[who],
        "task": task,
        "repeat": repeat.astype(np.int32),
        "frames": pool.frames[who].astype(np.int64),
        "tokens": pool.tokens[who, task].astype(np.int64),
        "seconds": pool.seconds[who],
        "visit": _visits(shard, repeat, len(pool.indices), weight, draw),
    }


def _share_out(able: np.ndarray, shares: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A task for every draw: (D, T) bool → (D,) int32. Within draws that have the same choice, shares are met exactly (± 1)."""
    chosen = np.zeros(len(able), dtype=np.int32)
    sets, member = np.unique(np.packbits(able, axis=1), axis=0, return_inverse=True) if able.shape[1] > 1 else ([0], chosen)
    for number in range(len(sets)):
        rows = np.flatnonzero(member.reshape(-1) == number)
        if not len(rows):
            continue
        borders = np.cumsum(np.where(able[rows[0]], shares, 0.0))
        points = (draw.permutation(len(rows)) + draw.random()) / len(rows) * borders[-1]
        chosen[rows] = np.minimum(np.searchsorted(borders, points, side="right"), np.flatnonzero(able[rows[0]])[-1])
    return chosen


def _visits(shard: np.ndarray, repeat: np.ndarray, shards: int, weight: float, draw: np.random.Generator) -> np.ndarray:
    """(D,) the moment in [0, 1) at which a draw's shard is read. Passes follow each other; in each the shards come in a new order."""
    passes = int(repeat.max(initial=-1)) + 1
    moments = np.zeros((max(passes, 1), shards))
    for p in range(passes):
        length = min(1.0, max(weight - p, 0.0)) or 1.0  # the last pass is short when the weight has a fraction
        moments[p] = (p + (draw.permutation(shards) + draw.random(shards)) / shards * length) / max(weight, p + length)
    return moments[repeat, shard]


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers of several ranges, end to end."""
    before = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) + np.repeat(starts - before, sizes)
