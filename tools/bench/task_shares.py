#!/usr/bin/env python3
"""How evenly the plan of an epoch spreads a scarce task over its steps, beside drawing at random.

    python tools/bench/task_shares.py
    python tools/bench/task_shares.py --common 100000 --scarce 1000 --steps 4 16 --seconds 1 3

A common source and a scarce one are planned together; nothing is read. Without ``--seconds`` the
scarce utterances are as long as the others, then all short, then all long. Prints markdown. Fails
when the scarce task is missing from more steps than it would be at random.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig  # noqa: E402
from wenet_osum.dataset.index import Index, column_names  # noqa: E402
from wenet_osum.dataset.plan import Plan  # noqa: E402
from wenet_osum.dataset.pool import Pool, build_pool  # noqa: E402

PER_SHARD = 1000
COMMON_S = (2.0, 15.0)  # seconds of audio, drawn evenly
SCARCE_S = [(2.0, 15.0), (1.0, 3.0), (20.0, 30.0)]
# micro-batches of a step: accumulation × processes, each 1, 2 or 8, and more
STEPS = [1, 2, 4, 8, 16, 32, 64, 128]
ERRORS = 3.0  # standard errors of the share of steps, which is of a finite epoch


def source(name: str, count: int, seconds: tuple[float, float]) -> Pool:
    """Make a source of ``count`` utterances in shards, as its indices would describe them."""
    draw = np.random.default_rng(count)
    shards = []
    for first in range(0, count, PER_SHARD):
        size = min(PER_SHARD, count - first)
        shards.append(
            Index(
                path=f"{name}_{first}.tar",
                keys=np.array([f"{name}{first + i}" for i in range(size)]),
                offsets=np.arange(size),
                sizes=np.ones(size, dtype=np.int64),
                durations=draw.uniform(*seconds, size).astype(np.float32),
                columns={column: np.full(size, "") for column in column_names()},
                lengths=np.tile(np.array([20, 0, 0], dtype=np.int32), (size, 1)),
                kind="tar",
            )
        )
    conf = SourceConfig(name=name, list=f"{name}.list", tasks={"asr": 1.0})
    return build_pool(conf, shards, BatchConfig(), FilterConfig())


def spread(plan: Plan, micro_batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the scarce utterances and all utterances of every step."""
    ends = plan.bounds[micro_batches::micro_batches]
    starts = plan.bounds[:-1:micro_batches][: len(ends)]
    scarce = np.concatenate([[0], np.cumsum(plan.source == 1)])
    return scarce[ends] - scarce[starts], ends - starts


def longest_run(absent: np.ndarray) -> int:
    """Count the steps of the longest stretch that is without the task."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def row(plan: Plan, micro_batches: int) -> tuple[str, bool]:
    """Return a row of the table for steps of so many micro-batches, and whether the bar is met."""
    found, utterances = spread(plan, micro_batches)
    share = (plan.source == 1).mean()
    absent = found == 0
    at_random = ((1 - share) ** utterances).mean()
    random_spread = np.sqrt((1 - share) / share / utterances.mean())
    met = absent.mean() <= at_random + ERRORS * np.sqrt(at_random / len(found)) + 1 / len(found)
    cells = [
        f"{micro_batches} | {len(found)}",
        f"{100 * absent.mean():.2f} %{'' if met else ' **missed**'} | {100 * at_random:.2f} %",
        f"{longest_run(absent)} | {100 * (found / utterances).max():.1f} %",
        f"{found.std() / found.mean():.2f} | {random_spread:.2f}",
    ]
    return " | ".join(cells), bool(met)


def main(argv: list[str] | None = None) -> int:
    """Print a table per length of the scarce utterances; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--common", type=int, default=1_000_000, help="utterances")
    parser.add_argument("--scarce", type=int, default=10_000, help="utterances")
    parser.add_argument("--seconds", type=float, nargs=2, help="of the scarce ones")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=STEPS, help="micro-batches, over all ranks"
    )
    args = parser.parse_args(argv)

    common, all_met = source("common", args.common, COMMON_S), True
    for seconds in [tuple(args.seconds)] if args.seconds else SCARCE_S:
        begin = time.process_time()
        pools = [common, source("scarce", args.scarce, seconds)]
        plan = Plan(pools, BatchConfig(), seed=0, epoch=0)
        took = time.process_time() - begin
        print(
            f"\nscarce utterances of {seconds[0]:g} to {seconds[1]:g} s: {len(plan)} "
            "micro-batches, "
            f"padding {100 * plan.padding_share():.2f} %, planned in {took:.1f} s\n\n"
            "| micro-batches | steps | without it | at random | longest run | highest share | "
            "spread | at random |\n|---|---|---|---|---|---|---|---|"
        )
        for micro_batches in args.steps:
            cells, met = row(plan, micro_batches)
            print(f"| {cells} |", flush=True)
            all_met &= met
    return int(not all_met)


if __name__ == "__main__":
    sys.exit(main())
