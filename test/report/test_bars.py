"""Plots of what lists hold: every utterance is in a bar, and bars say what they count."""

from __future__ import annotations

import re

from wenet_osum.report.bars import bars, histogram


def test_histogram_counts_everything():
    drawn = histogram([0.5] * 7 + [2.0] * 3 + [4.0], "d")
    counts = [int(number) for number in re.findall(r"<title>[^:<]*: (\d+)</title>", drawn)]
    assert sum(counts) == 11 and max(counts) == 7 and counts[-1] >= 1


def test_every_label_has_a_bar_that_can_be_seen():
    drawn = bars({"laugh": 3000, "<b>": 1}, "e")
    assert re.findall(r"<title>(.*?)</title>", drawn) == ["laugh: 3000", "&lt;b&gt;: 1"]
    widths = re.findall(r'<rect .*?width="([\d.]+)"', drawn)
    assert len(widths) == 2 and float(widths[1]) == 0.5
