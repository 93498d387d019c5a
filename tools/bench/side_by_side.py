"""The frame of the benchmarks: ways to do the same work, checked and then timed in turns.

All run in one process. Times are CPU seconds of it (all its threads), so that a busy machine
disturbs them little. Each round runs every way once; a ratio is taken within its round. Printed are
medians with quartiles.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HEAD = [
    "| work | way | CPU s, median (quartiles) | times ours, median (quartiles) | to reach |",
    "|---|---|---|---|---|",
]


def race(
    work: str,
    ways: dict[str, Callable[[], Any]],
    same: Callable[[Any, Any], None],
    rounds: int,
    goals: dict[str, float] | None = None,
    limit: tuple[str, Callable[[], Any]] | None = None,
) -> list[str]:
    """Return the table rows for ``ways``, the first of which is ours.

    ``same`` raises AssertionError when a way's output is not ours. ``limit`` is what no way can do
    without, by name: it is timed along, and not compared.
    """
    first = next(iter(ways))
    _check(ways, same)
    if limit:
        name, least = limit
        ways = ways | {f"limit: {name}": least}
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    goals = goals or {}
    return [
        row(
            work,
            name,
            seconds,
            first,
            goals.get(name),
        )
        for name in ways
    ]


def _check(ways: dict[str, Callable[[], Any]], same: Callable[[Any, Any], None]) -> None:
    """Hold the output of every way against that of the first."""
    first, *others = ways.values()
    ours = first()
    for way in others:
        same(ours, way())


def timed(way: Callable[[], Any]) -> float:
    """Run a way and return its CPU seconds; earlier garbage is no part of them."""
    gc.collect()
    before = time.process_time()
    way()
    return time.process_time() - before


def row(
    work: str,
    name: str,
    seconds: dict[str, list[float]],
    first: str,
    goal: float | None = None,
) -> str:
    """Write the table row of a way, from CPU seconds by way and round."""
    ratio = "1"
    if name != first:
        ratios = np.divide(seconds[name], seconds[first])
        ratio = spread(ratios, ".2f")
    spent = spread(seconds[name], ".4f")
    reach = "" if goal is None else f"≥ {goal:g}"
    return f"| {work} | {name} | {spent} | {ratio} | {reach} |"


def products(flops: float, size: int = 512) -> Callable[[], None]:
    """Return what computes as many FLOPs as matrix products, of a size at which they run fast.

    That is the limit of what computes.
    """
    import torch

    one = torch.randn(size, size)
    other = torch.randn(size, size)
    out = torch.empty(size, size)
    each = 2 * size**3
    count = max(1, round(flops / each))

    def run() -> None:
        for _ in range(count):
            torch.mm(one, other, out=out)

    return run


def status(field: str) -> int:
    """Return a line of Linux's /proc/self/status in bytes, such as VmRSS, the memory of now."""
    path = Path("/proc/self/status")
    text = path.read_text(encoding="ascii")
    [kib] = re.findall(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(kib) * 1024


def spread(values: Any, form: str) -> str:
    """Write ``median (lower quartile–upper quartile)``."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


def show(rows: list[str]) -> None:
    """Print the table."""
    print(*HEAD, *rows, sep="\n", flush=True)
