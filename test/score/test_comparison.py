"""Which of two systems is better: by the direction of the metric, and only where it is certain."""

from __future__ import annotations

import pytest

from wenet_osum.score import comparison
from wenet_osum.score.bootstrap import Difference


@pytest.mark.parametrize(
    ("difference", "p", "lower_is_better", "better"),
    [
        (-2, 0.01, True, "first"),
        (2, 0.01, True, "second"),
        (2, 0.01, False, "first"),
        (-2, 0.2, True, ""),
    ],
)
def test_which_side_is_better(difference, p, lower_is_better, better):
    found = Difference(difference, difference - 1, difference + 1, p, 9)
    name, values = ("transcript", "wer", "en"), (5.0, 7.0)
    row = comparison.row("asr", name, values, found, ("a", "b"), lower_is_better)
    assert row["better"] == better
