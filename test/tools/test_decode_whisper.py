"""tools/decode_whisper.py: a published Whisper's own decoder on a list, gone on with after a stop."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration

from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode import whisper_own
from wenet_osum.small.models import SmallWhisper, save_whisper
from wenet_osum.small.train_tokenizer import train_tokenizer

TOOL = Path(__file__).resolve().parents[2] / "tools/decode_whisper.py"
MARKS = ["<|startoftranscript|>", "<|en|>", "<|zh|>", "<|transcribe|>", "<|notimestamps|>"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    """A tiny Whisper of 30 s, which knows two languages by their marks."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("whisper")
    tokenizer = train_tokenizer(["the cat sat on the mat"], vocab_size=300)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    sizes = SmallWhisper(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1)
    save_whisper(sizes, tokenizer, folder)
    start, english, chinese, transcribe, without_times = tokenizer.convert_tokens_to_ids(MARKS)
    settings = GenerationConfig(
        decoder_start_token_id=start,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        no_timestamps_token_id=without_times,
        is_multilingual=True,
        lang_to_id={"<|en|>": english, "<|zh|>": chinese},
        task_to_id={"transcribe": transcribe},
        max_length=12,
    )
    settings.save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two sentences, one too long for Whisper, and two whose audio cannot be read."""
    for name, seconds in (("a", 1), ("b", 2), ("long", 31)):
        wave = np.random.default_rng(seconds).normal(0, 0.1, seconds * 16000)
        (tmp_path / f"{name}.wav").write_bytes(write_wav(wave.astype(np.float32)))
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    rows = [{"key": k, "wav": f"{k}.wav", "txt": "the cat"} for k in ("a", "b", "long", "bad", "gone")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(*args: object) -> int:
    spec = importlib.util.spec_from_file_location("decode_whisper", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


def decoded(corpus: Path, whisper: Path, *more: object) -> dict[str, dict]:
    asked = ["--model", whisper, "--list", corpus / "m.jsonl", "--out", corpus / "hyp", *more]
    assert run(*asked) == 0
    lines = (corpus / "hyp/hyp.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


def test_every_utterance_has_an_answer_or_an_error(corpus, whisper, capsys):
    rows = decoded(corpus, whisper)
    assert set(rows) == {"a", "b", "long", "bad", "gone"}
    assert rows["a"]["task"] == "<TRANSCRIBE>" and "error" not in rows["a"] and "error" not in rows["b"]
    assert rows["a"]["text"] == rows["a"].get("transcript", "")
    assert "longer than 30 s: 31.0 s" in rows["long"]["error"]
    assert rows["bad"]["error"].startswith("audio") and "not found" in rows["gone"]["error"]
    assert "5 utterances" in capsys.readouterr().out


def test_a_run_that_was_cut_off_goes_on(corpus, whisper, monkeypatch):
    whole = decoded(corpus, whisper)
    path = corpus / "hyp/hyp.jsonl"
    first, second, *_ = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(first + second[: len(second) // 2], encoding="utf-8")
    assert decoded(corpus, whisper) == whole
    assert path.read_text(encoding="utf-8").startswith(first)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing is missing: no model is needed")

    monkeypatch.setattr(whisper_own.WhisperDecoder, "load", never)
    assert decoded(corpus, whisper) == whole


def test_answers_of_another_whisper_are_not_taken_for_its_own(corpus, whisper, capsys):
    decoded(corpus, whisper)
    for other in (["--model", "openai/whisper-medium"], ["--model", whisper, "--num_beams", "2"]):
        assert run(*other, "--list", corpus / "m.jsonl", "--out", corpus / "hyp") == 1
        assert "holds results of another run" in capsys.readouterr().err


def test_the_language_is_asked_for(corpus, whisper, monkeypatch):
    asked = []
    generate = WhisperForConditionalGeneration.generate

    def noted(self, *args, **options):
        asked.append((options["language"], options["task"], options["num_beams"]))
        return generate(self, *args, **options)

    monkeypatch.setattr(WhisperForConditionalGeneration, "generate", noted)
    decoded(corpus, whisper, "--language", "zh", "--num_beams", "2")
    assert set(asked) == {("zh", "transcribe", 2)}
    assert run("--model", whisper, "--list", corpus / "m.jsonl", "--out", corpus / "xx", "--language", "xx") == 1


def test_faults_are_told(corpus, whisper, capsys):
    assert run("--model", whisper, "--list", corpus / "none.jsonl", "--out", corpus / "o") == 1
    assert "decode_whisper.py: " in capsys.readouterr().err
    assert run("--model", corpus / "none", "--list", corpus / "m.jsonl", "--out", corpus / "o") == 1
