"""examples/commonvoice on a small folder of the official layout, two languages, old and new spellings."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import soundfile

from wenet_osum import tasks
from wenet_osum.dataset.manifest import read_manifest

HEAD = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\n"
ROWS = {  # table → client, sentence, age, gender
    "train": [
        ("a", '"No, she said', "twenties", "female_feminine"),
        ("b", "It is late.", "teens", "male"),
        ("b", "Come in.", "teens", "male"),
        ("c", "Go.", "", ""),
    ],
    "dev": [("d", "Stay here.", "sixties", "male_masculine"), ("e", "Never.", "fourties", "female")],
    "test": [("f", "Who is it?", "thirties", "female_feminine"), ("g", "Nobody.", "seventies", "other"), ("h", "Old.", "eighties", "male")],
}


@pytest.fixture
def prepare(load_prepare):
    return load_prepare("commonvoice")


def mp3(pitch_hz: float) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.1 * np.sin(2 * np.pi * pitch_hz * np.arange(16000) / 32000), 32000, format="MP3")
    return out.getvalue()


def write_language(folder, lang: str, rows: dict) -> None:
    (folder / "clips").mkdir(parents=True)
    for table, lines in rows.items():
        text = HEAD
        for i, (client, sentence, age, gender) in enumerate(lines):
            name = f"common_voice_{lang}_{table}{i}.mp3"
            (folder / "clips" / name).write_bytes(mp3(150 + 30 * i))
            text += "\t".join([client, name, sentence, "2", "0", age, gender, "", lang]) + "\n"
        (folder / f"{table}.tsv").write_text(text, encoding="utf-8")
    lines = [(folder / f"{table}.tsv").read_text(encoding="utf-8").split("\n", 1)[1] for table in rows]
    (folder / "validated.tsv").write_text(HEAD + "".join(lines), encoding="utf-8")


@pytest.fixture
def corpus(tmp_path):
    """English with bad files among the good ones; in Chinese a speaker of English test trains."""
    folder = tmp_path / "official/cv-corpus-17.0"
    write_language(folder / "en", "en", ROWS)
    chinese = {"train": [("f", "你好", "", "male_masculine"), ("z", "再见", "", "")], "dev": [("y", "好的", "", "")], "test": [("x", "不行", "", "")]}
    write_language(folder / "zh-CN", "zh-CN", chinese)
    (folder / "en/clips/common_voice_en_train3.mp3").unlink()
    with open(folder / "en/train.tsv", "a", encoding="utf-8") as table:
        table.write("i\tcommon_voice_en_empty.mp3\t \t2\t0\t\t\t\ten\ni\tcommon_voice_en_noise.mp3\tNoise.\t2\t0\t\t\t\ten\n")
    (folder / "en/clips/common_voice_en_noise.mp3").write_bytes(b"no mp3 at all")
    return tmp_path / "official"


def run(prepare, corpus, out, *more):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: {u.key: u for u in read_manifest(out / name / "manifest.jsonl")} for name in ("train", "dev", "test")}


def test_both_spellings_become_labels(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3, "dev": 2, "test": 3}
    first = splits["train"]["common_voice_en_train0"]
    assert (first.txt, first.labels.get("gender"), first.labels.get("age"), first.lang, first.speaker) == ('"No, she said', "female", "adult", "en", "a")
    assert first.duration == pytest.approx(0.5, abs=0.1)
    assert Counter(tasks.parse("sap").fields[-1].value(u) for u in splits["test"].values()) == {"adult": 1, "old": 2}
    assert splits["dev"]["common_voice_en_dev0"].labels.get("gender") == "male" and splits["test"]["common_voice_en_test1"].labels.get("gender") is None
    page = capsys.readouterr().out
    for line in (
        "en train clips: subset: 3 of 6",
        "en test clips: 3, complete",
        "1  no sentence",
        "1  audio: unreadable",
        "1  audio: file not found",
        "no class here for age teens: 2 utterances",
        "no class here for gender other: 1",
        "test: 2 of 3 utterances tell the gender, 3 the age group",
    ):
        assert line in page, line


def test_a_speaker_of_two_languages_stays_in_one_split(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data", "--langs", "en zh-CN")
    chinese = [u for u in splits["train"].values() if u.lang == "zh"]
    assert [(u.txt, u.speaker) for u in chinese] == [("再见", "z")]
    assert "1  train: speaker is in dev or test as well" in capsys.readouterr().out


def test_validated_is_larger_and_keeps_test_speakers_out(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data", "--train", "validated")
    assert {u.speaker for u in splits["train"].values()} == {"a", "b"} and "5  train: speaker is in dev or test as well" in capsys.readouterr().out


def test_the_official_table_of_durations_is_used(prepare, corpus, tmp_path):
    (corpus / "cv-corpus-17.0/en/clip_durations.tsv").write_text("clip\tduration[ms]\ncommon_voice_en_test0.mp3\t4321\n")
    assert run(prepare, corpus, tmp_path / "data")["test"]["common_voice_en_test0"].duration == 4.321


def test_faults_are_told(prepare, corpus, tmp_path):
    with pytest.raises(ValueError, match="--strict_counts"):
        run(prepare, corpus, tmp_path / "data", "--strict_counts")
    with pytest.raises(ValueError, match=r"no .*/fr/test\.tsv"):
        run(prepare, corpus, tmp_path / "data", "--langs", "fr")
    table = corpus / "cv-corpus-17.0/en/dev.tsv"
    table.write_text(table.read_text().replace("fourties", "fortyish"))
    with pytest.raises(ValueError, match="label map commonvoice: unknown age 'fortyish'"):
        run(prepare, corpus, tmp_path / "data")
    table.write_text("client_id\tpath\n")
    with pytest.raises(ValueError, match=r"dev\.tsv lacks the columns age, gender, sentence"):
        run(prepare, corpus, tmp_path / "data")


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, smoke):
    said = smoke("commonvoice", tmp_path / "work", "--data_dir", str(corpus))
    assert "nothing to download" in said and (tmp_path / "work/exp/score/report.html").exists()
    assert {p.name for p in (tmp_path / "work/exp/decode").iterdir()} == {"asr", "sgc", "sap"}
