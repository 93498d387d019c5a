"""examples/chat: pairs of text become spoken questions, by espeak-ng or a program of the user's; voices and questions stay apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum.dataset.manifest import read_manifest


@pytest.fixture
def prepare(load_prepare):
    return load_prepare("chat")


@pytest.fixture
def corpus(tmp_path):
    """Questions in the columns of a public set, among them pairs that cannot be used, and a Chinese tsv without a head."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = [{"instruction": f"What is {i} + {i}?", "context": "", "response": f"It is {2 * i}."} for i in range(20)]
    rows += [rows[0], {"instruction": "Sum it up.", "context": "A text.", "response": "Short."}, {"instruction": "", "response": "x"}]
    rows += [{"instruction": "Why?", "response": ""}, {"instruction": "word " * 60, "response": "y"}, {"instruction": "Go on.", "response": "z" * 500}]
    rows += [{"instruction": "...", "response": "Silence."}]
    (folder / "databricks-dolly-15k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no row\n")
    (folder / "mine.tsv").write_text("question\tanswer\tlang\n你好吗\t我很好\tzh\n", encoding="utf-8")
    (folder / "test.tsv").write_text("Who are you?\tA machine.\n", encoding="utf-8")
    return folder


def run(prepare, corpus, out, *more):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in ("train", "dev", "test")}


def test_questions_are_spoken_and_kept_apart(prepare, corpus, tmp_path, capsys):
    splits = run(prepare, corpus, tmp_path / "data")
    rows = [u for found in splits.values() for u in found]
    assert len(rows) == 22
    for kind in ("speaker", "txt"):
        found = [{getattr(u, kind) for u in rows} for rows in splits.values()]
        assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
    asked = {u.txt: u for u in rows}
    assert asked["What is 3 + 3?"].reply == "It is 6." and asked["你好吗"].lang == "zh" and asked["你好吗"].speaker.startswith("cmn")
    assert any(u.txt == "Who are you?" for u in splits["test"])
    audio, rate = soundfile.read(asked["What is 3 + 3?"].wav)
    assert rate == 16000 and len(audio) / rate == pytest.approx(asked["What is 3 + 3?"].duration, abs=1e-4) and len(audio) > 8000
    assert 0.05 < np.abs(audio).max() < 1
    page = capsys.readouterr().out
    for reason in ("pair stands twice", "the question is about a text", "no question", "no answer", "question of over 200 characters",
                   "answer of over 400 characters", "espeak-ng has no sound", "line is no JSON object"):  # fmt: skip
        assert f"1  {reason}" in page, reason
    assert "databricks-dolly-15k.jsonl pairs: subset: 27 of 15011" in page
    assert "It is 6." in (tmp_path / "data/text/train.txt").read_text() + "".join(u.reply for u in splits["dev"] + splits["test"])


def test_the_same_seed_says_the_same_and_nothing_is_said_twice(prepare, corpus, tmp_path, monkeypatch):
    listed = corpus / "databricks-dolly-15k.jsonl"  # without the question that has no sound, which is tried every time
    listed.write_text("".join(line for line in listed.read_text().splitlines(keepends=True) if '"..."' not in line))
    first, again = run(prepare, corpus, tmp_path / "data"), run(prepare, corpus, tmp_path / "other")
    assert len(first["train"]) > 5 and [u.duration for u in first["train"]] == [u.duration for u in again["train"]]
    assert all(Path(u.wav).read_bytes() == Path(v.wav).read_bytes() for u, v in zip(first["train"], again["train"], strict=True))
    monkeypatch.setattr(prepare.EspeakSpeaker, "speak", lambda *_: pytest.fail("what is there is not spoken again"))
    assert run(prepare, corpus, tmp_path / "data") == first


def test_a_program_of_the_user_speaks_without_a_shell(prepare, corpus, tmp_path, tone):
    """What a question holds stays text: quotation marks, a semicolon, the mark of another field."""
    (corpus / "databricks-dolly-15k.jsonl").unlink()
    rows = "".join(f"{q} $(touch {tmp_path}/no); {{out}} '\t{a}\n" for q, a in (("One", "1"), ("Two", "2"), ("Three", "3")))
    for split in ("train", "dev"):
        (corpus / f"{split}.tsv").write_text(rows.replace("One", f"{split} one").replace("Two", f"{split} two").replace("Three", f"{split} three"))
    (tmp_path / "tone.wav").write_bytes(tone())
    program = tmp_path / "say it"
    program.write_text(f'#!/bin/bash\ncp "{tmp_path}/tone.wav" "$2"\nprintf "%s|" "$#" "$1" "$3" >> "{tmp_path}/said"\n')
    program.chmod(0o755)
    splits = run(prepare, corpus, tmp_path / "data", "--speaker", f"'{program}' voice={{voice}} {{out}} {{text}}", "--voices", "anna ben carl")
    assert [{u.speaker for u in rows} for rows in splits.values()] == [{"anna"}, {"ben"}, {"carl"}] and not (tmp_path / "no").exists()
    said = (tmp_path / "said").read_text()
    assert said.count("3|voice=") == 8 and "$(touch" in said and "{out} '" in said


def test_faults_are_told(prepare, corpus, tmp_path):
    with pytest.raises(ValueError, match="subset: 27 of 15011; --strict_counts"):
        run(prepare, corpus, tmp_path / "data", "--strict_counts")
    with pytest.raises(ValueError, match="no pair in 0 files"):
        run(prepare, tmp_path, tmp_path / "data")
    with pytest.raises(ValueError, match="2 voices .* 3 different ones are needed"):
        run(prepare, corpus, tmp_path / "data", "--speaker", "say {out}", "--voices", "a b")
    with pytest.raises(ValueError, match="hold {out}"):
        run(prepare, corpus, tmp_path / "data", "--speaker", "say {text}", "--voices", "a b c")


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, smoke):
    smoke("chat", tmp_path / "work", "--data_dir", str(corpus), "--jobs", "1")
    assert (tmp_path / "work/exp/score/report.html").exists()
