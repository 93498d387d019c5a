#!/usr/bin/env python3
"""Measure this machine for a second and tell how long runs of known work will take here.

    python tools/machine_speed.py
    python tools/machine_speed.py --processes 2 --run "the default run" 130 300

Prints the cores and the speed of one, then a line for each run. A run has WORK, in TFLOP of float32
matrix products, and takes FIXED seconds of one core besides, for start-ups, files, Python and small
operations, on the machine it was measured on. Both are shared out over the processes, as far as
there are cores for them, and a machine that is slower in small operations takes longer over FIXED:

    time = (WORK ÷ speed of a core + FIXED · slowness) ÷ min(processes, cores)

As many processes measure at once as the run will have, for cores share caches and memory: one alone
would find the machine faster than the run will. Other work on the machine at the same time makes
runs longer, and is not foreseen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable

SIZE = 512  # of the square matrices
REFERENCE = 400  # rounds a second of small operations on the machine of FIXED
LEAST_S = 0.15  # of a measurement; the best of several counts, for others may use the machine
MEASUREMENTS = 4


def core_speed() -> float:
    """Measure GFLOP/s of one thread in float32 matrix products."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.rand(2, SIZE, SIZE)
    # A product of two square matrices is SIZE³ multiplications and as many additions.
    flops = 2 * SIZE**3
    return rounds_a_second(lambda: a @ b) * flops / 1e9


def slowness() -> float:
    """Measure how long small operations take here, in units of what they took where FIXED was."""
    from torch import rand
    from torch.nn import functional

    rows = rand(750, 576)
    word = rand(144)

    def work() -> None:
        functional.gelu(rows).softmax(-1) + rows
        for _ in range(300):
            word.add_(1)

    return REFERENCE / rounds_a_second(work)


def rounds_a_second(work: Callable[[], object]) -> float:
    """Measure the best rate of ``work``."""
    # The first round looks for kernels and is no part.
    work()
    best = 0.0
    for _ in range(MEASUREMENTS):
        count = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < LEAST_S:
            work()
            count += 1
        taken_s = time.perf_counter() - begin
        best = max(best, count / taken_s)
    return best


def together(measure: Callable[[], float], processes: int) -> float:
    """Return the mean of what so many processes measure at the same time."""
    # A forked process has torch already; where there is no fork one process has to do.
    if processes == 1 or "fork" not in multiprocessing.get_all_start_methods():
        return measure()
    context = multiprocessing.get_context("fork")
    with context.Pool(processes) as pool:
        waiting = [pool.apply_async(measure) for _ in range(processes)]
        found = [result.get() for result in waiting]
    return sum(found) / processes


def cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_time_s(work: float, fixed_s: float, speed: float, processes: int, cores: int) -> float:
    """Foresee the seconds of ``work`` TFLOP at ``speed`` GFLOP/s per core and ``fixed_s`` more."""
    work_s = 1000 * work / speed
    return (work_s + fixed_s) / min(processes, cores)


def in_words(seconds: float) -> str:
    """Round to what can be foreseen: ten seconds below two minutes, else minutes."""
    if seconds < 120:
        return f"{10 * round(seconds / 10)} s"
    return f"{round(seconds / 60)} minutes"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--processes", type=int, default=1, help="processes of a run")
    parser.add_argument(
        "--run",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "WORK", "FIXED"),
        help="a run",
    )
    args = parser.parse_args(argv)
    import torch  # noqa: F401  # before processes are forked, so that it is loaded once

    count = cores()
    busy = min(args.processes, count)
    speed = together(core_speed, busy)
    # A machine that is faster in small operations is not believed: files and start-ups stay.
    slow = max(1.0, together(slowness, busy))
    print(f"{count} cores of {speed:.0f} GFLOP/s")
    for name, work, fixed_s in args.run:
        seconds = run_time_s(float(work), float(fixed_s) * slow, speed, args.processes, count)
        print(f"{name} will take about {in_words(seconds)} on the CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
