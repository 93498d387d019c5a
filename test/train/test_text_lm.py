"""The text LLM learns to answer written speech, and hears tones and places."""

import dataclasses

import torch

from wenet_osum.models.small import SmallLlm, small_llm
from wenet_osum.records import Utterance, Word
from wenet_osum.text.template import Template
from wenet_osum.text.train_tokenizer import train_tokenizer
from wenet_osum.text.written import Line, Writer
from wenet_osum.train.text_lm import _loss, train_text_lm

WORDS = ["red", "cat", "dog"]
SIZES = SmallLlm(width=32, layers=1, heads=2, kv_heads=1, ffn=32, batch=8)


def lines(count: int) -> tuple[list[Line], Template]:
    template = Template(train_tokenizer([" ".join(WORDS), "<female> <male>"] * 4, 600))
    utterances = [Utterance(w, w, w, gender="male", words=[Word(w, 0.1, 0.4)]) for w in WORDS]
    return [*Writer(utterances, template, 1).lines(count)], template


def test_training_lowers_the_loss():
    written, template = lines(800)
    torch.manual_seed(0)
    model = small_llm(SIZES, template.tokenizer)
    first = train_text_lm(model, written[:80], SIZES, seed=1)
    assert train_text_lm(model, written, SIZES, seed=1) < first - 1.0


def test_the_loss_hears_tones_and_counts_answers_alone():
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
    louder = dataclasses.replace(line, tones=[(tokens, 3.0) for tokens, _ in line.tones])
    farther = dataclasses.replace(line, place=3.0)
    assert all(abs(value([changed]) - apart[0]) > 1e-4 for changed in (louder, farther))
