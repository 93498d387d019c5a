"""tools/text_check.py: what is left of the text LLM, on a tiny model with LoRA."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from wenet_osum.decode.text_kept import compare, of_model
from wenet_osum.models import build, lora
from wenet_osum.text.template import Template

from ..decode.conftest import chat_dir, chat_parts, model_dir, parts

__all__ = ["chat_dir", "chat_parts", "model_dir", "parts"]

TOOL = Path(__file__).resolve().parents[2] / "tools/text_check.py"
spec = importlib.util.spec_from_file_location("text_check", TOOL)
text_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(text_check)


def with_lora(chat_dir, folder, std):
    """The tiny chat model with LoRA whose products have a size."""
    torch.manual_seed(3)
    model = build.load(chat_dir)
    model.add_lora(LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    model.save_pretrained(folder)
    Template.load(chat_dir).save(folder)
    return folder


@pytest.fixture(scope="module")
def moved(chat_dir, tmp_path_factory):
    return with_lora(chat_dir, tmp_path_factory.mktemp("moved"), 0.5)


@pytest.fixture(scope="module")
def unmoved(chat_dir, tmp_path_factory):
    return with_lora(chat_dir, tmp_path_factory.mktemp("unmoved"), 0.0)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("hello\n\nwhat is it\na\n", encoding="utf-8")
    return path


def figures(folder, prompts, out, *more):
    given = ["--model", str(folder), "--prompts", str(prompts), "--out", str(out), "--max_tokens", "5", "--batch_size", "2", *more]
    code = text_check.main(given)
    return code, json.loads((out / "text.json").read_text(encoding="utf-8")) if code != 1 else None


def test_lora_that_does_nothing_keeps_all(unmoved, prompts, tmp_path):
    code, found = figures(unmoved, prompts, tmp_path / "out", "--max_growth", "1.001")
    assert code == 0 and found["prompts"] == 3 and found["exact"] == 100.0
    assert found["kl"] == pytest.approx(0, abs=1e-6)
    assert found["perplexity"] == pytest.approx(found["perplexity_before"], rel=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "out/replies.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["hello", "what is it", "a"] and all(row["before"] == row["after"] for row in rows)


def test_lora_that_does_something_is_told_and_gated(moved, prompts, tmp_path, capsys):
    code, found = figures(moved, prompts, tmp_path / "out", "--max_growth", "1.001")
    assert found["kl"] > 1e-3 and found["perplexity"] != pytest.approx(found["perplexity_before"], rel=1e-3)
    grown = found["perplexity"] / found["perplexity_before"] > 1.001
    assert code == (3 if grown else 0)
    assert figures(moved, prompts, tmp_path / "out", "--max_growth", "0.001")[0] == 3
    assert "the perplexity has grown" in capsys.readouterr().err


def test_figures_are_those_of_one_prompt_at_a_time_by_hand(moved):
    """Padding of a batch changes nothing, and the sums are those of plain forward passes."""
    model, template = build.load(moved), Template.load(moved)
    asked = of_model(model, template.tokenizer, 6)
    texts = ["hello", "what is it then", "a"]
    kept, replies = compare(asked, texts, batch_size=3)

    nll = {"before": 0.0, "after": 0.0, "kl": 0.0}
    count = 0
    for text in texts:
        with lora.off(model.llm):
            ((reply, reason),) = asked.replies([text])
        prompt = asked.tokenizer.encode(asked.prompt(text), add_special_tokens=False)
        said = asked.tokenizer.encode(reply, add_special_tokens=False) + ([] if "no end" in reason else [asked.tokenizer.eos_token_id])
        ids = torch.tensor([prompt + said])
        with torch.inference_mode():
            new = model.llm(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            with lora.off(model.llm):
                old = model.llm(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        target = torch.tensor(said)[:, None]
        nll["before"] -= old.gather(1, target).sum().item()
        nll["after"] -= new.gather(1, target).sum().item()
        nll["kl"] += (old.exp() * (old - new)).sum().item()
        count += len(said)
    assert kept.perplexity_before == pytest.approx(math.exp(nll["before"] / count), rel=1e-4)
    assert kept.perplexity == pytest.approx(math.exp(nll["after"] / count), rel=1e-4)
    assert kept.kl == pytest.approx(nll["kl"] / count, rel=1e-3)
    assert [reply.prompt for reply in replies] == texts


def test_a_model_without_lora_needs_its_text_llm(chat_dir, moved, prompts, tmp_path, capsys):
    assert figures(chat_dir, prompts, tmp_path / "out")[0] == 1
    assert "no LoRA" in capsys.readouterr().err
    model, template = build.load(chat_dir), Template.load(chat_dir)
    folder = tmp_path / "llm"
    model.llm.save_pretrained(folder)
    template.tokenizer.save_pretrained(folder)
    code, found = figures(chat_dir, prompts, tmp_path / "out", "--llm", str(folder))
    assert code == 0 and found["exact"] == 100.0 and found["kl"] == pytest.approx(0, abs=1e-6)


def test_the_prompts_that_come_with_it():
    lines = text_check.PROMPTS.read_text(encoding="utf-8").splitlines()
    chinese = [line for line in lines if any("\u4e00" <= char <= "\u9fff" for char in line)]
    assert len(lines) == len(set(lines)) == 100 and len(chinese) == 50
