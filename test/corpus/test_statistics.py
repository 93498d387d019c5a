"""Numbers of lists, whose utterances may lack duration and speaker."""

from __future__ import annotations

import pytest

from wenet_osum.corpus.statistics import durations, hours, summary
from wenet_osum.records import Utterance


def test_what_is_not_known_is_not_counted():
    timed = [Utterance(f"k{i}", "x.wav", speaker=f"s{i % 2}", duration=900.0) for i in range(4)]
    utterances = [*timed, Utterance("bare", "x.wav")]
    assert durations(utterances) == [900.0] * 4 and hours(utterances) == pytest.approx(1.0)
    assert summary({"a": utterances, "b": []}) == [
        "a: 5 utterances, 1.000 h, 2 speakers",
        "b: 0 utterances, 0.000 h, 0 speakers",
    ]


def test_a_list_without_durations_has_no_hours():
    assert summary({"train": [Utterance("a", "a.wav")]}) == ["train: 1 utterances, durations not known, 0 speakers"]
