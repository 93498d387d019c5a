#!/usr/bin/env python3
"""How evenly the plan of an epoch spreads a scarce task over its steps, beside drawing at random.

    python tools/bench/task_shares.py
    python tools/bench/task_shares.py --common 100000 --scarce 1000 --micro_batches 128

A common source and a scarce one are planned together; nothing is read. Prints markdown.
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
FRAMES_S = (2.0, 15.0)  # seconds of audio, drawn evenly


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


def main(argv: list[str] | None = None) -> int:
    """Print one row for the plan and one for drawing at random."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--common", type=int, default=1_000_000, help="utterances")
    parser.add_argument("--scarce", type=int, default=10_000, help="utterances")
    parser.add_argument("--seconds", type=float, nargs=2, default=FRAMES_S, help="of the scarce ones")
    parser.add_argument("--micro_batches", type=int, default=32, help="of a step, over all ranks")
    args = parser.parse_args(argv)

    pools = [
        source("common", args.common, FRAMES_S),
        source("scarce", args.scarce, tuple(args.seconds)),
    ]
    begin = time.process_time()
    plan = Plan(pools, BatchConfig(), seed=0, epoch=0)
    seconds = time.process_time() - begin
    found, utterances = spread(plan, args.micro_batches)
    share = found.sum() / utterances.sum()
    at_random = ((1 - share) ** utterances).mean()
    random_spread = np.sqrt((1 - share) / share / utterances.mean())

    print("| way | steps without it | longest run | highest share | spread | padding |")
    print("|---|---|---|---|---|---|")
    ours = (100 * (found == 0).mean(), longest_run(found == 0), 100 * (found / utterances).max())
    print(
        f"| plan | {ours[0]:.2f} % | {ours[1]} | {ours[2]:.1f} % | "
        f"{found.std() / found.mean():.2f} | {100 * plan.padding_share():.2f} % |"
    )
    print(f"| at random | {100 * at_random:.2f} % | | | {random_spread:.2f} | |")
    print(f"\n{len(found)} steps, planned in {seconds:.1f} s of processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
