"""Plots of the report as inline SVG: sharp at any size, colored by the page's own palette in light
and dark, no font to miss.

Every function returns an ``<svg>`` element. The places in it are pixels, from the left and from the
top.
"""

from __future__ import annotations

import math
from itertools import chain

from wenet_osum.report import svg
from wenet_osum.report.axes import Axis, axes_around, grid
from wenet_osum.report.style import DRAWING, PALETTE

# Side of a cell of a confusion matrix, pixels.
CELL = 46
# A name of length 1 that is turned by 45 degrees is this high.
SLANT = 0.71
# Width and height of a plot of lines, pixels.
WIDTH, HEIGHT = 430, 240
# Height of the legend of a sheet, pixels.
LEGEND = 36
# Steps with their values.
Points = list[tuple[float, float]]


# -- confusion matrices -----------------------------------------------------------------------


def confusion(rows: list[str], columns: list[str], matrix: list[list[int]]) -> str:
    """Draw a confusion matrix: counts, shaded by their share of the row.

    Rows are references, columns answers.
    """
    widths = map(svg.text_width, rows)
    left = 14 + max([60.0, *widths])
    heights = map(svg.text_width, columns)
    top = SLANT * max(heights) + 18
    # The last column's name sticks out to the right as far as it does to the top.
    width = left + CELL * len(columns) + top
    height = top + CELL * len(rows) + 26
    told = "rows: reference, columns: answer"
    parts = [svg.note(left, height - 6, told, "start")]

    # Slanted names stand above the middle of their columns.
    y = top - 8
    for number, name in enumerate(columns):
        x = left + CELL * (number + 0.5)
        turned = svg.turn(-45, f"{x:.1f}", f"{y:.1f}")
        label = svg.label(x, y, name, "start", extra=turned)
        parts.append(label)

    for number, name in enumerate(rows):
        y = top + CELL * number
        # The name stands beside the middle of its row.
        middle = y + CELL / 2
        label = svg.label(left - 8, middle + 4, name, "end")
        cells = _row(left, y, name, columns, matrix[number])
        parts += [label, *cells]
    return svg.picture(width, height, parts, "confusion matrix")


def _row(left: float, y: float, name: str, columns: list[str], counts: list[int]) -> list[str]:
    """Draw the cells of a class of the references."""
    total = sum(counts)
    parts = []
    x = left
    for answered, count in zip(columns, counts, strict=True):
        share = count / total if total else 0.0
        percent = 100 * share
        told = f"{name} answered {answered}: {count} of {total} ({percent:.0f} %)"
        color = "var(--accent)" if answered == name else "var(--bad)"
        title = svg.title(told)
        cell = _cell(x, y, count, share, color)
        parts.append(f"<g>{title}{cell}</g>")
        x += CELL
    return parts


def _cell(x: float, y: float, count: int, share: float, color: str) -> str:
    """Draw a cell: its count on a ground that is the stronger the larger its share."""
    shade = 0.05 + 0.9 * share if count else 0.0
    square = {
        "x": x + 1,
        "y": y + 1,
        "width": CELL - 2,
        "height": CELL - 2,
        "rx": 4,
    }
    shading = f"fill:{color};fill-opacity:{shade:.3f}"
    ground = svg.element("rect", **square, class_="cell")
    shaded = svg.element("rect", **square, style=shading)

    # On a strong ground the ink is light.
    if shade > 0.5:
        ink = "onfill"
    else:
        ink = "" if count else "dim"
    text = str(count) if count else "·"
    middle = CELL / 2
    written = svg.label(
        x + middle,
        y + middle + 4,
        text,
        style=ink,
    )
    return ground + shaded + written


# -- lines over steps -------------------------------------------------------------------------


def curves(
    series: dict[str, Points],
    title: str,
    colors: dict[str, int],
    width: int = WIDTH,
    height: int = HEIGHT,
) -> str:
    """Draw lines over steps, one per name; empty without any finite value.

    ``colors`` gives each name its index in the palette.
    """
    finite = {name: _finite(line) for name, line in series.items()}
    every = finite.values()
    points = list(chain(*every))
    if not points:
        return ""

    across, up = axes_around(points, width, height - 30)
    heading = svg.label(across.begin, 17, title, "start", "strong")
    ruled = grid(across, up, height)
    parts = [heading, *ruled]
    for name, points in finite.items():
        color = svg.color_of(colors[name])
        line = _line(across, up, name, points, color)
        parts.append(line)
        # A single point makes no line; where its value is not defined, there is none.
        given = series[name]
        if points and len(given) == 1:
            dot = _dot(across, up, points[0], color)
            parts.append(dot)
    return svg.picture(width, height, parts, title)


def scatter(
    points: dict[str, tuple[float, float]],
    title: str,
    across_title: str,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> str:
    """Draw a dot per name, its name beside it; empty without any point.

    Points whose value is not defined are left out. ``across_title`` says what is counted from left
    to right.
    """
    finite = {}
    for name, point in points.items():
        defined = map(math.isfinite, point)
        if all(defined):
            finite[name] = point
    if not finite:
        return ""

    dots = list(finite.values())
    across, up = axes_around(dots, width, height - 44)
    heading = svg.label(across.begin, 17, title, "start", "strong")
    below = svg.note(across.end, height - 8, across_title, "end")
    ruled = grid(across, up, height - 16)
    parts = [heading, below, *ruled]
    for index, (name, point) in enumerate(finite.items()):
        color = svg.color_of(index)
        dot = _dot(across, up, point, color)
        named = _name_beside(across, up, point, name)
        parts += [dot, named]
    return svg.picture(width, height, parts, title)


def _name_beside(across: Axis, up: Axis, point: tuple[float, float], name: str) -> str:
    """Write a name beside its point, on the side that has more room."""
    value, height = point
    x = across.place(value)
    y = up.place(height) + 4
    to_the_left = x - across.begin
    to_the_right = across.end - x
    if to_the_left > to_the_right:
        return svg.note(x - 7, y, name, "end")
    return svg.note(x + 7, y, name, "start")


def _finite(line: Points) -> Points:
    """Leave out points whose value is not defined."""
    return [(step, value) for step, value in line if math.isfinite(value)]


def _line(across: Axis, up: Axis, name: str, points: Points, color: str) -> str:
    """Draw the line through some points."""
    corners = []
    for step, value in points:
        x = across.place(step)
        y = up.place(value)
        corners.append(f"{x:.1f},{y:.1f}")
    return svg.element(
        "polyline",
        svg.title(name),
        points=" ".join(corners),
        class_="line",
        style=f"stroke:{color}",
    )


def _dot(across: Axis, up: Axis, point: tuple[float, float], color: str) -> str:
    step, value = point
    return svg.element(
        "circle",
        cx=across.place(step),
        cy=up.place(value),
        r=3,
        style=f"fill:{color}",
    )


def sheet(
    drawn: list[str],
    legend: dict[str, int],
    columns: int = 2,
    width: int = WIDTH,
    height: int = HEIGHT,
    name: str = "learning curves",
) -> str:
    """Draw a file of its own: plots of one size side by side under a legend.

    The page's colors are in it. ``legend`` gives each name its index in the palette, ``name`` is
    read out to who cannot see it.
    """
    parts = [
        f"<style>{PALETTE}{DRAWING}svg text {{ font-family:system-ui,sans-serif }}</style>",
        svg.element("rect", width="100%", height="100%", style="fill:var(--card)"),
    ]
    x = 48.0
    for line, index in legend.items():
        color = svg.color_of(index)
        bar = svg.element(
            "rect",
            x=f"{x:.0f}",
            y=16,
            width=14,
            height=3,
            style=f"fill:{color}",
        )
        label = svg.label(x + 20, 22, line, "start")
        parts += [bar, label]
        x += 44 + svg.text_width(line)

    for number, plot in enumerate(drawn):
        row, column = divmod(number, columns)
        left = column * width
        top = LEGEND + row * height
        parts.append(f'<g transform="translate({left} {top})">{plot}</g>')

    rows = math.ceil(len(drawn) / columns)
    whole_width = columns * width
    whole_height = LEGEND + rows * height
    return svg.picture(whole_width, whole_height, parts, name)


# -- shares -----------------------------------------------------------------------------------


def calibration(bins: list[dict[str, float]], size: int = 250) -> str:
    """Draw a reliability diagram: accuracy over the answer's probability.

    Each dot is a bin, the larger the more answers are in it; on the diagonal probabilities are
    true.
    """
    span = size - 74
    left, top = 44, 16
    right, bottom = left + span, top + span
    across = Axis([0.0, 1.0], left, right)
    up = Axis([0.0, 1.0], bottom, top)
    parts = _halves(across, up)
    diagonal = svg.element(
        "line",
        x1=left,
        y1=bottom,
        x2=right,
        y2=top,
        class_="diagonal",
    )
    parts.append(diagonal)
    most = max(one["count"] for one in bins)
    for one in bins:
        parts.append(_bin(across, up, one, most))

    center = top + span / 2
    turned = svg.turn(-90, 13, center)
    below = svg.note(left + span / 2, bottom + 34, "probability")
    beside = svg.note(13, center, "accuracy", extra=turned)
    parts += [below, beside]
    return svg.picture(right + 20, size, parts, "calibration")


def _halves(across: Axis, up: Axis) -> list[str]:
    """Draw the grid of a square from 0 to 1, with the numbers at both axes."""
    left, bottom = across.begin, up.begin
    parts = []
    for tick in (0.0, 0.5, 1.0):
        x = across.place(tick)
        y = up.place(tick)
        text = f"{tick:g}"
        line = svg.grid_line(left, across.end, y)
        beside = svg.note(left - 6, y + 4, text, "end")
        below = svg.note(x, bottom + 16, text)
        parts += [line, beside, below]
    return parts


def _bin(across: Axis, up: Axis, one: dict[str, float], most: int) -> str:
    """Draw a bin of a reliability diagram, whose fullest bin has ``most`` answers."""
    count = one["count"]
    confidence = one["confidence"]
    accuracy = one["accuracy"]
    told = f"{count} answers, mean probability {confidence:.2f}, accuracy {accuracy:.2f}"
    # The area of a dot grows with the count.
    radius = 2.5 + 5 * math.sqrt(count / most)
    return svg.element(
        "circle",
        svg.title(told),
        cx=across.place(confidence),
        cy=up.place(accuracy),
        r=radius,
        class_="dot",
    )


def interval(
    value: float,
    low: float,
    high: float,
    better: str,
    mark: float | None = None,
    width: int = 132,
) -> str:
    """Draw a value in % on a line from 0 to 100 with its interval; empty for undefined ones.

    ``better`` is "up" or "down"; ``mark`` is the target, drawn as a tick.
    """
    numbers = (value, low, high)
    if not all(map(math.isfinite, numbers)):
        return ""
    needle, begin, end = (_along(number, width) for number in numbers)
    color = "accent" if better == "up" else "bad"
    filled = f"fill:var(--{color});fill-opacity:.55"
    # Narrower than this, an interval cannot be seen.
    wide = max(end - begin, 1.5)
    parts = [
        svg.bar(0, 7, width, 4, class_="cell"),
        svg.bar(0, 7, needle, 4, style=filled),
        svg.bar(begin, 3, wide, 12, class_="interval"),
        svg.element("rect", x=needle - 1, y=1, width=2, height=16, class_="needle"),
    ]
    if mark is not None:
        parts.append(_mark(mark, width))
    return svg.picture(width, 18, parts, f"{value:.1f} of 100")


def _mark(mark: float, width: float) -> str:
    """Draw the tick of a target."""
    x = _along(mark, width)
    told = svg.title(f"to reach: {mark:g}")
    return svg.element(
        "line",
        told,
        x1=x,
        x2=x,
        y1=0,
        y2=18,
        class_="target",
    )


def _along(percent: float, width: float) -> float:
    """Return how far along a line of ``width`` pixels a percentage stands, within its ends."""
    above = max(percent, 0.0)
    inside = min(above, 100.0)
    return width * inside / 100
