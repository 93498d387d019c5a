"""What a plan depends on, in a form that fits into state.json, and what another plan has left over.

The numbers of ranks and workers are no part of it: the sequence of micro-batches does not depend
on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from wenet_osum import config
from wenet_osum.config import BatchConfig, ContextConfig, FilterConfig, TrainConfig
from wenet_osum.dataset.columns import narrow
from wenet_osum.dataset.draw import Draws
from wenet_osum.dataset.plan import Plan
from wenet_osum.dataset.pool import Pool

# version of the way an epoch is ordered; raise it with every change that gives another order
ORDER = 3
# of a source: what it is asked, without the place where its list lies
MIXTURE = ("name", "weight", "tasks", "where")


def fingerprint(
    conf: TrainConfig,
    pools: list[Pool],
    reach: int | None = None,
    temperature: Sequence[float] = (1.0,),
) -> dict[str, Any]:
    """Return all that decides which utterances make which micro-batch, as plain tables.

    ``temperature`` is that of each epoch (temperature.py).
    """
    plain = {
        "order": ORDER,
        "seed": conf.seed,
        "batch": dataclasses.asdict(conf.batch),
        "filter": dataclasses.asdict(conf.filter),
        "slowest": min(conf.augment.speeds),
        "reach": reach,
        "temperature": [*temperature],
    }
    # without a context a fingerprint is what it was before there was any
    if conf.context is not None:
        plain["context"] = dataclasses.asdict(conf.context)
    order = [pool.source.name for pool in pools]
    return plain | {"sources": order, "train": [_source(pool) for pool in pools]}


def _source(pool: Pool) -> dict[str, Any]:
    row = {name: getattr(pool.source, name) for name in MIXTURE}
    return row | {"utterances": len(pool), "digest": digest(pool)}


def digest(pool: Pool) -> str:
    """Hash a source's utterances, their lengths, order and tasks to 16 hexadecimal digits."""
    hashed = hashlib.blake2b(digest_size=8)
    for column in (
        pool.shard,
        pool.row,
        pool.seconds,
        pool.frames,
        pool.eligible,
        pool.tokens,
    ):
        hashed.update(np.ascontiguousarray(column).data)
    # without conversations a digest is what it was before there were any
    if (pool.recordings > 1).any():
        hashed.update(pool.recordings.tobytes())
    hashed.update(" ".join(task.tags for task in pool.tasks).encode())
    return hashed.hexdigest()


def obstacles(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what keeps an epoch begun under one fingerprint from being ended under another.

    Digests are not looked at: they change with filters, too.
    """
    if before.get("order") != now["order"]:
        return ["the epoch was ordered by another version of this toolkit"]
    mixtures = []
    for plan in (before, now):
        table = {row["name"]: _mixture_of(row) for row in plan["train"]}
        mixture = {"train": table, "order of sources": [*table]}
        mixtures.append(mixture | {"mixture.temperature": temperature(plan)})
    return differences(*mixtures)


def temperature(plan: dict[str, Any]) -> list[float]:
    """Return the temperatures of a fingerprint; older ones have none, which is 1."""
    return plan.get("temperature", [1.0])


def _mixture_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a source is asked, of a row of a fingerprint."""
    return {name: row[name] for name in MIXTURE}


def settings(before: dict[str, Any], conf: TrainConfig) -> TrainConfig:
    """Put into ``conf`` what a fingerprint fixes. Raises ConfigError for one of another version."""
    context = before.get("context")
    if context is not None:
        context = config.from_dict(context, ContextConfig, "state.json: plan.context")
    return dataclasses.replace(
        conf,
        seed=before["seed"],
        batch=config.from_dict(before["batch"], BatchConfig, "state.json: plan.batch"),
        filter=config.from_dict(before["filter"], FilterConfig, "state.json: plan.filter"),
        augment=dataclasses.replace(conf.augment, speeds=[before["slowest"]]),
        context=context,
    )


def changed_lists(before: dict[str, Any], pools: list[Pool]) -> list[str]:
    """Name the sources that hold other utterances now; ``pools`` are judged by its settings."""
    return [
        row["name"]
        for row, pool in zip(before["train"], pools, strict=True)
        if row["digest"] != digest(pool)
    ]


def rest(plan: Plan, consumed: int, pools: list[Pool], dropped: Counter) -> list[Draws]:
    """Take the draws of a plan after ``consumed`` micro-batches, with their costs in other pools.

    What those pools do not hold, or not for its task, is left out and counted in ``dropped``.
    """
    start = int(plan.bounds[min(consumed, len(plan))])
    return [
        _rest_of(
            plan,
            start,
            number,
            pool,
            dropped,
        )
        for number, pool in enumerate(pools)
    ]


def _rest_of(plan: Plan, start: int, number: int, pool: Pool, dropped: Counter) -> Draws:
    """Take the rest of one source's draws."""
    rows = start + np.flatnonzero(plan.source[start:] == number)
    task, repeat = plan.task[rows], plan.repeat[rows]
    before = plan.pools[number]
    utterance = plan.position[rows]

    # where the utterance stands in the other pool, which is sorted by shard and row
    wanted = _place(before.shard[utterance], before.row[utterance])
    there = _place(pool.shard, pool.row)
    position = np.minimum(
        np.searchsorted(there, wanted),
        len(there) - 1,
    )
    fits = (there[position] == wanted) & pool.eligible[position, task]
    if not fits.all():
        reason = f"{pool.source.name}: drawn for this epoch, left out by the new filter or budgets"
        dropped[reason] += int((~fits).sum())
    position, task, repeat = (values[fits] for values in (position, task, repeat))

    # a pass over a shard comes when its first draw would have come
    of_pass = _place(pool.shard[position], repeat)
    _, first, shard_pass = np.unique(of_pass, return_index=True, return_inverse=True)
    turn = np.argsort(np.argsort(first))
    return Draws(
        number,
        pool,
        narrow(position),
        task,
        repeat,
        turn[shard_pass],
        len(first),
    )


def _place(shard: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Combine shard and row into one sortable number."""
    return (shard.astype(np.int64) << 32) + row


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """List the keys that differ between two trees of tables, lists and values.

    A line reads ``a.b: old → new``. Rows of a list are compared by their names.
    """
    before, now = _by_name(before), _by_name(now)
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [f"{name}: {_short(before)} → {_short(now)}"]
    found = []
    for key in dict.fromkeys([*before, *now]):
        found += differences(
            before.get(key),
            now.get(key),
            f"{name}.{key}" if name else str(key),
        )
    return found


def _by_name(value: Any) -> Any:
    """Turn a list of named rows into a table, and any other tuple into a list, as JSON and yaml
    return it."""
    if not isinstance(value, (list, tuple)):
        return value
    if value and all(isinstance(row, dict) and "name" in row for row in value):
        return {row["name"]: row for row in value}
    return list(value)


def _short(value: Any) -> str:
    """Format a value for the log."""
    return "nothing" if value is None else str(value)
