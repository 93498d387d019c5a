"""Overlap between splits."""

from __future__ import annotations

import pytest

from wenet_osum.corpus.split import check_disjoint, split_by
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


def test_one_recording_is_known_by_any_path_and_a_name_in_any_form(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to("a.wav")
    (tmp_path / "folder").symlink_to(tmp_path)
    one = Utterance("a", str(tmp_path / "a.wav"), "caf\u00e9", speaker="Jos\u00e9")
    for wav in ("link.wav", "folder/a.wav", "../" + tmp_path.name + "/a.wav"):
        other = Utterance("b", f"{tmp_path}/{wav}", "cafe\u0301", speaker="Jose\u0301")
        notes = check_disjoint({"train": [one], "test": [other]}, [])
        assert [note.split(" in test")[0] for note in notes] == [f"train and test share 1 of 1 {kind}s" for kind in ("speaker", "sentence", "recording")]


def test_unknown_speaker_is_no_overlap():
    assert check_disjoint({"train": [utterance("a")], "test": [utterance("b")]}, ["speaker", "sentence"]) == []


def test_unknown_kind_is_told():
    with pytest.raises(ValueError, match="did you mean 'speaker'"):
        check_disjoint({}, ["speakers"])


def crowd(count: int = 40) -> list[Utterance]:
    """Speakers with 1 to 8 utterances of 1 to 3 s; every fourth is a child."""
    rows = []
    for s in range(count):
        for i in range(1 + s % 8):
            rows.append(Utterance(f"{s}-{i}", f"{s}-{i}.wav", speaker=f"s{s}", labels={"age": 8.0 if s % 4 == 0 else 30.0, "gender": "mf"[s % 2]}, duration=1.0 + (s + i) % 3))
    return rows


def test_split_keeps_speakers_together_and_shares():
    rows = crowd()
    splits = split_by(rows, {"train": 0.8, "dev": 0.1, "test": 0.1}, balance=["age", "gender"])
    assert check_disjoint(splits, ["speaker"]) == [] and sorted(u.key for part in splits.values() for u in part) == sorted(u.key for u in rows)
    seconds = {name: sum(u.duration for u in part) for name, part in splits.items()}
    for name, share in {"train": 0.8, "dev": 0.1, "test": 0.1}.items():
        assert seconds[name] / sum(seconds.values()) == pytest.approx(share, abs=0.03)
        children = [u.labels.get("age") == 8.0 for u in splits[name]]
        assert sum(children) / len(children) == pytest.approx(sum(u.labels.get("age") == 8.0 for u in rows) / len(rows), abs=0.1)
    assert splits == split_by(rows, {"train": 0.8, "dev": 0.1, "test": 0.1}, balance=["age", "gender"])


def test_joined_recordings_stay_together():
    rows = [utterance("a", recordings=["x"]), utterance("b", recordings=["y"]), utterance("c", recordings=["x", "y"]), utterance("d", recordings=["z"])]
    splits = split_by(rows, {"train": 0.7, "test": 0.3}, by="recording")
    assert sorted([[u.key for u in part] for part in splits.values()]) == [["a", "b", "c"], ["d"]]


@pytest.mark.parametrize(
    ("rows", "shares", "message"),
    [
        ([utterance("a")], {"train": 1.0}, "'a' has no speaker.*--by recording.*convert_manifest.py --from kaldi"),
        ([utterance("a", "s")], {"train": 0.9, "test": 0.1}, "no speaker is left for"),
        ([utterance("a", "s")], {"train": 1.0, "test": 0.0}, "above 0"),
    ],
)
def test_impossible_splits_are_told(rows, shares, message):
    with pytest.raises(ValueError, match=message):
        split_by(rows, shares)
