"""examples/vocalsound on a small folder of the official layout, alone and put into speech."""

from __future__ import annotations

import json

import pytest

from wenet_osum.dataset.manifest import read_manifest

SOUNDS = ("laughter", "sigh", "cough", "throatclearing", "sneeze", "sniff")
SPEAKERS = {"tr": ("f0003", "m0004", "f0010"), "val": ("m0005",), "te": ("f0006", "m0007")}


@pytest.fixture
def prepare(load_prepare):
    return load_prepare("vocalsound")


@pytest.fixture
def corpus(tmp_path, tone):
    """Six sounds of each speaker; one clip is missing, one empty, one named otherwise."""
    folder = tmp_path / "official"
    (folder / "datafiles").mkdir(parents=True)
    (folder / "audio_16k").mkdir()
    for name, speakers in SPEAKERS.items():
        clips = [f"{speaker}_0_{sound}.wav" for speaker in speakers for sound in SOUNDS]
        for i, clip in enumerate(clips):
            (folder / "audio_16k" / clip).write_bytes(tone(0.3, 150 + 60 * i))
        rows = [{"wav": f"/makers/disk/audio_16k/{clip}", "labels": "/m/01j3sz"} for clip in clips]
        (folder / f"datafiles/{name}.json").write_text(json.dumps({"data": rows}))
    (folder / "audio_16k/f0003_0_sniff.wav").unlink()
    (folder / "audio_16k/m0004_0_sigh.wav").write_bytes(b"")
    listed = folder / "datafiles/te.json"
    listed.write_text(listed.read_text().replace("m0007_0_sniff.wav", "m0007.wav"))
    return folder


def run(prepare, corpus, out, *more):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: {u.key: u for u in read_manifest(out / name / "manifest.jsonl")} for name in ("train", "dev", "test")}


def test_labels_and_speakers_come_from_the_names(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 16, "dev": 6, "test": 11}
    clip = splits["train"]["f0003_0_throatclearing"]
    assert (clip.labels.get("event"), clip.speaker, clip.labels.get("gender"), clip.txt, clip.duration) == ("throat clearing", "f0003", "female", "", 0.3)
    assert splits["dev"]["m0005_0_sniff"].labels.get("event") == "other" and splits["dev"]["m0005_0_sniff"].labels.get("gender") == "male"
    page = capsys.readouterr().out
    for line in ("train clips: subset: 16 of 18", "beside the paper's figure: subset: 18 of 15570"):
        assert line in page
    assert "1  file name of another form" in page and "1  audio: file not found" in page
    assert "1  audio: empty" in page or "1  audio: unreadable" in page
    assert len(list(read_manifest(tmp_path / "data/text/written.jsonl"))) == 20 * 8


def test_a_sound_without_a_class_of_ours_is_counted(prepare, corpus, tmp_path, capsys, monkeypatch):
    events = prepare.label_map.load("vocalsound")
    events.fields["event"]["sniff"] = None
    monkeypatch.setattr(prepare.label_map, "load", lambda name: events)
    assert len(run(prepare, corpus, tmp_path / "data")["dev"]) == 5
    assert "4  no label for sniff" in capsys.readouterr().out


def test_faults_are_told(prepare, corpus, tmp_path):
    with pytest.raises(ValueError, match="subset: 16 of 18; --strict_counts"):
        run(prepare, corpus, tmp_path / "data", "--strict_counts")
    listed = corpus / "datafiles/te.json"
    listed.write_text(listed.read_text().replace("f0006", "f0003"))
    with pytest.raises(ValueError, match="train and test share 1 of 2 speakers in test: f0003"):
        run(prepare, corpus, tmp_path / "data")
    listed.write_text("[1]")
    with pytest.raises(ValueError, match=r"te\.json must read"):
        run(prepare, corpus, tmp_path / "data")
    with pytest.raises(ValueError, match=r"no .*tr\.json"):
        run(prepare, tmp_path, tmp_path / "data")


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, tone, smoke):
    """The events go into speech, split by split; at the report every stage has passed."""
    for split in ("train", "dev", "test"):
        (tmp_path / "speech" / split).mkdir(parents=True)
        rows = []
        for i in range(2):
            wav = tmp_path / f"speech/{split}{i}.wav"
            wav.write_bytes(tone(1.0))
            words = [["we", 0.1, 0.3], ["call", 0.6, 0.9]]
            rows.append({"key": f"{split}{i}", "wav": str(wav), "txt": "we call it bear", "speaker": split, "words": words})
        (tmp_path / f"speech/{split}/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    smoke("vocalsound", tmp_path / "work", "--data_dir", str(corpus), "--speech", "speech")
    made = list(read_manifest(tmp_path / "work/data/test/manifest.jsonl"))
    assert {u.key.split("+")[0] for u in made} == {"test0", "test1"}
    assert all(u.extra["recordings"][1].split("/")[-1][:5] in SPEAKERS["te"] and u.labels.get("event") for u in made)
    assert (tmp_path / "work/exp/score/report.html").exists()
