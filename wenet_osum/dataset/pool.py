"""Select the utterances of one source of the mixture that pass its filters.

Each has what it costs and what it can be asked.

Letters: n utterances of a source that are left, T tasks of the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from wenet_osum import lookup, tasks
from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig
from wenet_osum.dataset.estimate import TokenCounter, TokenEstimate, TooLong, published_rate
from wenet_osum.dataset.index import Index, column_names
from wenet_osum.dataset.stretch import sizes_of, stretches
from wenet_osum.dataset.utterance_filter import Columns, UtteranceFilter
from wenet_osum.tasks.base import Task

MANY = 0.05  # share of a task's targets beyond their limit that is worth a warning


@dataclass
class Pool:
    """One source, filtered."""

    source: SourceConfig
    indices: Sequence[Index]
    tasks: list[Task]
    shares: np.ndarray  # (T,) float64
    shard: np.ndarray  # (n,) int32, position in ``indices``
    row: np.ndarray  # (n,) int32, position in the shard
    seconds: np.ndarray  # (n,) float32, as recorded
    frames: np.ndarray  # (n,) int32, of the longest recording at the slowest speed
    eligible: np.ndarray  # (n, T) bool: the utterance has what the task asks for
    tokens: np.ndarray  # (n, T) int32, prompt + speech + answer, of all turns
    recordings: np.ndarray  # (n,) int32, more than one in conversations alone
    # utterances left out, and those that stay, but not for one of the tasks, by reason
    dropped: Counter = field(default_factory=Counter)
    restricted: Counter = field(default_factory=Counter)
    # task name → its targets against their limit
    too_long: dict[str, TooLong] = field(default_factory=dict)
    # passes over the list in the epochs before this one; None: as many as its weight says
    passes_before: float | None = None

    def __len__(self) -> int:
        return len(self.row)


def build_pool(
    source: SourceConfig,
    indices: Sequence[Index],
    batch: BatchConfig,
    limits: FilterConfig,
    estimate: Callable[[list[Task]], TokenEstimate] | None = None,
    slowest: float = 1.0,
    parse: Callable[[str], Task] = tasks.parse,
    speech_tokens: TokenCounter = published_rate,
    reach: int | None = None,
) -> Pool:
    """Judge every utterance of a source from its index.

    ``estimate`` gives token counts for the source's tasks, ``slowest`` is the smallest speed factor
    of training (frames are counted for it), ``parse`` reads a task's name, ``speech_tokens`` says
    how many tokens so many frames become at most, ``reach`` is how many tokens of prompt and answer
    a decoder can take.

    An utterance stays when its columns meet ``source.where``, its duration lies within the limits,
    and it can be asked at least one task: those of ``source.tasks``, else its own. Raises
    ValueError for an unknown task or column, and when nothing is left, with the reasons.
    """
    known = [*column_names()]
    for name in source.where:
        if name not in known:
            fault = lookup.unknown("column", name, known)
            raise ValueError(f"source {source.name!r}: where: {fault}")
    rules = UtteranceFilter(source, batch, limits, slowest, parse, speech_tokens, reach)
    rules.collect_tasks(indices)
    if estimate:
        rules.estimate = estimate(rules.tasks)

    columns = _filtered(rules, indices)
    dropped = _named(source, rules.dropped)
    if columns is None or not len(columns.row):
        reasons = [f"{count} × {reason}" for reason, count in dropped.most_common()]
        told = "; ".join(reasons) or "the list holds no utterance"
        raise ValueError(
            f"source {source.name!r}: nothing left of {source.list} ({told}); "
            "correct the list, tasks, where or filter"
        )
    return Pool(
        source=source,
        indices=indices,
        tasks=rules.tasks,
        shares=rules.shares,
        **columns._asdict(),
        dropped=dropped,
        restricted=_named(source, rules.restricted),
        too_long=rules.too_long,
    )


def _filtered(rules: UtteranceFilter, indices: Sequence[Index]) -> Columns | None:
    """Return the columns of the Pool for all shards, None where there is none.

    Each is written to its place at once: to join them in the end would take their memory twice.
    """
    rows = int(sizes_of(indices).sum())
    columns = None
    filled = 0
    for stretch in stretches(indices):
        part = rules.apply(stretch)
        if columns is None:
            columns = Columns(*(np.empty((rows, *one.shape[1:]), one.dtype) for one in part))
        end = filled + len(part.row)
        for whole, one in zip(columns, part, strict=True):
            whole[filled:end] = one
        filled = end
    if columns is None:
        return None
    return Columns(*(whole[:filled] for whole in columns))


def _named(source: SourceConfig, counts: Counter) -> Counter:
    """Put the source's name before each reason that was met."""
    named = Counter()
    for reason, count in counts.items():
        if count:
            named[f"{source.name}: {reason}"] = count
    return named


def tell_long_targets(pools: list[Pool]) -> list[str]:
    """Report the share of targets over their limit by list and task, with a warning above
    ``MANY``."""
    shares, warnings = [], []
    for pool in pools:
        for name, row in pool.too_long.items():
            if not row.asked:
                continue
            percent = f"{100 * row.share:.1f} %"
            listed = f"{pool.source.name}/{name}"
            shares.append(f"{listed} {percent} of {row.asked} over {row.limit} tokens")
            if row.share > MANY:
                warnings.append(
                    f"warning: {listed} loses {percent} of its utterances, whose targets have over "
                    f"{row.limit} tokens; raise filter.max_target_tokens for {name} as far as "
                    "batch.max_tokens and the decoder allow, or cut the audio"
                )
    if not shares:
        return []
    told = ", ".join(shares)
    return [f"targets too long, as estimated by list/task: {told}", *warnings]
