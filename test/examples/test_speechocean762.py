"""examples/speechocean762 on a small folder of the official layout."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from wenet_osum import tasks
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest

RECIPE = Path(__file__).resolve().parents[2] / "examples/speechocean762"
spec = importlib.util.spec_from_file_location("prepare_speechocean762", RECIPE / "local/prepare.py")
prepare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prepare)


@pytest.fixture
def corpus(tmp_path):
    """Ten training and four test speakers, three sentences each, ages 6, 15, 30 and 70 in turn."""
    wav = write_wav(np.full(8000, 0.1, np.float32))
    for split, speakers in (("train", range(1000, 1010)), ("test", range(2000, 2004))):
        folder = tmp_path / "official" / split
        folder.mkdir(parents=True)
        rows = {name: [] for name in ("wav.scp", "text", "utt2spk", "spk2age", "spk2gender")}
        for speaker in speakers:
            rows["spk2age"].append(f"{speaker}\t{(6, 15, 30, 70)[speaker % 4]}")
            rows["spk2gender"].append(f"{speaker}\t{'mf'[speaker % 2]}")
            for i in range(3):
                key, path = f"0{speaker}{i:04d}", f"WAVE/SPEAKER{speaker}/0{speaker}{i:04d}.WAV"
                (tmp_path / "official" / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "official" / path).write_bytes(wav)
                rows["wav.scp"].append(f"{key}\t{path}")
                rows["text"].append(f"{key}\tWE CALL IT {speaker} {i}")
                rows["utt2spk"].append(f"{key} {speaker}")
        for name, lines in rows.items():
            (folder / name).write_text("\n".join(lines) + "\n")
    return tmp_path / "official"


def run(corpus: Path, out: Path, *more: str):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in ("train", "dev", "test")}


def test_every_field_is_there_and_speakers_stay_apart(corpus, tmp_path, capsys):
    splits = run(corpus, tmp_path / "data")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 27, "dev": 3, "test": 12}
    speakers = [{u.speaker for u in rows} for rows in splits.values()]
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])
    first = splits["test"][0]
    assert (first.key, first.txt, first.speaker, first.labels.get("gender"), first.labels.get("age"), first.lang, first.duration) == ("020000000", "we call it 2000 0", "2000", "m", 6.0, "en", 0.5)
    groups = {u.speaker: tasks.parse("sap").fields[-1].value(u) for u in splits["test"]}
    assert groups == {"2000": "child", "2001": None, "2002": "adult", "2003": "old"} and tasks.parse("sgc").present(first)
    page = capsys.readouterr().out
    assert "train utterances: subset: 30 of 2500" in page and "test: 3 of 12 utterances have no age group" in page
    assert sorted((tmp_path / "data/text/train.txt").read_text().splitlines()) == sorted(u.txt for u in splits["train"])


def test_capitals_can_be_kept(corpus, tmp_path):
    assert run(corpus, tmp_path / "data", "--case", "keep")["test"][0].txt == "WE CALL IT 2000 0"


def test_missing_recordings_are_counted_and_strict_stops(corpus, tmp_path, capsys):
    next((corpus / "WAVE/SPEAKER2000").iterdir()).unlink()
    assert len(run(corpus, tmp_path / "data")["test"]) == 11
    assert "1  audio: file not found" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--strict_counts"):
        run(corpus, tmp_path / "data", "--strict_counts")


def test_a_speaker_on_both_sides_stops(corpus, tmp_path):
    table = corpus / "test/utt2spk"
    table.write_text(table.read_text().replace(" 2000", " 1000").replace(" 2001", " 1001"))
    with pytest.raises(ValueError, match="disjoint by speaker"):
        run(corpus, tmp_path / "data")


def test_wrong_folder_is_told(tmp_path):
    with pytest.raises(ValueError, match="wav.scp does not exist"):
        run(tmp_path, tmp_path / "data")


@pytest.mark.slow
def test_recipe_with_published_models_at_two_steps(
    corpus, tmp_path, smoke, published_pair, two_steps_published
):
    """The 0.5b phases begin from the folders that --whisper and --llm name."""
    models = ["--size", "0.5b", "--whisper", "whisper", "--llm", "llm"]
    data = ["--data_dir", str(corpus)]
    said = smoke("speechocean762", tmp_path / "work", *data, *models, override=two_steps_published)
    assert "nothing to download" in said and (tmp_path / "work/exp/4_lora/final").is_dir()
    assert {p.name for p in (tmp_path / "work/exp/decode").iterdir()} == {"asr", "sgc", "sap"}
    begun = next((tmp_path / "work/exp/1_whisper").glob("step_*/train.yaml"))
    first = begun.read_text(encoding="utf-8")
    assert f"whisper: {published_pair['whisper']}" in first
