"""The learning curves as one picture, a panel per X."""

from __future__ import annotations

from typing import Any

from arms import ARMS, XS
from figures import mean_curve

from wenet_osum.report import plots

COLORS = {title: place for place, title in enumerate(ARMS.values())}


def draw(results: list[dict[str, Any]]) -> str:
    """Make an SVG file: panels of the X that have a curve, and what the colors mean."""
    panels = []
    for x in XS.values():
        lines = {}
        for arm, title in ARMS.items():
            line = mean_curve(results, x, arm)
            if line:
                lines[title] = line
        if lines:
            title = f"{x.name}: dev labels right, %"
            panels.append(plots.curves(lines, title, COLORS))
    return plots.sheet(panels, COLORS)
