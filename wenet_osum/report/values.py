"""How the values of scores are written."""

from __future__ import annotations

import math

from wenet_osum.records import Score


def number(score: Score, value: float) -> str:
    """Write a value with the digits of its metric; a dash when it is undefined."""
    if not math.isfinite(value):
        return "–"
    decimals = score.about.decimals
    return f"{value:.{decimals}f}"


def written(score: Score) -> tuple[str, str]:
    """Write the value with its unit, and the interval."""
    value = number(score, score.value)
    if value != "–":
        value += f" {score.about.unit}"

    # The interval has the same unit.
    low = number(score, score.low)
    high = number(score, score.high)
    return value, f"[{low}, {high}]"
