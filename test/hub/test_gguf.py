"""Files for llama.cpp. What needs its packages, which are not part of the default install, is skipped without them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2Config

from wenet_osum.bin import export as command
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.hub import export, gguf_files
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Utterance

from ..examples.conftest import load_file

ROOT = Path(__file__).resolve().parents[2]
SOUND = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)


@pytest.fixture(scope="module")
def folder(model_dir, tmp_path_factory):
    """An export whose LLM is in float32."""
    pytest.importorskip("gguf")
    out = tmp_path_factory.mktemp("gguf") / "out"
    assert command.main(["--model", str(model_dir), "--gguf", "f32", "--out", str(out)]) == 0
    return out


def test_without_the_package_a_sentence_names_the_command(model_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gguf", None)
    words = ["--model", str(model_dir), "--gguf", "q8_0", "--out", str(tmp_path / "out")]
    assert command.main(words) == 1
    assert "pip install -r requirements/llama_cpp.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("form", "config", "why"), [("q3", Qwen2Config(), "choose one of f32"), ("f16", type("C", (), {"model_type": "mamba"})(), "only qwen2, qwen3")])
def test_what_is_not_written_is_refused(form, config, why, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", sys)
    with pytest.raises(ValueError, match=why):
        gguf_files.check(form, config)


def test_speech_part_gives_the_embeddings_of_the_whole(folder):
    whole, speech = OsumModel.from_pretrained(folder), gguf_files.speech_part(folder)
    assert len(speech.llm.base_model.layers) == 0
    inputs = AutoProcessor.from_pretrained(folder)(audio=SOUND, task="ser")
    for ours, theirs in zip(speech.prompt_embeddings(**inputs), whole.prompt_embeddings(**inputs), strict=True):
        assert torch.equal(ours, theirs)


def test_the_file_holds_every_weight_and_the_whole_tokenizer(folder):
    from gguf import GGUFReader

    reader, model = GGUFReader(folder / gguf_files.LLM), OsumModel.from_pretrained(folder)
    count = sum(int(np.prod(tensor.shape)) for tensor in reader.tensors)
    own = sum(weight.numel() for weight in model.llm.parameters())
    assert count == own
    tokens = reader.fields["tokenizer.ggml.tokens"]
    assert len(tokens.data) == model.config.llm.vocab_size


def test_llama_cpp_gives_the_logits_of_the_model(folder):
    """Behind prompt embeddings with speech, and behind tokens after them."""
    pytest.importorskip("llama_cpp")
    import runpy

    example = runpy.run_path(str(folder / export.LLAMA_CPP_EXAMPLE))
    processor, model = AutoProcessor.from_pretrained(folder), OsumModel.from_pretrained(folder).eval()
    inputs = processor(audio=SOUND, task="asr")
    tokens = [7, 19, 30]
    with torch.no_grad():
        embeddings, _ = model.prompt_embeddings(**inputs)
        said = model.get_input_embeddings()(torch.tensor([tokens]))
        logits = model.llm(inputs_embeds=torch.cat([embeddings, said], 1)).logits[0, -len(tokens) - 1 :]
    text = example["Text"](example["open_llm"](1))
    found = [text.read_embeddings(embeddings[0].numpy()), *(text.read_token(token) for token in tokens)]
    np.testing.assert_allclose(np.stack(found), logits.numpy(), atol=2e-2, rtol=1e-2)


def test_the_benchmark_of_parity_finds_none_of_the_answers_changed(folder, tmp_path, capsys):
    pytest.importorskip("llama_cpp")
    parity = load_file(ROOT / "tools/bench/gguf_parity.py")
    wav = tmp_path / "a.wav"
    wav.write_bytes(write_wav(SOUND))
    write_manifest(tmp_path / "a.jsonl", [Utterance("a", str(wav), txt="a", duration=len(SOUND) / 16000)])
    asked = ["--folder", str(folder), "--list", str(tmp_path / "a.jsonl"), "--max_tokens", "6"]
    assert parity.main(asked) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert "| 100.00 % |" in row and row.startswith("| 1 | ")
