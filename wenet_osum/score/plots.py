"""Pictures of the report as inline SVG: sharp at any size, colored by the page's own palette in light and dark, no font to miss.

Every function returns an ``<svg>`` element; all text in it is escaped here.
"""

from __future__ import annotations

import math
from html import escape
from unicodedata import east_asian_width

from wenet_osum.score.page import DRAWING, PALETTE

SERIES = 8  # colors --s0 … --s7 of the page


def text_width(text: str, size: float = 12.0) -> float:
    """Rough width of a text in pixels."""
    return sum(size if east_asian_width(c) in "WF" else 0.58 * size for c in text)


def label(x: float, y: float, text: str, anchor: str = "middle", style: str = "", extra: str = "") -> str:
    """A piece of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}" {extra}>{escape(text)}</text>'


def confusion(rows: list[str], columns: list[str], matrix: list[list[int]]) -> str:
    """A confusion matrix: counts, shaded by their share of the row. Rows are references, columns answers."""
    cell, left = 46, 14 + max([text_width(r) for r in rows] + [60])
    slant = 0.71 * max(text_width(c) for c in columns) + 18
    width, height = left + cell * len(columns) + slant, slant + cell * len(rows) + 26
    parts = [label(left, height - 6, "rows: reference, columns: answer", "start", "dim small")]
    for j, name in enumerate(columns):
        x = left + cell * (j + 0.5)
        parts.append(label(x, slant - 8, name, "start", "", f'transform="rotate(-45 {x:.1f} {slant - 8:.1f})"'))
    for i, (name, row) in enumerate(zip(rows, matrix, strict=True)):
        parts.append(label(left - 8, slant + cell * (i + 0.5) + 4, name, "end"))
        total = sum(row)
        for j, number in enumerate(row):
            parts.append(_cell(left + cell * j, slant + cell * i, cell, number, total, rows[i], columns[j]))
    return _svg(width, height, parts, "confusion matrix")


def _cell(x: float, y: float, size: float, number: int, total: int, row: str, column: str) -> str:
    part = number / total if total else 0.0
    shade = 0.05 + 0.9 * part if number else 0.0
    color = "var(--accent)" if row == column else "var(--bad)"
    ink = "onfill" if shade > 0.5 else "" if number else "dim"
    title = f"{row} answered {column}: {number} of {total} ({100 * part:.0f} %)"
    return (
        f'<g><title>{escape(title)}</title><rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size - 2}" height="{size - 2}" rx="4" class="cell"/>'
        f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{size - 2}" height="{size - 2}" rx="4" style="fill:{color};fill-opacity:{shade:.3f}"/>'
        + label(x + size / 2, y + size / 2 + 4, str(number) if number else "·", "middle", ink)
        + "</g>"
    )


def curves(series: dict[str, list[tuple[float, float]]], title: str, colors: dict[str, int], width: int = 430, height: int = 240) -> str:
    """Lines over steps, one a name; ``colors`` gives each name its place in the palette."""
    points = [(x, y) for line in series.values() for x, y in line if math.isfinite(y)]
    if not points:
        return ""
    left, right, top, bottom = 48, 24, 30, 30
    xs, ys = _ticks(min(p[0] for p in points), max(p[0] for p in points)), _ticks(min(p[1] for p in points), max(p[1] for p in points))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - xs[0]) / (xs[-1] - xs[0]) * (width - left - right),
            height - bottom - (y - ys[0]) / (ys[-1] - ys[0]) * (height - top - bottom),
        )

    parts = [label(left, 17, title, "start", "strong")]
    for y in ys:
        height_y = at(xs[0], y)[1]
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{height_y:.1f}" y2="{height_y:.1f}" class="grid"/>')
        parts.append(label(left - 6, height_y + 4, f"{y:g}", "end", "dim small"))
    parts += [label(at(x, ys[0])[0], height - 10, _short(x), "middle", "dim small") for x in xs]
    for name, line in series.items():
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(x, y) for x, y in line if math.isfinite(y)))
        parts.append(
            f'<polyline points="{path}" class="line" style="stroke:var(--s{colors[name] % SERIES})"><title>{escape(name)}</title></polyline>'
        )
        if len(line) == 1:
            a, b = at(*line[0])
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" style="fill:var(--s{colors[name] % SERIES})"/>')
    return _svg(width, height, parts, title)


def sheet(drawn: list[str], legend: dict[str, int], columns: int = 2, width: int = 430, height: int = 240) -> str:
    """A file of its own: pictures of one size side by side under a legend (name → place in the palette), with the page's colors in it."""
    head, rows = 36, -(-len(drawn) // columns)
    parts = [f"<style>{PALETTE}{DRAWING}svg text {{ font-family:system-ui,sans-serif }}</style>", '<rect width="100%" height="100%" style="fill:var(--card)"/>']
    x = 48.0
    for name, color_index in legend.items():
        parts.append(f'<rect x="{x:.0f}" y="16" width="14" height="3" style="fill:var(--s{color_index % SERIES})"/>' + label(x + 20, 22, name, "start"))
        x += 44 + text_width(name)
    for i, picture in enumerate(drawn):
        parts.append(f'<g transform="translate({i % columns * width} {head + i // columns * height})">{picture}</g>')
    return _svg(columns * width, head + rows * height, parts, "learning curves")


def calibration(bins: list[dict[str, float]], size: int = 250) -> str:
    """A reliability diagram: accuracy over the answer's probability; on the diagonal probabilities are true."""
    left, top, span = 44, 16, size - 74
    parts = []
    for tick in (0.0, 0.5, 1.0):
        x, y = left + span * tick, top + span * (1 - tick)
        parts.append(f'<line x1="{left}" x2="{left + span}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts += [label(left - 6, y + 4, f"{tick:g}", "end", "dim small"), label(x, top + span + 16, f"{tick:g}", "middle", "dim small")]
    parts.append(f'<line x1="{left}" y1="{top + span}" x2="{left + span}" y2="{top}" class="diagonal"/>')
    most = max(b["count"] for b in bins)
    for b in bins:
        title = f"{b['count']} answers, mean probability {b['confidence']:.2f}, accuracy {b['accuracy']:.2f}"
        parts.append(
            f'<circle cx="{left + span * b["confidence"]:.1f}" cy="{top + span * (1 - b["accuracy"]):.1f}" '
            f'r="{2.5 + 5 * math.sqrt(b["count"] / most):.1f}" class="dot"><title>{escape(title)}</title></circle>'
        )
    middle = left + span / 2
    parts.append(label(middle, top + span + 34, "probability", "middle", "dim small"))
    parts.append(label(13, top + span / 2, "accuracy", "middle", "dim small", f'transform="rotate(-90 13 {top + span / 2})"'))
    return _svg(left + span + 20, size, parts, "calibration")


def interval(value: float, low: float, high: float, better: str, mark: float | None = None, width: int = 132) -> str:
    """A figure in % on a line from 0 to 100 with its interval, and the bar to reach as a tick."""
    if not all(math.isfinite(v) for v in (value, low, high)):
        return ""
    a, b, v = (width * min(max(x, 0.0), 100.0) / 100 for x in (low, high, value))
    parts = [
        f'<rect x="0" y="7" width="{width}" height="4" rx="2" class="cell"/>',
        f'<rect x="0" y="7" width="{v:.1f}" height="4" rx="2" style="fill:var(--{"accent" if better == "up" else "bad"});fill-opacity:.55"/>',
        f'<rect x="{a:.1f}" y="3" width="{max(b - a, 1.5):.1f}" height="12" rx="2" class="interval"/>',
        f'<rect x="{v - 1:.1f}" y="1" width="2" height="16" class="needle"/>',
    ]
    if mark is not None:
        x = width * min(max(mark, 0.0), 100.0) / 100
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="18" class="target"><title>to reach: {mark:g}</title></line>')
    return _svg(width, 18, parts, f"{value:.1f} of 100")


def _svg(width: float, height: float, parts: list[str], name: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'{head} role="img" aria-label="{escape(name, quote=True)}">{"".join(parts)}</svg>'


def _ticks(low: float, high: float, number: int = 5) -> list[float]:
    """About ``number`` round values that enclose a range."""
    if high <= low:
        low, high = (0.0, max(2 * high, 1.0)) if high >= 0 else (2 * high, 0.0)
    raw = (high - low) / number
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]


def _short(number: float) -> str:
    return f"{number / 1000:g}k" if abs(number) >= 10000 else f"{number:g}"
