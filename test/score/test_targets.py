"""Targets that cannot be read, or name no metric."""

from __future__ import annotations

import pytest

from wenet_osum.records import Score
from wenet_osum.score import targets


@pytest.mark.parametrize("text", ["asr<=8", "asr/wer=8", "asr/wer<=low", ""])
def test_bad_bars(text):
    with pytest.raises(ValueError, match="must read task/metric<=number"):
        targets.parse_targets([text])


def test_a_misspelled_bar_is_told():
    scores = [Score("sttc", "exact_match", 50.0, 40.0, 60.0, 10, 10)]
    right = targets.parse_targets(["sttc/exact_match>=90", "sttc/exact_match/all>=90"])
    assert targets.unmatched(scores, right) == []
    tags = [Score("<EMOTION> <GENDER>", "accuracy", 50.0, 40.0, 60.0, 10, 10)]
    for text in ("<EMOTION><GENDER>/accuracy>=60", "<EMOTION> <GENDER>/accuracy>=60"):
        assert len(targets.missed(tags, targets.parse_targets([text]))) == 1
    [told] = targets.unmatched(scores, targets.parse_targets(["sttc/exact>=90"]))
    assert told == "bar sttc/exact: no such figure; sttc has exact_match"
