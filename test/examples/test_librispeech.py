"""examples/librispeech on a small folder of the official layout, bad files among them; the slow test takes the configurations of published models."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum.dataset.manifest import read_manifest

PARTS = {"train-clean-100": ("103", "1034"), "dev-clean": ("84",), "dev-other": ("116",), "test-clean": ("61",), "test-other": ("367",)}


def flac(seed: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.random.default_rng(seed).normal(0, 0.1, 8000), 16000, format="FLAC")
    return out.getvalue()


@pytest.fixture(scope="module")
def prepare(load_prepare):
    return load_prepare("librispeech")


@pytest.fixture
def corpus(tmp_path):
    """A chapter of three sentences a speaker; one recording has no transcript, one transcript no recording, one recording is none."""
    folder = tmp_path / "LibriSpeech"
    people = []
    for part, speakers in PARTS.items():
        for speaker in speakers:
            chapter = folder / part / speaker / "12"
            chapter.mkdir(parents=True)
            people.append(f"{speaker:4} | {'FM'[len(people) % 2]} | {part:16} | 25.03 | A | Name")
            for i in range(4):
                (chapter / f"{speaker}-12-000{i}.flac").write_bytes(flac(10 * int(speaker) + i))
            (chapter / f"{speaker}-12.trans.txt").write_text("".join(f"{speaker}-12-000{i} SHE READ LINE {'ABC'[i]}\n" for i in range(3)))
    (folder / "train-clean-100/103/12/103-12-0000.flac").unlink()
    (folder / "train-clean-100/1034/12/1034-12-0000.flac").write_bytes(b"fLaC")
    (folder / "SPEAKERS.TXT").write_text(";ID  |SEX| SUBSET           |MINUTES| NAME\n" + "\n".join(people) + "\n")
    return folder


def run(prepare, corpus: Path, out: Path, *more: str):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {path.parent.name: list(read_manifest(path)) for path in out.glob("*/manifest.jsonl")}


def test_official_parts_with_transcripts_and_genders(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 4, "dev": 6, "test_clean": 3, "test_other": 3}
    first = splits["dev"][0]
    assert (first.key, first.txt, first.speaker, first.labels.get("gender"), first.lang, first.duration) == ("84-12-0000", "SHE READ LINE A", "84", "female", "en", 0.5)
    page = capsys.readouterr().out
    for line in ("train-clean-100 utterances: subset: 4 of 28539", "dev-other speakers: subset: 1 of 33", "train-other-500: subset: 0 of 148688, the folder is not"):
        assert line in page
    for line in ("2  train-clean-100: recording without", "1  train-clean-100: transcript without a recording", "1  audio: unreadable"):
        assert line in page
    assert (tmp_path / "data/text/train.txt").read_text().splitlines() == [u.txt for u in splits["train"]]


def test_a_test_set_may_be_absent_and_training_parts_chosen(prepare, corpus, tmp_path):
    (corpus / "test-other").rename(tmp_path / "elsewhere")
    (corpus / "train-clean-100").rename(corpus / "train-clean-360")
    splits = run(prepare, corpus, tmp_path / "data", "--train", "train-clean-360")
    assert set(splits) == {"train", "dev", "test_clean"} and len(splits["train"]) == 4


def test_faults_are_told(prepare, corpus, tmp_path):
    with pytest.raises(ValueError, match="subset: 4 of 28539; --strict_counts"):
        run(prepare, corpus, tmp_path / "data", "--strict_counts")
    with pytest.raises(ValueError, match="unknown part 'train-clean-10', did you mean 'train-clean-100'"):
        run(prepare, corpus, tmp_path / "data", "--train", "train-clean-10")
    with pytest.raises(ValueError, match="nothing for train and dev"):
        run(prepare, tmp_path / "nowhere", tmp_path / "data")
    (corpus / "SPEAKERS.TXT").write_text("103 | X | train\n")
    with pytest.raises(ValueError, match=r"a line must read 'speaker \| F or M"):
        run(prepare, corpus, tmp_path / "data")


def test_a_speaker_on_both_sides_stops(prepare, corpus, tmp_path):
    (corpus / "dev-clean/84").rename(corpus / "dev-clean/103")
    (corpus / "dev-clean/103/12/84-12.trans.txt").rename(corpus / "dev-clean/103/12/103-12.trans.txt")
    with pytest.raises(ValueError, match="train and dev share 1 of 2 speakers in dev: 103"):
        run(prepare, corpus, tmp_path / "data")


@pytest.mark.slow
def test_recipe_with_the_configurations_of_published_models_at_two_steps(
    corpus, tmp_path, smoke, published_pair, two_steps_published
):
    """The 0.5b configurations, LoRA and all, on folders of tiny models in the place of the published ones; two test sets."""
    models = ["--whisper", "whisper", "--llm", "llm"]
    smoke("librispeech", tmp_path / "work", "--data_dir", str(corpus), *models, override=two_steps_published)
    assert (tmp_path / "work/exp/4_lora/final/config.json").exists()
    for name in ("test_clean", "test_other"):
        assert "| asr " in (tmp_path / f"work/exp/score/{name}/score.md").read_text(encoding="utf-8")
