"""The end of a preparation: nothing is written before the splits hold what was declared."""

from __future__ import annotations

import pytest

from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Utterance


def splits(test_speaker: str = "c"):
    spoken = Utterance("a", "a.wav", "one < two", speaker="a", labels={"emotion": "joy"}, duration=1800.0)
    train = [spoken, Utterance("q", "q.wav", "Why?", speaker="a", reply="So.")]
    dev, test = Utterance("b", "b.wav", "", speaker="b", labels={"event": "cry"}), Utterance("c", "c.wav", "one", speaker=test_speaker)
    return {"train": train, "dev": [dev], "test": [test]}


def test_manifests_text_and_counts(tmp_path, capsys):
    dropped = Dropped()
    note(dropped, "x", "no clip")
    write_splits(tmp_path, splits(), ["speaker"], dropped)
    assert [u.key for u in read_manifest(tmp_path / "train/manifest.jsonl")] == ["a", "q"]
    assert (tmp_path / "text/train.txt").read_text().splitlines() == ["one \\< two", "Why?<开始回答>So."]
    page = capsys.readouterr().out
    for line in ("1  no clip", "train: 2 utterances, 0.500 h, 1 speakers", "train: emotion: happy 1", "dev: event: cry 1"):
        assert line in page


def test_shared_speakers_and_empty_splits_stop_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="disjoint by speaker"):
        write_splits(tmp_path / "o", splits("a"), ["speaker"], Dropped())
    with pytest.raises(ValueError, match="no utterance is left for dev"):
        write_splits(tmp_path / "o", splits() | {"dev": []}, ["speaker"], Dropped())
    assert not (tmp_path / "o").exists()
