"""examples/meld on a small folder of the official layout; a stand-in for ffmpeg writes wavs."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from wenet_osum.dataset.manifest import read_manifest

HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
ROWS = {  # dialogue, utterance, words, speaker, emotion
    "train": [
        (0, 0, "Oh my God, he\x92s lost it.", "Phoebe", "sadness"),
        (0, 1, "What?", "Monica", "surprise"),
        (125, 3, "Gone.", "Joey", "joy"),
        (7, 0, "  ", "Ross", "fear"),
    ],
    "dev": [(0, 0, "Hi roomie!", "Ross", "joy"), (110, 7, "Missing.", "Joey", "anger")],
    "test": [(0, 0, "Yeah.", "Joey", "neutral"), (0, 1, "Ew!", "Rachel", "disgust"), (1, 0, "No clip.", "Rachel", "fear")],
}
LOST = {("train", "dia125_utt3"), ("dev", "dia110_utt7"), ("test", "dia1_utt0")}


@pytest.fixture
def prepare(load_prepare):
    return load_prepare("meld")


def write_tables(folder) -> None:
    folder.mkdir()
    for split, rows in ROWS.items():
        lines = "".join(f'{i},"{words}",{speaker},{emotion},x,{d},{u},1,1,"0,0","0,1"\n' for i, (d, u, words, speaker, emotion) in enumerate(rows))
        (folder / f"{split}_sent_emo.csv").write_text(HEAD + lines, encoding="utf-8")


@pytest.fixture
def corpus(tmp_path, tone):
    """Tables, and wavs that somebody has taken out of the clips already; one stands in no table."""
    folder = tmp_path / "MELD.Raw"
    write_tables(folder)
    for split, rows in ROWS.items():
        (folder / split).mkdir()
        for dialogue, utterance, *_ in rows:
            if (split, f"dia{dialogue}_utt{utterance}") not in LOST:
                (folder / split / f"dia{dialogue}_utt{utterance}.wav").write_bytes(tone(0.4, 150 + 40 * utterance))
    (folder / "train/dia125_utt3.wav").write_bytes(b"RIFF cut")
    (folder / "test/dia99_utt0.wav").write_bytes(tone())
    return folder


def run(prepare, corpus, out, *more):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: {u.key: u for u in read_manifest(out / name / "manifest.jsonl")} for name in ("train", "dev", "test")}


def test_words_and_emotions_by_the_official_splits(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data")
    assert {name: sorted(rows) for name, rows in splits.items()} == {
        "train": ["train_dia0_utt0", "train_dia0_utt1"], "dev": ["dev_dia0_utt0"], "test": ["test_dia0_utt0", "test_dia0_utt1"]
    }  # fmt: skip
    first = splits["train"]["train_dia0_utt0"]
    assert (first.txt, first.labels.get("emotion"), first.speaker, first.lang, first.duration) == ("Oh my God, he’s lost it.", "sad", "Phoebe", "en", 0.4)
    assert Counter(u.labels.get("emotion") for u in splits["test"].values()) == {"neutral": 1, "disgust": 1}
    page = capsys.readouterr().out
    for line in (
        "meld train rows: subset: 4 of 9989",
        "meld dev clips: subset: 1 of 1108",
        "1  train dia125_utt3: cannot be decoded in the official release",
        "1  dev dia110_utt7: is missing in the official release",
        "1  no clip",
        "1  no words",
        "meld test: 1 clips stand in no row",
    ):
        assert line in page, line


@pytest.fixture
def videos(tmp_path, tone, monkeypatch):
    """The release as it is: mp4 in its own folders. ffmpeg here copies what it gets, and fails where that is no wav."""
    folder = tmp_path / "release"
    write_tables(folder)
    for split, rows in ROWS.items():
        (folder / split / FOLDERS[split]).mkdir(parents=True)
        for dialogue, utterance, *_ in rows:
            (folder / split / FOLDERS[split] / f"dia{dialogue}_utt{utterance}.mp4").write_bytes(b"broken" if dialogue == 125 else tone())
    fails = "grep -q RIFF \"$2\" || { echo bad data >&2; exit 1; }"
    script = f'#!/bin/bash\necho "$*" >> "$0.told"\nwhile [ "$1" != -i ]; do shift; done\n{fails}\ncp "$2" "${{@: -1}}"\n'
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ffmpeg").write_text(script)
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return folder


def test_ffmpeg_takes_the_sound_out_once(prepare, videos, tmp_path, capsys):
    splits = run(prepare, videos, tmp_path / "data", "--jobs", "2")
    assert len(splits["train"]) == 2 and len(splits["dev"]) == 2 and len(splits["test"]) == 3
    assert splits["dev"]["dev_dia110_utt7"].wav == str(tmp_path / "data/wav/dev/dia110_utt7.wav")
    assert "1  train dia125_utt3: cannot be decoded in the official release" in capsys.readouterr().out
    told = (tmp_path / "bin/ffmpeg.told").read_text().splitlines()
    assert len(told) == 9 and all("-vn -ac 1 -ar 16000" in line for line in told)
    run(prepare, videos, tmp_path / "data")
    assert len((tmp_path / "bin/ffmpeg.told").read_text().splitlines()) == 10, "only the broken one is tried again"
    assert not list((tmp_path / "data/wav").rglob("*.part*"))


def test_faults_are_told(prepare, corpus, videos, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="train rows: subset: 4 of 9989; --strict_counts"):
        run(prepare, corpus, tmp_path / "data", "--strict_counts")
    with pytest.raises(ValueError, match=r"no train_sent_emo\.csv under"):
        run(prepare, tmp_path / "bin", tmp_path / "data")
    monkeypatch.setattr(prepare.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs ffmpeg.*ffmpeg -i dia0_utt0.mp4 -vn -ac 1 -ar 16000 dia0_utt0.wav"):
        run(prepare, videos, tmp_path / "data")
    table = corpus / "dev_sent_emo.csv"
    table.write_text(table.read_text().replace("joy", "glee"))
    with pytest.raises(ValueError, match="label map meld: unknown emotion 'glee'"):
        run(prepare, corpus, tmp_path / "data")


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, smoke):
    smoke("meld", tmp_path / "work", "--data_dir", str(corpus))
    assert (tmp_path / "work/exp/score/report.html").exists()
