#!/usr/bin/env python3
"""Optimizer steps of two processes (gloo): our engine against plain DDP, and against no exchange at
all.

    python tools/bench/ddp.py --width 256 --layers 4 --rounds 5

Plain DDP looks for unused parameters and exchanges gradients after every micro-batch; ours
registers what trains and exchanges once a step. All ways take the same micro-batches, and their
gradients are checked to be the same before anything is timed; without exchange, the mean of both
processes is. CPU seconds are those of both processes. Micro-batches of both cost alike, so nobody
waits for long; that they do is the plan's business.
"""

from __future__ import annotations

import argparse
import copy
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from side_by_side import row, show  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402
from train_step import _batch, build, utterances  # noqa: E402

from wenet_osum import dist  # noqa: E402
from wenet_osum.config import TrainConfig  # noqa: E402
from wenet_osum.records import Batch  # noqa: E402

PROCESSES = 2


def micro_batches(args: argparse.Namespace, rank: int) -> list[Batch]:
    """What a process takes in a step."""
    found = []
    for number in range(args.accumulation):
        torch.manual_seed(100 * rank + number)
        rows = utterances(args)
        features = torch.nn.utils.rnn.pad_sequence([r["features"] for r in rows], batch_first=True)
        found.append(_batch(rows, features, False))
    return found


def make_ways(
    args: argparse.Namespace, world: dist.World, batches: list[Batch]
) -> dict[str, Callable[[], list[torch.Tensor]]]:
    """Name → a step that returns its gradients."""
    engine = dist.Engine(build(args), TrainConfig(), world)
    plain = copy.deepcopy(engine.module)
    runner = DistributedDataParallel(plain, find_unused_parameters=True)
    alone = copy.deepcopy(engine.module)

    def ours() -> list[torch.Tensor]:
        for number, batch in enumerate(batches, 1):
            with engine.accumulating(last=number == len(batches)):
                engine.loss(batch).loss.backward()
        return gradients(engine.module)

    def step(model: torch.nn.Module, owner: torch.nn.Module) -> list[torch.Tensor]:
        for batch in batches:
            model(batch).loss.backward()
        return gradients(owner)

    return {
        "ours": ours,
        "plain DDP": lambda: step(runner, plain),
        "limit: no exchange": lambda: step(alone, alone),
    }


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    """Its gradients, taken away."""
    found = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad(set_to_none=True)
    return found


def check(ways: dict[str, Callable[[], list[torch.Tensor]]]) -> None:
    """All ways give the same gradients. Twice, for DDP sorts its buckets anew after the first."""
    for _ in range(2):
        found = {name: way() for name, way in ways.items()}
        for tensor in found["limit: no exchange"]:
            torch.distributed.all_reduce(tensor)
            tensor /= PROCESSES
        for name, other in found.items():
            worst = max(
                float((a - b).abs().max() / a.abs().max().clamp(min=1e-6))
                for a, b in zip(found["ours"], other, strict=True)
            )
            assert worst < 1e-3, f"gradients of {name} differ by {worst:.1e} of the largest"


def work(rank: int, port: int, args: argparse.Namespace) -> None:
    """One process; the first prints."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    world = dist.start(1)
    batches = micro_batches(args, rank)
    ways = make_ways(args, world, batches)
    check(ways)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            dist.barrier()
            before = time.process_time()
            way()
            seconds[name] += dist.sum_over_ranks([time.process_time() - before])
    if world.first:
        show(
            [
                row(
                    f"step of {PROCESSES} processes × {args.accumulation} micro-batches",
                    name,
                    seconds,
                    "ours",
                )
                for name in ways
            ]
        )
    dist.stop()


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=256, help="of encoder and LLM")
    parser.add_argument("--layers", type=int, default=4, help="of each")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--utterances", type=int, default=4, help="of a micro-batch")
    parser.add_argument(
        "--accumulation", type=int, default=4, help="micro-batches per step and process"
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, args), nprocs=PROCESSES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
