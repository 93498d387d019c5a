"""How values are written."""

from __future__ import annotations

import math

from wenet_osum.records import Score


def plain(value: float | None, form: str = ".2f") -> str:
    """Write a value in a form of Python's ``format``; a dash when it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return format(value, form)


def number(score: Score, value: float) -> str:
    """Write a value with the digits of its metric; a dash when it is undefined."""
    decimals = score.about.decimals
    return plain(value, f".{decimals}f")


def written(score: Score) -> tuple[str, str]:
    """Write the value with its unit, and the interval."""
    value = number(score, score.value)
    if value != "–":
        value += f" {score.about.unit}"

    # The interval has the same unit.
    low = number(score, score.low)
    high = number(score, score.high)
    return value, f"[{low}, {high}]"
