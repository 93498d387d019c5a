"""Hotwords and the text before in decoding: from the command line, from Python, and from the list."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

import wenet_osum
from wenet_osum.bin import recognize, transcribe
from wenet_osum.decode import pipeline
from wenet_osum.records import Hypothesis
from wenet_osum.text.template import Template

RATE = 16000
EN = "Write down what is said."


@pytest.fixture(scope="module")
def able_dir(parts, tmp_path_factory):
    """The tiny model as if it was trained with both slots."""
    model, template = parts
    folder = tmp_path_factory.mktemp("able")
    model.save_pretrained(folder)
    Template(template.tokenizer, context=["hotwords", "previous"]).save(folder)
    return folder


@pytest.fixture
def asked(monkeypatch):
    """Key and prompt of every sample that comes to the model, whose answers cost nothing."""
    found = {}

    def decode(self, samples):
        for sample in samples:
            found[sample.key] = self.template.decode(sample.prompt_ids)
        return [Hypothesis(s.key, s.task, "said", "said", duration=s.audio_s) for s in samples]

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    return found


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(1).normal(0, 0.1, RATE), RATE)
    return tmp_path / "a.wav"


@pytest.fixture
def listed(tmp_path, wav):
    rows = [
        {"key": "own", "wav": str(wav), "hotwords": ["mat"], "previous": "it rained"},
        {"key": "bare", "wav": str(wav)},
        {"key": "bad", "wav": str(wav), "hotwords": 3},
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(hotwords="", previous=""):
    text = f'Before this, it was said: "{previous}". ' if previous else ""
    text += f"These words may occur: {hotwords}. " if hotwords else ""
    return text + EN


def run(folder, listed, out, *more):
    words = ["--model", folder, "--list", listed, "--task", "asr", "--out", out, "--lang", "en", *more]
    return recognize.main([*map(str, words)])


def test_a_list_says_what_is_told_and_the_command_line_takes_its_place(able_dir, listed, asked, tmp_path):
    assert run(able_dir, listed, tmp_path / "own") == 0
    assert asked == {"own": told("mat", "it rained"), "bare": EN}
    rows = [json.loads(line) for line in (tmp_path / "own/hyp.jsonl").read_text().splitlines()]
    assert "hotwords must be a list of words" in rows[2]["error"]

    (tmp_path / "names").write_text("cat\nthe hat\n")
    assert run(able_dir, listed, tmp_path / "given", "--hotwords", tmp_path / "names") == 0
    assert asked == {"own": told("cat, the hat", "it rained"), "bare": told("cat, the hat")}
    settings = json.loads((tmp_path / "given/settings.json").read_text())
    assert settings["hotwords"] == ["cat", "the hat"]

    asked.clear()
    assert run(able_dir, listed, tmp_path / "none", "--no_context") == 0
    assert asked == {"own": EN, "bare": EN, "bad": EN}


def test_a_model_that_knows_no_slots_is_not_told_and_that_is_counted(model_dir, listed, asked, tmp_path, capsys):
    assert run(model_dir, listed, tmp_path / "own") == 0
    assert asked == {"own": EN, "bare": EN}
    assert "hotwords not told: the model was not trained with it" in capsys.readouterr().err
    assert run(model_dir, listed, tmp_path / "given", "--hotwords", "cat") == 2
    assert "was not trained with hotwords" in capsys.readouterr().err
    wording = "Words: {hotwords}. Go."
    assert run(model_dir, listed, tmp_path / "slot", "--hotwords", "cat,hat", "--prompt", wording) == 0
    assert asked["bare"] == "Words: cat, hat. Go."


def test_options_that_do_not_go_together(able_dir, listed, tmp_path, capsys):
    assert run(able_dir, listed, tmp_path / "out", "--hotwords", "cat", "--no_context") == 2
    assert "--no_context tells the model nothing" in capsys.readouterr().err


def test_python_and_transcribe(able_dir, wav, asked, capsys):
    m = wenet_osum.load(able_dir, lang="en", hotwords=["cat"])
    m(wav)
    assert asked.pop(str(wav)) == told("cat")
    m([wav], hotwords=["Anna", "mat"], previous="So.")
    assert asked.pop(str(wav)) == told("Anna, mat", "So.")
    m(wav, hotwords=[])
    assert asked.pop(str(wav)) == EN
    with pytest.raises(ValueError, match="must be a list of words"):
        m(wav, hotwords=[3])
    words = ["--model", str(able_dir), "--lang", "en", "--hotwords", "cat,hat", "--previous", "it rained", str(wav)]
    assert transcribe.main(words) == 0 and "said" in capsys.readouterr().out
    assert asked[str(wav)] == told("cat, hat", "it rained")


def test_later_pieces_of_long_audio_are_told_words_alone(able_dir, tmp_path, asked):
    noise = np.random.default_rng(2).normal(0, 0.1, 20 * RATE)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([noise, np.zeros(RATE), noise]), RATE)
    m = wenet_osum.load(able_dir, lang="en")
    m(path, hotwords=["cat"], previous="it rained")
    assert len(asked) == 2 and sorted(asked.values()) == sorted([told("cat", "it rained"), told("cat")])


def test_an_answer_of_the_real_search_comes_with_a_context(able_dir, wav):
    m = wenet_osum.load(able_dir, lang="en", max_tokens=4)
    with_words, without = m(wav, hotwords=["the cat sat on the mat"]), m(wav)
    assert with_words.error is None and without.error is None
