"""The axes of plots: where values stand, the round numbers beside them, and the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wenet_osum.report import svg

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


def axes_around(
    points: list[tuple[float, float]], width: float, bottom: float
) -> tuple[Axis, Axis]:
    """Return the axes of a plot that ends at ``bottom``, on which all points have a place."""
    lefts, values = zip(*points, strict=True)
    first, last = min(lefts), max(lefts)
    least, most = min(values), max(values)
    xs = ticks(first, last)
    ys = ticks(least, most)
    across = Axis(xs, 48, width - 24)
    # Heights are counted from the top.
    up = Axis(ys, bottom, 30)
    return across, up


def grid(across: Axis, up: Axis, height: float) -> list[str]:
    """Draw the horizontal lines, and the numbers at both axes."""
    left = across.begin
    parts = []
    for value in up.ticks:
        y = up.place(value)
        line = svg.grid_line(left, across.end, y)
        number = svg.note(left - 6, y + 4, f"{value:g}", "end")
        parts += [line, number]
    for step in across.ticks:
        x = across.place(step)
        number = svg.note(x, height - 10, short(step))
        parts.append(number)
    return parts
