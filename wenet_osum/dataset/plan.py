"""Who reads what, when: the order of one epoch, fixed by (seed, epoch) from the indices alone.

The sequence of micro-batches does not depend on the number of ranks; ranks take turns in it. Letters: D draws, G micro-batches, W ranks.

Weights. An utterance of a source with weight w has been drawn floor(E·w + phase) times after E epochs, its phase spread evenly over [0, 1) by
the seed. So an epoch holds n·w draws (± 1), and over any number of epochs no utterance is drawn more than once oftener than another.

Tasks. Each draw goes to one of the tasks that the utterance can be asked, with probability share ÷ (sum of the shares of those tasks); the
numbers are exact (± 1) for each set of such tasks. ``{ser: 1.0, asr: 0.5}`` with weight 1 asks two thirds ser and one third asr.

Mixing. Each source is shuffled in a window of its own that slides over its shards, and goes on at
an even pace through the epoch. So a step holds all sources in their shares, as if it were drawn at
random, while each source is read near-sequentially.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from math import ceil

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.augment import rng
from wenet_osum.dataset.pool import Pool

# micro-batches cut from utterances sorted by length together: fewer pad more, more gather a task of
# short utterances in few steps
GROUP = 150
GROUP_SHARDS = 4  # shards whose draws make a group at most, where shards are small
OPEN_FILES = 32  # files that a data process keeps open

# draws of one source in any order: source, shard, row, task, repeat, frames, tokens, seconds, shard_pass
Draws = dict[str, np.ndarray]


class Plan:
    """One epoch. Draws lie in reading order; micro-batch g is the draws ``bounds[g]`` to ``bounds[g + 1]``."""

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
        self.pools, self.world_size, self.accumulation = pools, world_size, accumulation
        self.dropped = sum((p.dropped for p in pools), Counter())  # utterances left out, by reason
        self.restricted = sum((p.restricted for p in pools), Counter())  # utterances not asked one of their source's tasks, by reason
        if draws is None:
            draws = [_draw(number, pool, seed, epoch) for number, pool in enumerate(pools)]
        if not count_draws(draws):
            raise ValueError(f"epoch {epoch} draws no utterance from {len(pools)} sources; raise their weights, or add data")
        self._arrange(draws, batch, rng(seed, epoch, "order"))

    def _arrange(self, parts: list[Draws], batch: BatchConfig, draw: np.random.Generator) -> None:
        """Give every draw its place in the epoch and cut the epoch into micro-batches."""
        # every source is spread over the whole epoch, so that any stretch of it holds all of them
        # in their shares
        window = shards_side_by_side(batch.window, len(parts))
        moment = np.concatenate([_moments(part["shard_pass"], window, draw) for part in parts])
        stream = np.argsort(moment, kind="stable")
        draws = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

        # stretches of the epoch, long enough that their utterances can be sorted by length with
        # little padding
        passes_read = sum(len(np.unique(part["shard_pass"])) for part in parts)
        shards = min(batch.window, GROUP_SHARDS)
        groups = ceil(max(_micro_batches(draws, batch) / GROUP, passes_read / shards))
        group = np.arange(len(stream)) * groups // len(stream)
        order = stream[np.argsort(group * (1 << 32) - draws["frames"][stream], kind="stable")]

        # a micro-batch is a run of neighbors in length; any few of them in a row hold all lengths
        # of their group evenly, and so all sources, though one may have short utterances alone
        ends = [*(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
        starts = np.array(cut(draws["frames"][order], draws["tokens"][order], ends, batch), dtype=np.int64)
        sizes = np.diff([*starts.tolist(), len(group)])
        turn = np.lexsort((_even_keys(group[starts], draw), group[starts]))
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


def count_draws(parts: list[Draws]) -> int:
    """How many draws the parts hold."""
    return sum(len(part["row"]) for part in parts)


def shards_side_by_side(window: int, sources: int) -> int:
    """Share the open files among the sources: at most ``window`` shards of each side by side.

    Two neighboring groups of the epoch meet those, the shards that come up meanwhile, and one more
    of each source at the border.
    """
    fitting = (OPEN_FILES - 2 * min(window, GROUP_SHARDS)) // sources - 1
    return max(1, min(window, fitting))


def files_needed(window: int, sources: int) -> int:
    """How many files a data process must keep open, so that none is opened twice in a group."""
    return max(OPEN_FILES, 2 * min(window, GROUP_SHARDS) + 2 * sources)


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
    """The draws of one source in one epoch, without order; ``shard_pass`` in [0, 1) places each shard's passes evenly over the epoch."""
    n, weight, name = len(pool), pool.source.weight, pool.source.name
    phase = (rng(seed, 0, f"phase {name}").permutation(n) + 0.5) / n
    before = epoch * weight if pool.passes_before is None else pool.passes_before
    after = (epoch + 1) * weight if pool.passes_before is None else before + weight
    times = (np.floor(after + phase) - np.floor(before + phase)).astype(np.int64)
    who = np.repeat(np.arange(n), times)
    repeat = np.arange(len(who)) - np.repeat(np.cumsum(times) - times, times)
    draw = rng(seed, epoch, f"draw {name}")
    task = _share_out(pool.eligible[who], pool.shares, draw)
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
        "shard_pass": _shard_passes(shard, repeat, len(pool.indices), weight, draw),
    }


def _share_out(eligible: np.ndarray, shares: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A task for every draw: (D, T) bool → (D,) int32. Within draws that have the same choice, shares are met exactly (± 1)."""
    chosen = np.zeros(len(eligible), dtype=np.int32)
    sets, member = np.unique(np.packbits(eligible, axis=1), axis=0, return_inverse=True) if eligible.shape[1] > 1 else ([0], chosen)
    for number in range(len(sets)):
        rows = np.flatnonzero(member.reshape(-1) == number)
        if not len(rows):
            continue
        borders = np.cumsum(np.where(eligible[rows[0]], shares, 0.0))
        points = (draw.permutation(len(rows)) + draw.random()) / len(rows) * borders[-1]
        chosen[rows] = np.minimum(np.searchsorted(borders, points, side="right"), np.flatnonzero(eligible[rows[0]])[-1])
    return chosen


def _shard_passes(shard: np.ndarray, repeat: np.ndarray, shards: int, weight: float, draw: np.random.Generator) -> np.ndarray:
    """(D,) the moment in [0, 1) at which a draw's shard is read. Passes follow each other; in each the shards come in a new order."""
    passes = int(repeat.max(initial=-1)) + 1
    moments = np.zeros((max(passes, 1), shards))
    for p in range(passes):
        length = min(1.0, max(weight - p, 0.0)) or 1.0  # the last pass is short when the weight has a fraction
        moments[p] = (p + (draw.permutation(shards) + draw.random(shards)) / shards * length) / max(weight, p + length)
    return moments[repeat, shard]


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


def _even_keys(group: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Sort keys, (G,), by which any run of a group's micro-batches is spread evenly over the group.

    Multiples of the golden ratio, taken modulo 1 from a random offset on: those that fall into a
    stretch of [0, 1) belong to numbers at only three different distances (the three-gap theorem).
    """
    golden = (np.sqrt(5) - 1) / 2
    offsets = draw.random(int(group[-1]) + 1)
    return (np.arange(len(group)) * golden + offsets[group]) % 1.0


def _micro_batches(draws: Draws, batch: BatchConfig) -> float:
    """How many micro-batches the draws would fill without padding."""
    frames, tokens = draws["frames"].sum(dtype=np.int64), draws["tokens"].sum(dtype=np.int64)
    return max(frames / batch.max_frames, tokens / batch.max_tokens, len(draws["frames"]) / batch.max_utterances)


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers of several ranges, end to end."""
    before = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) + np.repeat(starts - before, sizes)
