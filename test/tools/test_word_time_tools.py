"""The tools that give utterances word times, on files and on a tiny model made here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from wenet_osum.config import ModelConfig
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.models.objective import make_objective
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.small.models import SmallWhisper, save_whisper
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text import ctc_classes
from wenet_osum.text.template import Template

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool, *args):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


@pytest.fixture
def corpus(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.wav").write_bytes(write_wav(np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)))
    texts = {"a": "Hello, world.", "b": "你好 world", "c": "four other words here"}
    rows = [{"key": k, "wav": f"{k}.wav", "txt": t, "emotion": "sad"} for k, t in texts.items()]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_ctm_into_a_manifest_with_counts(corpus, capsys):
    (corpus / "times.ctm").write_text("a 1 0.1 0.4 hello\na 1 0.5 0.3 um\na 1 0.8 0.3 world\nc 1 0 1 four\n")
    assert run("add_word_times", "--format", "ctm", "--times", corpus / "times.ctm", corpus / "m.jsonl", corpus / "out.jsonl") == 0
    found = {u.key: u for u in read_manifest(corpus / "out.jsonl")}
    assert [(w.text, w.start, w.end) for w in found["a"].words] == [("Hello,", 0.1, 0.5), ("world.", 0.8, 1.1)] and found["a"].labels.get("emotion") == "sad"
    assert found["b"].words is None and found["c"].words is None
    page = capsys.readouterr().out
    assert "3 utterances, 1 with word times, 2 words" in page and "\n1 timed words say nothing" in page
    assert "1  no alignment of this name" in page and "1  words of the transcript are not in the alignment" in page
    assert run("add_word_times", "--drop", "--format", "ctm", "--times", corpus / "times.ctm", corpus / "m.jsonl", corpus / "out.jsonl") == 0
    assert [u.key for u in read_manifest(corpus / "out.jsonl")] == ["a"]


def test_faults_end_in_one_line_and_nothing_timed_fails(corpus, capsys):
    (corpus / "times.ctm").write_text("z 1 0.1 0.4 hello\n")
    assert run("add_word_times", "--format", "ctm", "--times", corpus / "times.ctm", corpus / "m.jsonl", corpus / "out.jsonl") == 1
    assert run("add_word_times", "--format", "cmt", "--times", corpus / "times.ctm", corpus / "m.jsonl", corpus / "o.jsonl") == 1
    assert "unknown word_times 'cmt', did you mean 'ctm'" in capsys.readouterr().err and not (corpus / "o.jsonl").exists()


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["hello world 你好 four other words here"] * 3, vocab_size=300)
    folder = tmp_path / "whisper"
    save_whisper(SmallWhisper(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1), tokenizer, folder)
    phase = WhisperPhase(WhisperForConditionalGeneration.from_pretrained(folder))
    phase.add_ctc_head(phase.blank)
    phase.save_pretrained(folder)
    Template(tokenizer).save(folder)
    return folder


def test_forced_alignment_with_a_phase_1_model(corpus, model, capsys):
    assert run("force_align", "--model", model, corpus / "m.jsonl", corpus / "out.jsonl") == 0
    assert "3 utterances, 3 with word times" in capsys.readouterr().out
    texts = {u.key: [w.text for w in u.words] for u in read_manifest(corpus / "out.jsonl")}
    assert texts == {"a": ["Hello,", "world."], "b": ["你", "好", "world"], "c": ["four", "other", "words", "here"]}
    for utterance in read_manifest(corpus / "out.jsonl"):
        times = [t for w in utterance.words for t in (w.start, w.end)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= 1.5


def test_forced_alignment_with_some_tokens_as_classes(corpus, model, capsys):
    """Words of c have characters that no class writes."""
    template = Template.load(model)
    pieces = ctc_classes.learn(template.tokenizer, ["hello, world. 你好"], 40)
    (corpus / "classes.json").write_text(json.dumps(pieces))
    phase = WhisperPhase(WhisperForConditionalGeneration.from_pretrained(model))
    entry = {"name": "ctc", "weight": 1.0, "classes": str(corpus / "classes.json")}
    phase.set_objective(make_objective(ModelConfig(kind="whisper", losses=[entry]), template))
    phase.save_pretrained(model)
    rows = [{"key": "a", "wav": "a.wav", "txt": "hello, world."}, {"key": "c", "wav": "a.wav", "txt": "four"}]
    (corpus / "n.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run("force_align", "--model", model, corpus / "n.jsonl", corpus / "out.jsonl") == 0
    assert "1  a character that no class of CTC writes" in capsys.readouterr().out
    found = {u.key: u for u in read_manifest(corpus / "out.jsonl")}
    assert [w.text for w in found["a"].words] == ["hello,", "world."] and found["c"].words is None


def test_what_cannot_be_aligned_is_counted(corpus, model, capsys):
    rows = [{"key": "x", "wav": "none.wav", "txt": "a"}, {"key": "y", "wav": "a.wav"}, {"key": "z", "wav": "a.wav", "txt": "hello " * 99}]
    (corpus / "n.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run("force_align", "--model", model, corpus / "n.jsonl", corpus / "out.jsonl") == 1
    page = capsys.readouterr().out
    for reason in ("audio: file not found", "no transcript", "more tokens than frames"):
        assert f"1  {reason}" in page
    assert len(list(read_manifest(corpus / "out.jsonl"))) == 3


def test_a_model_without_ctc_head_is_refused(corpus, model, capsys):
    WhisperPhase(WhisperForConditionalGeneration.from_pretrained(model)).save_pretrained(model)
    assert run("force_align", "--model", model, corpus / "m.jsonl", corpus / "out.jsonl") == 1
    assert "has no CTC head; train phase 1 with" in capsys.readouterr().err
