"""The axes of plots: where values stand, and the round numbers beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

# What a step between two ticks may be, times a power of ten.
ROUND = (1, 2, 2.5, 5, 10)


@dataclass
class Axis:
    """Where the values of one direction stand on the picture."""

    # Values at the ticks.
    ticks: list[float]
    # Where the first and the last tick stand, pixels.
    begin: float
    end: float

    def place(self, value: float) -> float:
        """Return where a value stands, pixels."""
        first = self.ticks[0]
        last = self.ticks[-1]
        share = (value - first) / (last - first)
        length = self.end - self.begin
        return self.begin + share * length


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Return about ``number`` round values that enclose a range."""
    # A single value stands between its double and 0.
    if high <= low:
        double = 2 * high
        if high >= 0:
            low, high = 0.0, max(double, 1.0)
        else:
            low, high = double, 0.0

    # The smallest round step that does not need more of them.
    least = (high - low) / number
    exponent = math.log10(least)
    power = 10.0 ** math.floor(exponent)
    for times in ROUND:
        step = power * times
        if step >= least * 0.999:
            break

    # What binary fractions are off by moves no tick.
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    found = []
    for index in range(first, last + 1):
        value = step * index
        found.append(round(value, 10))
    return found


def short(number: float) -> str:
    """Write a number of steps, thousands of them as k."""
    if abs(number) < 10000:
        return f"{number:g}"
    thousands = number / 1000
    return f"{thousands:g}k"
