"""Train a small LLM on lines of plain text: next-token prediction, a line at a time, in one process."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from wenet_osum import tasks
from wenet_osum.config import OptimConfig
from wenet_osum.models.small import SmallLlm
from wenet_osum.tasks.fields import REPLY_MARK
from wenet_osum.text.tokenizer import encode, end_id
from wenet_osum.train.optim import factor, make_optimizer, set_rates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GROUP = 16  # batches whose lines are sorted together by length, against padding


def as_text_tasks(lines: list[str], tokenizer: PreTrainedTokenizerBase, seed: int) -> list[list[int]]:
    """Each line as the tokens of a text task: a prompt, the words, the words again and, where there is one, the reply.

    A pretrained LLM can repeat what stands before it; a small one has to learn it, or no adapter can make it transcribe. Every second
    plain line has its words in a random order, which cannot be guessed and must be repeated. The pieces are encoded apart, as in
    training with speech: together, the last word and the first would melt into one.
    """
    draw = random.Random(seed)
    asked = []
    for number, line in enumerate(lines):
        words, mark, reply = line.partition(REPLY_MARK)
        task = tasks.parse("sttc" if mark else "asr")
        prompt = draw.choice([text for lang in ("zh", "en") for text in task.prompts(lang)])
        if not mark and number % 2:
            units = words.split(" ") if " " in words else list(words)
            words = (" " if " " in words else "").join(draw.sample(units, len(units)))
        pieces = [encode(tokenizer, piece) for piece in (prompt, words, words, mark + reply)]
        asked.append([i for piece in pieces for i in piece] + [end_id(tokenizer)])
    return asked


def train_text_lm(model: torch.nn.Module, lines: list[list[int]], sizes: SmallLlm, seed: int, log_every: int = 100) -> float:
    """Train in place on token lists that end with the end of text; returns the mean loss (nats a token) of the last tenth of steps."""
    steps = max(1, math.ceil(sizes.epochs * len(lines) / sizes.batch))
    conf = OptimConfig(name="muon", lr=sizes.lr, betas=(0.9, 0.98), schedule="cosine", warmup_steps=steps // 10)
    names, params = zip(*model.named_parameters(), strict=True)
    optimizer = make_optimizer([{"params": list(params), "names": list(names), "weight_decay": 0.01}], conf, torch.device("cpu"))
    model.train()
    losses, start = [], time.monotonic()
    for step, batch in enumerate(_batches(lines, sizes.batch, steps, seed), 1):
        loss = _loss(model, batch)
        loss.backward()
        set_rates(optimizer, factor(step, conf, steps))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % log_every == 0 or step == steps:
            recent = losses[-log_every:]
            print(f"text LLM  step {step}/{steps}  loss {sum(recent) / len(recent):.3f}  {time.monotonic() - start:.0f} s", flush=True)
    model.eval()
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def _batches(lines: list[list[int]], size: int, steps: int, seed: int):
    """``steps`` batches of lines of like length, in an order fixed by the seed."""
    order = random.Random(seed)
    made = 0
    while made < steps:
        shuffled = order.sample(lines, len(lines))
        groups = [sorted(shuffled[i : i + size * GROUP], key=len) for i in range(0, len(shuffled), size * GROUP)]
        batches = [group[i : i + size] for group in groups for i in range(0, len(group), size)]
        order.shuffle(batches)
        yield from batches[: steps - made]
        made += len(batches)


def _loss(model: torch.nn.Module, lines: list[list[int]]) -> torch.Tensor:
    """Mean negative log-likelihood, nats a token; the padded positions carry no loss."""
    longest = max(map(len, lines))
    ids = torch.tensor([line + [0] * (longest - len(line)) for line in lines])  # (lines, tokens)
    real = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in lines], dtype=torch.bool)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits[real[:, 1:]], ids[:, 1:][real[:, 1:]])
