"""Plots of what lists hold, as inline SVG: a histogram of durations, and bars of labels.

The places in them are pixels, from the left and from the top.
"""

from __future__ import annotations

import numpy as np

from wenet_osum.report import svg

# Bars of a histogram.
BINS = 24
FILL = "fill:var(--accent);fill-opacity:.75"


def histogram(seconds: list[float], title: str, width: int = 430, height: int = 190) -> str:
    """Draw how many utterances have which duration, as an SVG.

    The last bar holds everything beyond the 99.5 % quantile.
    """
    longest = float(np.quantile(seconds, 0.995))
    top = max(longest, 1e-3)
    clipped = np.minimum(seconds, top)
    counts, edges = np.histogram(clipped, BINS, (0.0, top))

    left = 10
    base = height - 30
    step = (width - 20) / BINS
    title_line = svg.label(left, 17, title, "start", "strong")
    parts = [title_line]
    for i, count in enumerate(counts):
        tall = (base - 30) * count / counts.max()
        if i < BINS - 1:
            last = f"to {edges[i + 1]:.2f} s"
        else:
            last = "and more"
        bar = svg.bar(
            x=left + step * i + 0.5,
            y=base - tall,
            width=step - 1,
            height=tall,
            tooltip=f"{edges[i]:.2f} s {last}: {count}",
            style=FILL,
        )
        parts.append(bar)

    # Every sixth part of the axis has its seconds under it.
    y = height - 12
    for i in range(0, BINS + 1, BINS // 6):
        x = left + step * i
        text = f"{edges[i]:.3g}"
        parts.append(svg.label(x, y, text, "middle", "dim small"))
    return svg.picture(width, height, parts, title)


def bars(counts: dict[str, int], title: str, width: int = 430) -> str:
    """Draw one bar per label with its count, as an SVG."""
    widest = max(svg.text_width(label) for label in counts)
    left = 16 + widest
    height = 30 + 22 * len(counts)
    most = max(counts.values())

    title_line = svg.label(10, 17, title, "start", "strong")
    parts = [title_line]
    top = 30
    for label, count in counts.items():
        # Narrower than half a pixel, a bar cannot be seen.
        length = max(0.5, (width - left - 70) * count / most)
        end = left + length + 6
        line = top + 13
        bar = svg.bar(
            x=left,
            y=top + 2,
            width=length,
            height=15,
            tooltip=f"{label}: {count}",
            style=FILL,
        )
        name = svg.label(left - 6, line, label, "end")
        number = svg.label(end, line, str(count), "start", "dim small")
        parts += [name, bar, number]
        top += 22
    return svg.picture(width, height, parts, title)
