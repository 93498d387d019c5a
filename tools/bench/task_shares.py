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


HEAD = (
    "| micro-batches | steps | without it | at random | longest run | highest share | spread "
    "| at random |",
    "|---|---|---|---|---|---|---|---|",
)


def source(name: str, count: int, seconds: tuple[float, float]) -> Pool:
    """Make a source of ``count`` utterances in shards, as its indices would describe them."""
    draws = np.random.default_rng(count)
    shards = []
    for first in range(0, count, PER_SHARD):
        size = min(PER_SHARD, count - first)
        durations = draws.uniform(*seconds, size)
        shards.append(shard(name, first, durations.astype(np.float32)))
    conf = SourceConfig(name=name, list=f"{name}.list", tasks={"asr": 1.0})
    return build_pool(
        conf,
        shards,
        BatchConfig(),
        FilterConfig(),
    )


def shard(name: str, first: int, durations: np.ndarray) -> Index:
    """Make the index of a shard whose utterances are numbered from ``first``."""
    size = len(durations)
    columns = {column: np.full(size, "") for column in column_names()}
    characters = np.array([20, 0, 0], dtype=np.int32)
    return Index(
        path=f"{name}_{first}.tar",
        keys=np.array([f"{name}{first + place}" for place in range(size)]),
        offsets=np.arange(size),
        sizes=np.ones(size, dtype=np.int64),
        durations=durations,
        columns=columns,
        lengths=np.tile(characters, (size, 1)),
        kind="tar",
    )


def spread(plan: Plan, micro_batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the scarce utterances and all utterances of every step."""
    # Steps that are not whole at the end of the epoch are no part.
    ends = plan.bounds[micro_batches::micro_batches]
    starts = plan.bounds[:-1:micro_batches]
    starts = starts[: len(ends)]
    scarce = np.cumsum(plan.source == 1)
    before = np.concatenate([[0], scarce])
    return before[ends] - before[starts], ends - starts


def longest_run(absent: np.ndarray) -> int:
    """Count the steps of the longest stretch that is without the task."""
    # A stretch begins where the padded line rises and ends where it falls.
    line = np.concatenate([[0], absent.astype(int), [0]])
    edges = np.flatnonzero(np.diff(line))
    begins = edges[::2]
    ends = edges[1::2]
    return int((ends - begins).max(initial=0))


def row(plan: Plan, micro_batches: int) -> tuple[str, bool]:
    """Return a row of the table for steps of so many micro-batches, and whether the bar is met."""
    found, utterances = spread(plan, micro_batches)
    steps = len(found)
    absent = found == 0

    # At random every utterance of a step is scarce with the same chance.
    share = (plan.source == 1).mean()
    at_random = ((1 - share) ** utterances).mean()
    variance = (1 - share) / share / utterances.mean()
    random_spread = np.sqrt(variance)

    # The share of steps is that of a finite epoch, in which a single step counts too.
    error = np.sqrt(at_random / steps)
    bar = at_random + ERRORS * error + 1 / steps
    met = absent.mean() <= bar
    missed = "" if met else " **missed**"
    highest = (found / utterances).max()
    cells = [
        f"{micro_batches} | {steps}",
        f"{100 * absent.mean():.2f} %{missed} | {100 * at_random:.2f} %",
        f"{longest_run(absent)} | {100 * highest:.1f} %",
        f"{found.std() / found.mean():.2f} | {random_spread:.2f}",
    ]
    return " | ".join(cells), bool(met)


def main(argv: list[str] | None = None) -> int:
    """Print a table per length of the scarce utterances; 1 when a bar is missed."""
    args = parser().parse_args(argv)
    common = source(
        "common",
        args.common,
        COMMON_S,
    )
    all_met = True
    lengths = [tuple(args.seconds)] if args.seconds else SCARCE_S
    for seconds in lengths:
        scarce = source("scarce", args.scarce, seconds)
        all_met &= table([common, scarce], seconds, args.steps)
    return int(not all_met)


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--common", type=int, default=1_000_000, help="utterances")
    args.add_argument("--scarce", type=int, default=10_000, help="utterances")
    args.add_argument("--seconds", type=float, nargs=2, help="of the scarce ones")
    args.add_argument(
        "--steps",
        type=int,
        nargs="+",
        default=STEPS,
        help="micro-batches, over all ranks",
    )
    return args


def table(pools: list[Pool], seconds: tuple[float, float], steps: list[int]) -> bool:
    """Plan an epoch and print its table; returns whether all bars are met."""
    begin = time.process_time()
    plan = Plan(
        pools,
        BatchConfig(),
        seed=0,
        epoch=0,
    )
    took = time.process_time() - begin
    low, high = seconds
    print(
        f"\nscarce utterances of {low:g} to {high:g} s: {len(plan)} micro-batches, "
        f"padding {100 * plan.padding_share():.2f} %, planned in {took:.1f} s"
    )
    print("", *HEAD, sep="\n")
    all_met = True
    for micro_batches in steps:
        cells, met = row(plan, micro_batches)
        print(f"| {cells} |", flush=True)
        all_met &= met
    return all_met


if __name__ == "__main__":
    sys.exit(main())
