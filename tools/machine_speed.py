#!/usr/bin/env python3
"""Measure this machine for a second and tell how long runs of known work will take here.

    python tools/machine_speed.py
    python tools/machine_speed.py --processes 2 --run "the default run" 130 300

Prints the cores and the speed of one, then a line for each run. A run has WORK, in TFLOP of float32
matrix products, and takes FIXED seconds of one core besides: start-ups, files, Python. Both are
shared out over the processes, as far as there are cores for them:

    time = (WORK ÷ speed of a core + FIXED) ÷ min(processes, cores)

Other work on the machine at the same time makes runs longer, and is not foreseen.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

SIZE = 512  # of the square matrices
LEAST_S = 0.2  # of a measurement; the best of several counts, for others may use the machine
MEASUREMENTS = 4


def core_speed() -> float:
    """Measure GFLOP/s of one thread in float32 matrix products."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.rand(2, SIZE, SIZE)
    a @ b  # the first one also looks for the kernel
    return max(_products_a_second(lambda: a @ b) for _ in range(MEASUREMENTS)) * 2 * SIZE**3 / 1e9


def _products_a_second(product) -> float:
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < LEAST_S:
        product()
        count += 1
    return count / (time.perf_counter() - begin)


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_time_s(work: float, fixed_s: float, speed: float, processes: int, cores: int) -> float:
    """Foresee the seconds of ``work`` TFLOP at ``speed`` GFLOP/s a core and ``fixed_s`` more."""
    return (1000 * work / speed + fixed_s) / min(processes, cores)


def in_words(seconds: float) -> str:
    """Round to what can be foreseen: ten seconds below two minutes, else minutes."""
    return f"{10 * round(seconds / 10)} s" if seconds < 120 else f"{round(seconds / 60)} minutes"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--processes", type=int, default=1, help="processes of a run")
    names = ("NAME", "WORK", "FIXED")
    parser.add_argument("--run", nargs=3, action="append", default=[], metavar=names, help="a run")
    args = parser.parse_args(argv)
    speed, count = core_speed(), cores()
    print(f"{count} cores of {speed:.0f} GFLOP/s")
    for name, work, fixed_s in args.run:
        seconds = run_time_s(float(work), float(fixed_s), speed, args.processes, count)
        print(f"{name} will take about {in_words(seconds)} on the CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
