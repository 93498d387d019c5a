"""Plots of odd numbers, and the ticks of their axes."""

from __future__ import annotations

import math
import re

from wenet_osum.report import axes, plots


def test_pictures_of_odd_numbers():
    assert plots.curves({"a": [(1, float("nan"))]}, "t", {"a": 0}) == ""
    assert "polyline" in plots.curves({"a": [(5, 0.0)]}, "t", {"a": 0})  # one point, no range
    assert "polyline" in plots.curves({"a": [(1, -2.0), (2, -2.0)]}, "t", {"a": 9})
    assert plots.interval(float("nan"), 0, 1, "up") == ""


def test_a_line_whose_only_value_is_undefined_leaves_the_others_drawn():
    drawn = plots.curves({"a": [(1, math.nan)], "b": [(1, 2.0)]}, "t", {"a": 0, "b": 1})
    assert drawn.count("<circle") == 1 and "nan" not in drawn


def test_names_stand_beside_their_dots():
    points = {"left": (1.0, 30.0), "right": (12.5, 20.0), "no figure": (5.0, math.nan)}
    drawn = plots.scatter(points, "WER", "tokens")
    assert drawn.count("<circle") == 2 and "no figure" not in drawn and "nan" not in drawn
    anchors = re.findall(r'text-anchor="(\w+)"[^>]*>(left|right)<', drawn)
    assert anchors == [("start", "left"), ("end", "right")], "no name leaves the picture"
    assert plots.scatter({"a": (math.nan, 1.0)}, "t", "x") == ""
    assert plots.sheet([drawn], {}, name="adapters").count('aria-label="adapters"') == 1


def test_ticks_enclose_the_range():
    for low, high in ((0, 1), (0.3, 0.31), (7, 4200), (-3, 5), (2, 2), (0, 0)):
        ticks = axes.ticks(low, high)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8
