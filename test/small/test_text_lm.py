"""The text LLM learns to answer pseudo-speech, labels and times of its frames included."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wenet_osum.bin import make_models
from wenet_osum.config import OptimConfig
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.records import Utterance, Word
from wenet_osum.small.models import SmallLlm, small_llm
from wenet_osum.small.pseudo_speech import Line, PseudoSpeech
from wenet_osum.small.text_lm import _loss, train_text_lm
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

WORDS = ["red", "cat", "dog"]
SIZES = SmallLlm(width=32, layers=1, heads=2, kv_heads=1, ffn=32, batch=8)


def lines(count: int) -> tuple[list[Line], Template]:
    template = Template(train_tokenizer([" ".join(WORDS), "<female> <male>"] * 4, 600))
    utterances = [Utterance(w, w, w, labels={"gender": "male"}, words=[Word(w, 0.1, 0.4)]) for w in WORDS]
    return [*PseudoSpeech(utterances, template, 1).lines(count)], template


def test_training_lowers_the_loss():
    written, template = lines(800)
    torch.manual_seed(0)
    model = small_llm(SIZES, template.tokenizer)
    first = train_text_lm(model, written[:80], SIZES, seed=1)
    assert train_text_lm(model, written, SIZES, seed=1) < first - 1.0


def test_labels_and_spans_reach_the_loss_which_counts_answers_alone():
    written, template = lines(4)
    torch.manual_seed(0)
    model = small_llm(SIZES, template.tokenizer).eval()

    def value(some: list[Line]) -> float:
        return _loss(model, some).item()

    both = value(written[:2])
    counts = [line.answer for line in written[:2]]
    apart = [value([line]) for line in written[:2]]
    assert abs(both - sum(n * loss for n, loss in zip(counts, apart, strict=True)) / sum(counts)) < 1e-5, "padding and prompts carry no loss"
    line = written[0]
    louder = dataclasses.replace(line, labels=[(tokens, 3.0) for tokens, _ in line.labels])
    farther = dataclasses.replace(line, span_weight=3.0)
    assert all(abs(value([changed]) - apart[0]) > 1e-4 for changed in (louder, farther))


@pytest.mark.slow
def test_two_processes_train_the_same_model(tmp_path: Path):
    """Also where the last batch has fewer lines than there are processes."""
    (tmp_path / "text").write_text(" ".join(WORDS) + "\n", encoding="utf-8")
    rows = [Utterance(f"{i}", "x.wav", WORDS[i % 3], labels={"gender": "male"}, words=[Word(WORDS[i % 3], 0.1, 0.4)]) for i in range(7)]
    write_manifest(tmp_path / "manifest", rows)
    sizes = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 32, "batch": 3, "epochs": 4, "lr": 1e-3}
    tree = {"vocab_size": 500, "whisper": {"width": 16, "heads": 2, "ffn": 32, "encoder_layers": 1, "decoder_layers": 1}, "llm": sizes}
    (tmp_path / "conf").write_text(json.dumps(tree), encoding="utf-8")
    told, shown = {}, {}
    for processes in (1, 2):
        command = f"torchrun --standalone --nproc_per_node {processes} -m wenet_osum.bin.make_models --text text --manifest manifest --conf conf --out {processes}"
        done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=True)
        told[processes], shown[processes] = done.stdout.splitlines(), done.stderr
    assert len(told[2]) == len(told[1]) == 2, "the first process speaks, the others keep silent"
    assert shown[1].count("10/10 steps") == shown[2].count("10/10 steps") == 1, "so does its progress"
    one, two = (load_file(tmp_path / str(n) / "llm" / "model.safetensors") for n in (1, 2))
    # Sums in another order change a gradient by about 2^-24 of its terms. An optimizer that divides
    # by the gradient's size (AdamW, Muon) makes of that up to a whole step where the terms cancel
    # out, so the mean is compared: as if one element in 256 parted by all ten steps. One process
    # that keeps to itself parts by 9e-4 on average, shares that are weighted wrongly by 3e-4.
    for name in one:
        rate = OptimConfig().muon_lr if one[name].ndim == 2 and "embed" not in name else sizes["lr"]
        assert (one[name] - two[name]).abs().mean() <= 10 * rate * 2**-8, name
    assert (tmp_path / "1/llm/tokenizer.json").read_bytes() == (tmp_path / "2/llm/tokenizer.json").read_bytes()


def test_a_file_without_text_is_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "text").write_text("\n", encoding="utf-8")
    (tmp_path / "conf").write_text("seed: 1\n", encoding="utf-8")
    asked = ["--text", f"{tmp_path}/text", "--manifest", f"{tmp_path}/no", "--conf", f"{tmp_path}/conf", "--out", f"{tmp_path}/out"]
    assert make_models.main(asked) == 1 and "holds no text; run the stage" in capsys.readouterr().err
    assert make_models.main([*asked, "--override", "vocab_size=many"]) == 2 and "vocab_size" in capsys.readouterr().err


@pytest.mark.slow
def test_what_stops_the_first_process_is_said_by_all_without_a_traceback(tmp_path: Path):
    (tmp_path / "text").write_text("\n", encoding="utf-8")
    (tmp_path / "conf").write_text("seed: 1\n", encoding="utf-8")
    command = "torchrun --standalone --nproc_per_node 2 -m wenet_osum.bin.make_models --text text --manifest no --conf conf --out out"
    told = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False).stderr
    assert "make_models: text holds no text" in told and "[rank1]: Traceback" not in told
