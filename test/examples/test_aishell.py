"""examples/aishell on a small folder of the official layout, bad files among them; the slow test goes from corpus to report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest

SPEAKERS = {"train": ("S0002", "S0003", "S0004"), "dev": ("S0724",), "test": ("S0764", "S0765")}


@pytest.fixture(scope="module")
def prepare(load_prepare):
    return load_prepare("aishell")


@pytest.fixture
def corpus(tmp_path):
    """Six speakers with four sentences each, women and men in turn; one recording has no transcript, one is empty, one transcript has no recording."""
    data = tmp_path / "official/data_aishell"
    lines = ["BAC009S0002W0999 没有 录音"]
    for split, speakers in SPEAKERS.items():
        for speaker in speakers:
            folder = data / "wav" / split / speaker
            folder.mkdir(parents=True)
            for i in range(4):
                wave = np.random.default_rng([int(speaker[1:]), i]).normal(0, 0.1, 8000).astype(np.float32)
                (folder / f"BAC009{speaker}W{i:04d}.wav").write_bytes(write_wav(wave))
                lines.append(f"BAC009{speaker}W{i:04d} 今天 第 {'一二三四'[i]} 句 话")
    (data / "transcript").mkdir()
    (data / "transcript/aishell_transcript_v0.8.txt").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    (data / "wav/train/S0003/BAC009S0003W0001.wav").write_bytes(b"")
    resource = tmp_path / "official/resource_aishell"
    resource.mkdir()
    people = [name for names in SPEAKERS.values() for name in names]
    (resource / "speaker.info").write_text("".join(f"{name[1:]} {'FM'[i % 2]}\n" for i, name in enumerate(people)))
    return tmp_path / "official"


def run(prepare, corpus: Path, out: Path, *more: str):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in SPEAKERS}


def test_official_split_with_words_joined_and_genders(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 11, "dev": 4, "test": 7}
    first = splits["train"][0]
    assert (first.key, first.txt, first.speaker, first.labels.get("gender"), first.lang, first.duration) == ("BAC009S0002W0000", "今天第一句话", "S0002", "female", "zh", 0.5)
    assert {u.speaker: u.labels.get("gender") for u in splits["test"]} == {"S0764": "female", "S0765": "male"}
    page = capsys.readouterr().out
    for line in ("train utterances: subset: 11 of 120098", "test speakers: subset: 2 of 20", "1  test: recording without a transcript", "1  audio: empty"):
        assert line in page
    assert "1  transcript without a recording" in page
    assert (tmp_path / "data/text/train.txt").read_text(encoding="utf-8").splitlines() == [u.txt for u in splits["train"]]


def test_the_folder_itself_may_be_given_and_genders_may_lack(prepare, corpus, tmp_path, capsys):
    (corpus / "resource_aishell/speaker.info").unlink()
    splits = run(prepare, corpus / "data_aishell", tmp_path / "data")
    assert len(splits["train"]) == 11 and splits["train"][0].labels.get("gender") is None and "gender is not known" in capsys.readouterr().out


def test_faults_are_told(prepare, corpus, tmp_path):
    with pytest.raises(ValueError, match="subset: 11 of 120098; --strict_counts"):
        run(prepare, corpus, tmp_path / "data", "--strict_counts")
    with pytest.raises(ValueError, match=r"no transcript/aishell_transcript_v0\.8\.txt"):
        run(prepare, tmp_path, tmp_path / "data")
    (corpus / "data_aishell/wav/S0005.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 speakers are still packed, e\.g\. S0005\.tar\.gz"):
        run(prepare, corpus, tmp_path / "data")


def test_a_speaker_on_both_sides_stops(prepare, corpus, tmp_path):
    (corpus / "data_aishell/wav/test/S0764").rename(corpus / "data_aishell/wav/test/S0002")
    with pytest.raises(ValueError, match="train and test share 1 of 2 speakers in test: S0002"):
        run(prepare, corpus, tmp_path / "data")


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, smoke):
    smoke("aishell", tmp_path / "work", "--data_dir", str(corpus), "--size", "small")
    table = (tmp_path / "work/exp/score/score.md").read_text(encoding="utf-8")
    assert "| asr " in table and "| sgc " in table and (tmp_path / "work/exp/score/report.html").exists()


@pytest.mark.slow
def test_recognition_alone_where_no_gender_is_known(corpus, tmp_path, smoke):
    (corpus / "resource_aishell/speaker.info").unlink()
    smoke("aishell", tmp_path / "work", "--data_dir", str(corpus), "--size", "small", "--tasks", "asr", "--phases", "1 2")
    table = (tmp_path / "work/exp/score/score.md").read_text(encoding="utf-8")
    assert "| asr " in table and "| sgc " not in table
