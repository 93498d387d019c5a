"""The frame of the benchmarks: several ways to do the same work, checked against each other, then
timed in turns in one process.

Times are CPU seconds of this process (all its threads), so that a busy machine disturbs them
little. Each round runs every way once; a ratio is taken within its round. Printed are medians with
quartiles.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
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
    """Table rows for ``ways``, the first of which is ours. ``same`` raises AssertionError when a
    way's output is not ours.

    ``limit`` is what no way can do without, by name: it is timed along, and not compared.
    """
    first = next(iter(ways))
    ours = ways[first]()
    for name, way in ways.items():
        if name != first:
            same(ours, way())
    del ours
    if limit:
        ways = ways | {f"limit: {limit[0]}": limit[1]}
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            before = time.process_time()
            way()
            seconds[name].append(time.process_time() - before)
    return [row(work, name, seconds, first, (goals or {}).get(name)) for name in ways]


def row(
    work: str, name: str, seconds: dict[str, list[float]], first: str, goal: float | None = None
) -> str:
    """The table row of a way, from CPU seconds by way and round."""
    ratio = "1" if name == first else spread(np.divide(seconds[name], seconds[first]), ".2f")
    return f"| {work} | {name} | {spread(seconds[name], '.4f')} | {ratio} | {'' if goal is None else f'≥ {goal:g}'} |"


def products(flops: float, size: int = 512) -> Callable[[], None]:
    """Matrix products of as many FLOPs, of a size at which they run fast: the limit of what
    computes.
    """
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)

    def run() -> None:
        for _ in range(max(1, round(flops / (2 * size**3)))):
            torch.mm(a, b, out=out)

    return run


def spread(values: Any, form: str) -> str:
    """``median (lower quartile–upper quartile)``"""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


def show(rows: list[str]) -> None:
    """Print the table."""
    print(*HEAD, *rows, sep="\n", flush=True)
