"""The learning curves as one picture, a panel an X."""

from __future__ import annotations

from typing import Any

from arms import ARMS, XS
from figures import mean_curve

from wenet_osum.score import plots

COLORS = {title: place for place, title in enumerate(ARMS.values())}


def draw(results: list[dict[str, Any]]) -> str:
    """An SVG file: panels of the X that have a curve, and what the colors mean."""
    panels = []
    for x in XS.values():
        lines = {
            ARMS[arm]: line
            for arm in ARMS
            if (
                line := mean_curve(
                    results,
                    x,
                    arm,
                )
            )
        }
        if lines:
            panels.append(plots.curves(lines, f"{x.name}: dev labels right, %", COLORS))
    return plots.sheet(panels, COLORS)
