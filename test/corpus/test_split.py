"""Overlap between splits."""

from __future__ import annotations

import pytest

from wenet_osum.corpus.split import check_disjoint
from wenet_osum.records import Utterance


def utterance(key: str, speaker: str | None = None, txt: str | None = None, **extra) -> Utterance:
    return Utterance(key, f"{key}.wav", txt=txt, speaker=speaker, extra=extra)


def test_disjoint_splits_have_no_notes():
    splits = {"train": [utterance("a", "s1", "one two")], "test": [utterance("b", "s2", "two one")]}
    assert check_disjoint(splits, ["speaker", "sentence", "recording"]) == []


def test_declared_overlap_stops_with_examples():
    splits = {"train": [utterance("a", "s1")], "dev": [utterance("b", "s2")], "test": [utterance("c", "s1"), utterance("d", "s3")]}
    with pytest.raises(ValueError, match="train and test share 1 of 2 speakers in test: s1"):
        check_disjoint(splits, ["speaker"])


def test_other_overlap_is_counted():
    splits = {"train": [utterance("a", "s1", "One  two")], "test": [utterance("b", "s1", "one two")]}
    assert check_disjoint(splits, ["recording"]) == [
        "train and test share 1 of 1 speakers in test: s1",
        "train and test share 1 of 1 sentences in test: onetwo",
    ]


def test_joined_recordings_are_looked_into():
    splits = {"train": [utterance("a", recordings=["x.wav", "y.wav"])], "test": [utterance("b", recordings=["y.wav"])]}
    with pytest.raises(ValueError, match=r"recordings in test: y\.wav"):
        check_disjoint(splits, ["recording"])


def test_unknown_speaker_is_no_overlap():
    assert check_disjoint({"train": [utterance("a")], "test": [utterance("b")]}, ["speaker", "sentence"]) == []


def test_unknown_kind_is_told():
    with pytest.raises(ValueError, match="did you mean 'speaker'"):
        check_disjoint({}, ["speakers"])
