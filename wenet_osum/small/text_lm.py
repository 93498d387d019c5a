"""Train a small LLM on pseudo-speech (pseudo_speech.py), in one process or several."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator

import torch
from torch.nn import functional

from wenet_osum.config import OptimConfig
from wenet_osum.small.models import SmallLlm
from wenet_osum.small.pseudo_speech import Line
from wenet_osum.small.sinusoids import span_waves
from wenet_osum.train import dist
from wenet_osum.train.optim import lr_scale, make_optimizer, set_learning_rates

GROUP = 16  # batches whose lines are sorted together by length, against padding


def train_text_lm(model: torch.nn.Module, lines: list[Line], sizes: SmallLlm, seed: int, world: dist.World | None = None, log_every: int = 100) -> float:
    """Train in place, once over ``lines``; returns the mean loss (nats a token) of the last tenth of steps.

    The processes of ``world`` must begin with the same model and lines; they share out each batch, and end with the same model.
    """
    rank, size = (world.rank, world.size) if world else (0, 1)
    steps = max(1, math.ceil(len(lines) / sizes.batch))
    conf = OptimConfig(name="muon", lr=sizes.lr, betas=(0.9, 0.98), schedule="cosine", warmup_steps=steps // 10)
    names, params = zip(*model.named_parameters(), strict=True)
    optimizer = make_optimizer([{"params": list(params), "names": list(names), "weight_decay": 0.01}], conf, torch.device("cpu"))
    model.train()
    losses, start = [], time.monotonic()
    for step, batch in enumerate(_batches(lines, sizes.batch, seed), 1):
        mine = batch[rank::size]
        loss = _loss(model, mine or batch) * (_answers(mine) / _answers(batch))  # a batch smaller than the world: some only keep in step
        loss.backward()
        losses.append(loss.item() if size == 1 else dist.sum_gradients(params, loss.item()))
        set_learning_rates(optimizer, lr_scale(step, conf, steps))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0 and (step % log_every == 0 or step == steps):
            recent = losses[-log_every:]
            print(f"text LLM  step {step}/{steps}  loss {sum(recent) / len(recent):.3f}  {time.monotonic() - start:.0f} s", flush=True)
    model.eval()
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def _answers(lines: list[Line]) -> int:
    return sum(line.answer for line in lines)


def _batches(lines: list[Line], size: int, seed: int) -> Iterator[list[Line]]:
    """All lines once, in batches of like length, in an order fixed by the seed."""
    order = random.Random(seed)
    shuffled = order.sample(lines, len(lines))
    groups = [sorted(shuffled[i : i + size * GROUP], key=lambda line: len(line.ids)) for i in range(0, len(shuffled), size * GROUP)]
    batches = [group[i : i + size] for group in groups for i in range(0, len(group), size)]
    yield from order.sample(batches, len(batches))


def _loss(model: torch.nn.Module, lines: list[Line]) -> torch.Tensor:
    """Mean negative log-likelihood of the answers, nats a token."""
    longest = max(len(line.ids) for line in lines)
    ids = torch.tensor([line.ids + [0] * (longest - len(line.ids)) for line in lines])  # (lines, tokens)
    after = torch.arange(1, longest)
    asked = torch.stack([(after >= len(line.ids) - line.answer) & (after < len(line.ids)) for line in lines])
    speech = torch.stack([(after > line.speech.start) & (after <= line.speech.stop) for line in lines])
    table = model.get_input_embeddings()
    # Each label's mean embedding is added to every frame of its line.
    labels = torch.zeros(len(lines), table.num_embeddings)
    for row, line in enumerate(lines):
        for tokens, weight in line.labels:
            labels[row, tokens] += weight / len(tokens)
    # The span of each frame's word is added as sinusoids, in units of the embeddings' spread.
    spans = torch.zeros(len(lines), longest - 1, table.embedding_dim)
    for row, line in enumerate(lines):
        spans[row, line.speech] = line.span_weight * span_waves(torch.tensor(line.spans), table.embedding_dim)
    embeddings = table(ids[:, :-1]) + speech[:, :, None] * (labels @ table.weight)[:, None] + spans * table.weight.detach().std()
    hidden = model.base_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return functional.cross_entropy(model.get_output_embeddings()(hidden[asked]), ids[:, 1:][asked])
