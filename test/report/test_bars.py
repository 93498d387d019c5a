"""Plots of what lists hold: every utterance is in a bar, and bars say what they count."""

from __future__ import annotations

import re

from wenet_osum.report.bars import bars, histogram


def test_histogram_counts_everything():
    counts = [int(n) for n in re.findall(r"<title>[^:<]*: (\d+)</title>", histogram([0.5] * 7 + [2.0] * 3 + [4.0], "d"))]
    assert sum(counts) == 11 and max(counts) == 7 and counts[-1] >= 1
    assert re.findall(r"<title>(.*?)</title>", bars({"laugh": 3, "<b>": 1}, "e")) == ["laugh: 3", "&lt;b&gt;: 1"]
