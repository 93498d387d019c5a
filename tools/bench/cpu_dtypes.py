#!/usr/bin/env python3
"""Does this CPU multiply bfloat16 in hardware? GFLOP/s of float32 and bfloat16, one thread.

    python tools/bench/cpu_dtypes.py
    python tools/bench/cpu_dtypes.py --rows 1 16 512 --width 896 --inner 4864

A product of ROWS states with a matrix of an LLM's feed-forward layer, as a linear layer computes
it, in both types, turn by turn. Where bfloat16 is several times faster, `dtype: bfloat16` in a
training yaml and `--dtype bfloat16` in decoding are worth it on this CPU; where it is slower, the
CPU has no instructions for it (amx_bf16 or avx512_bf16 in /proc/cpuinfo), and float32, the default,
is right.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor
from torch.nn import functional

HEAD = [
    "| rows | float32, GFLOP/s | bfloat16, GFLOP/s | bfloat16 is |",
    "|---|---|---|---|",
]
ROWS = [1, 16, 64, 512]
DTYPES = (torch.float32, torch.bfloat16)
# Of a measurement: many products at once, for a single one is short.
LEAST_S = 0.05


def speed(states: Tensor, weight: Tensor) -> float:
    """Return GFLOP/s of one linear layer."""
    rows = len(states)
    flops = 2 * rows * weight.numel()
    count = 0
    seconds = 0.0
    begin = time.process_time()
    while seconds < LEAST_S:
        functional.linear(states, weight)
        count += 1
        seconds = time.process_time() - begin
    rate = count / seconds
    return flops * rate / 1e9


def row(rows: int, width: int, inner: int, rounds: int) -> str:
    """Measure both types in turns; returns the line of the table."""
    states = torch.randn(rows, width)
    weight = torch.randn(inner, width)
    rates: dict[torch.dtype, list[float]] = {dtype: [] for dtype in DTYPES}
    for turn in range(rounds + 1):
        for dtype in DTYPES:
            own_states = states.to(dtype)
            own_weight = weight.to(dtype)
            found = speed(own_states, own_weight)
            # The first turn looks for kernels.
            if turn:
                rates[dtype].append(found)
    whole = statistics.median(rates[torch.float32])
    half = statistics.median(rates[torch.bfloat16])
    times = half / whole
    return f"| {rows} | {whole:.0f} | {half:.0f} | {times:.2f} × as fast |"


def main() -> int:
    """Run the benchmark and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", type=int, nargs="+", default=ROWS)
    add("--width", type=int, default=896, help="of the states")
    add("--inner", type=int, default=4864, help="of the layer")
    add("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(*HEAD, sep="\n")
    for rows in args.rows:
        line = row(rows, args.width, args.inner, args.rounds)
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
