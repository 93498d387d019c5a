"""examples/ravdess on a small folder of the official layout."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest

RECIPE = Path(__file__).resolve().parents[2] / "examples/ravdess"
spec = importlib.util.spec_from_file_location("prepare_ravdess", RECIPE / "local/prepare.py")
prepare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prepare)


@pytest.fixture
def corpus(tmp_path):
    """Actors 1 to 6 and 13: eight emotions of one statement each, a song, a video and a strange name."""
    wav = write_wav(np.full(8000, 0.1, np.float32))
    for actor in (1, 2, 3, 4, 5, 6, 13):
        folder = tmp_path / f"official/Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in range(1, 9):
            (folder / f"03-01-{emotion:02d}-01-{1 + emotion % 2:02d}-01-{actor:02d}.wav").write_bytes(wav)
    for name in ("03-02-01-01-01-01-01", "01-01-01-01-01-01-01", "copy of 03"):
        (tmp_path / f"official/Actor_01/{name}.wav").write_bytes(wav)
    return tmp_path / "official"


def run(corpus: Path, out: Path, *more: str):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in ("train", "dev", "test")}


def test_actors_lie_in_folds_of_pairs(corpus, tmp_path, capsys):
    splits = run(corpus, tmp_path / "data")
    assert {name: {u.speaker for u in rows} for name, rows in splits.items()} == {
        "test": {"actor01", "actor02", "actor13"}, "dev": {"actor03", "actor04"}, "train": {"actor05", "actor06"}
    }  # fmt: skip
    page = capsys.readouterr().out
    assert "subset: 56 of 1440" in page and "2  song or video" in page and "1  file name of another form" in page and "share 2 of 2 sentences" in page
    other = run(corpus, tmp_path / "data", "--fold", "1")
    assert {u.speaker for u in other["test"]} == {"actor03", "actor04"} and {u.speaker for u in other["dev"]} == {"actor05", "actor06"}


def test_labels_come_from_the_file_name(corpus, tmp_path):
    rows = {u.key: u for u in run(corpus, tmp_path / "data")["test"]}
    angry = rows["03-01-05-01-02-01-02"]
    assert (angry.labels.get("emotion"), angry.labels.get("gender"), angry.txt, angry.lang, angry.duration) == ("anger", "female", "Dogs are sitting by the door", "en", 0.5)
    assert rows["03-01-08-01-01-01-01"].txt == "Kids are talking by the door" and rows["03-01-08-01-01-01-01"].labels.get("gender") == "male"
    assert Counter(u.labels.get("emotion") for u in rows.values()) == {"neutral": 6} | dict.fromkeys(["happy", "sad", "anger", "fear", "disgust", "surprise"], 3)


def test_actors_of_each_split_can_be_named(corpus, tmp_path, capsys):
    splits = run(corpus, tmp_path / "data", "--actors", "train=1-3", "dev=4-4", "test=5-9")
    speakers = {name: sorted({u.speaker for u in rows}) for name, rows in splits.items()}
    trained = ["actor01", "actor02", "actor03"]
    assert speakers == {"train": trained, "dev": ["actor04"], "test": ["actor05", "actor06"]}
    assert "8  actor of no split" in capsys.readouterr().out, "actor 13"
    for actors, told in (
        (["train=1-5", "dev=5-6", "test=13-13"], "actor 5 is in train and in dev"),
        (["train=1"], "--actors train=1: write train=FIRST-LAST"),
        (["train=1-5", "dev=6-6", "test=20-24"], "is left for test; name others with --actors"),
    ):
        with pytest.raises(ValueError, match=told):
            run(corpus, tmp_path / "data", "--actors", *actors)


def test_calm_can_stay_apart(corpus, tmp_path):
    rows = run(corpus, tmp_path / "data", "--emotions", "8")["test"]
    script = (RECIPE / "run.sh").read_text(encoding="utf-8")
    names = re.search(r"labels\.emotion=\[(\S+)\] ", script)[1].split(",")
    assert Counter(u.labels["emotion"] for u in rows) == dict.fromkeys(names, 3)
    assert len(names) == 8


def test_faults_are_told(corpus, tmp_path):
    with pytest.raises(ValueError, match="--strict_counts"):
        run(corpus, tmp_path / "data", "--strict_counts")
    with pytest.raises(ValueError, match="is left for dev, test; take another --fold"):
        run(corpus, tmp_path / "data", "--fold", "3")
    with pytest.raises(ValueError, match="folds 0 to 5"):
        run(corpus, tmp_path / "data", "--fold", "6")
    with pytest.raises(ValueError, match="no clip in"):
        run(tmp_path / "none", tmp_path / "data")
