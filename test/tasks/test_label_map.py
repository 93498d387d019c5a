"""Label maps: every file leads to labels we have, says where it comes from, and what it leaves out is counted."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from wenet_osum import tasks
from wenet_osum.bin import score
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.tasks import label_map

CLASSES = {"esc50": 50, "vocalsound": 6, "meld": 7, "mer2023": 6, "iemocap": 11, "ravdess": 8}  # as their papers count them


@pytest.mark.parametrize("name", label_map.names())
def test_every_map_can_be_used(name):
    found = label_map.load(name)
    assert found.name == name and ("10." in found.source or "arXiv" in found.source), "the source names a paper"
    for field, table in found.fields.items():
        ours = tasks.label_fields()[field]
        assert {label for label in table.values() if label} <= set(ours.labels.names) and any(table.values())
        left_out = Counter()
        for spelling, label in table.items():
            assert found.mapped(Utterance("k", "w", labels={ours.attribute: spelling.upper()}), left_out).get(ours.attribute) == label
        assert left_out.total() == sum(label is None for label in table.values())


def test_no_class_of_the_public_sets_is_forgotten():
    for name, number in CLASSES.items():
        [table] = label_map.load(name).fields.values()
        assert len(table) >= number, f"{name} names {len(table)} of {number} classes"
    assert set(label_map.load("commonvoice").fields) == {"gender", "age"}


def test_labels_are_mapped_left_out_or_refused():
    ravdess = label_map.load("ravdess")
    left_out = Counter()
    assert ravdess.mapped(Utterance("k", "w", labels={"emotion": "05", "age": 30}), left_out) == Utterance("k", "w", labels={"emotion": "anger", "age": 30})
    assert ravdess.mapped(Utterance("k", "w"), left_out).labels == {} and not left_out.total()
    voice = label_map.load("commonvoice").mapped(Utterance("k", "w", labels={"gender": "Female_Feminine", "age": "teens"}), left_out)
    assert voice.labels == {"gender": "female"} and left_out["age teens"] == 1
    with pytest.raises(ValueError, match="label map ravdess: unknown emotion 'angr', did you mean 'angry'"):
        ravdess.mapped(Utterance("k", "w", labels={"emotion": "angr"}), left_out)
    with pytest.raises(ValueError, match="unknown label map 'ravdes', did you mean 'ravdess'"):
        label_map.load("ravdes")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("emotion: {a: sad}", "must hold 'source"),
        ("source: x", "at least one field"),
        ("source: x\nemotio: {a: sad}", "unknown label field 'emotio', did you mean 'emotion'"),
        ("source: x\nemotion: sad", "must hold 'corpus label: our label'"),
        ("source: x\nemotion: {05: sad}", "quote them"),
        ("source: x\nemotion: {a: sadd}", "unknown emotion label 'sadd', did you mean 'sad'"),
        ("source: x\nemotion: {a_b: sad, A-B: anger}", "stands twice with different labels"),
        ("source: [", "no yaml"),
    ],
)
def test_bad_maps_are_refused(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        label_map.load(str(tmp_path / "mine.yaml"))


def test_the_scorer_counts_what_a_map_leaves_out(tmp_path, capsys):
    task = tasks.parse("<EMOTION>")
    refs = [Utterance(f"k{i}", "a.wav", labels={"emotion": e}) for i, e in enumerate(("ang", "exc", "fru", "xxx", "fru"))]
    rows = [Hypothesis(u.key, task.tags, "", labels={"emotion": label}) for u, label in zip(refs, ("anger", "sad", "sad", "sad", "sad"), strict=True)]
    (tmp_path / "ref").write_text("".join(u.to_json() + "\n" for u in refs))
    (tmp_path / "hyp").write_text("".join(h.to_json() + "\n" for h in rows))
    words = ["--ref", f"{tmp_path}/ref", "--hyp", f"{tmp_path}/hyp", "--task", "<EMOTION>", "--out", f"{tmp_path}/o"]
    assert score.main([*words, "--label_map", "iemocap"]) == 0
    assert "left out by label map iemocap: emotion fru 2, emotion xxx 1" in capsys.readouterr().err
    tree = json.loads((tmp_path / "o/score.json").read_text())
    assert tree["data"][0]["left_out_by_map"] == {"emotion fru": 2, "emotion xxx": 1} and "10579" in tree["label map"]
    accuracy = tree["scores"][0]
    assert (accuracy["value"], accuracy["utterances"], accuracy["detail"]["left_out"]) == (50.0, 2, 3)
    assert score.main([*words, "--label_map", "iemocap", "--label_map", "meld"]) == 1 and "one per task: 1 tasks, 2 maps" in capsys.readouterr().err
    assert score.main([*words, "--label_map", "meld"]) == 1 and "unknown emotion 'ang'" in capsys.readouterr().err
