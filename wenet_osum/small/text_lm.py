"""Train a small LLM on pseudo-speech (pseudo_speech.py), in one process or several.

Letters: R lines of a batch, L tokens of the longest, H width of the LLM, V its vocabulary.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from wenet_osum import dist
from wenet_osum.config import OptimConfig
from wenet_osum.progress import ProgressBar
from wenet_osum.small.models import SmallLlm
from wenet_osum.small.pseudo_speech import Line
from wenet_osum.small.sinusoids import span_waves
from wenet_osum.train.optim import lr_scale, make_optimizer, set_learning_rates

# Batches whose lines are sorted together by length, against padding.
GROUP = 16
# Steps whose mean loss the progress shows.
MEAN_OF = 100


def train_text_lm(
    model: nn.Module,
    lines: list[Line],
    sizes: SmallLlm,
    seed: int,
    world: dist.World | None = None,
) -> float:
    """Train ``model`` in place, once over ``lines``.

    Returns the mean loss, in nats per token, of the last tenth of the steps. The processes of
    ``world`` must begin with the same model and lines; they share out each batch, and end with the
    same model.
    """
    steps = math.ceil(len(lines) / sizes.batch)
    steps = max(1, steps)
    conf = OptimConfig(
        name="muon",
        lr=sizes.lr,
        betas=(0.9, 0.98),
        schedule="cosine",
        warmup_steps=steps // 10,
    )
    optimizer = _make_optimizer(model, conf)
    speaks = world is None or world.is_rank_zero
    model.train()
    losses: list[float] = []
    progress = ProgressBar(steps, "steps", title="text LLM", quiet=not speaks)
    for step, batch in enumerate(_batches(lines, sizes.batch, seed), 1):
        loss = _backward(model, batch, world)
        losses.append(loss)

        # The learning rate is a function of the step alone.
        scale = lr_scale(step, conf, steps)
        set_learning_rates(optimizer, scale)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

        recent = _mean(losses[-MEAN_OF:])
        progress.add(note=f"loss {recent:.3f}")
    progress.close()
    model.eval()
    tail = max(1, steps // 10)
    return _mean(losses[-tail:])


def _backward(model: nn.Module, batch: list[Line], world: dist.World | None) -> float:
    """Compute the gradients of a batch, those of all processes; returns its mean loss."""
    if world is None or world.size == 1:
        loss = _loss(model, batch)
        loss.backward()
        return loss.item()

    # The processes deal the lines out among them, and each weighs its mean by its share of the
    # answers. Where there are fewer lines than processes, some compute with weight 0, to keep in
    # step.
    mine = batch[world.rank :: world.size]
    share = _answer_tokens(mine) / _answer_tokens(batch)
    mean = _loss(model, mine or batch)
    loss = mean * share
    loss.backward()
    params = list(model.parameters())
    return dist.sum_gradients(params, loss.item())


def _make_optimizer(model: nn.Module, conf: OptimConfig) -> torch.optim.Optimizer:
    """Make the optimizer of all parameters of ``model``."""
    named = dict(model.named_parameters())
    group = {
        "params": list(named.values()),
        "names": list(named),
        "weight_decay": 0.01,
    }
    device = torch.device("cpu")
    return make_optimizer([group], conf, device)


def _mean(values: list[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)


def _answer_tokens(lines: list[Line]) -> int:
    """Count the tokens of all answers."""
    return sum(line.answer for line in lines)


def _batches(lines: list[Line], size: int, seed: int) -> Iterator[list[Line]]:
    """Yield all lines once, in batches of like length, in an order fixed by the seed."""
    order = random.Random(seed)
    shuffled = order.sample(lines, len(lines))

    # Lines are sorted within groups only, so that each pass still mixes them anew.
    batches = []
    large = size * GROUP
    for group in _cut(shuffled, large):
        group.sort(key=lambda line: len(line.ids))
        batches += _cut(group, size)
    yield from order.sample(batches, len(batches))


def _cut(lines: list[Line], size: int) -> list[list[Line]]:
    """Cut lines into pieces of ``size``, the last maybe smaller."""
    pieces = []
    for start in range(0, len(lines), size):
        end = start + size
        pieces.append(lines[start:end])
    return pieces


def _loss(model: nn.Module, lines: list[Line]) -> Tensor:
    """Compute the mean negative log-likelihood of the answers, in nats per token."""
    ids, answers = _padded(lines)

    # Each position predicts the token after it; only answers count.
    before = ids[:, :-1]
    after = ids[:, 1:]
    counted = answers[:, 1:]
    embeddings = _embed(model, lines, before)
    output = model.base_model(inputs_embeds=embeddings, use_cache=False)
    hidden = output.last_hidden_state
    head = model.get_output_embeddings()
    logits = head(hidden[counted])
    return functional.cross_entropy(logits, after[counted])


def _padded(lines: list[Line]) -> tuple[Tensor, Tensor]:
    """Return the tokens of lines (R, L), padded at the end, and which of them are answers
    (R, L)."""
    longest = max(len(line.ids) for line in lines)
    shape = (len(lines), longest)
    ids = torch.zeros(shape, dtype=torch.int64)
    answers = torch.zeros(shape, dtype=torch.bool)
    for row, line in enumerate(lines):
        end = len(line.ids)
        begin = end - line.answer
        ids[row, :end] = torch.tensor(line.ids)
        answers[row, begin:end] = True
    return ids, answers


def _embed(model: nn.Module, lines: list[Line], ids: Tensor) -> Tensor:
    """Embed ``ids`` (R, L) as (R, L, H); frames also get the labels of their line and the span of
    their word."""
    table = model.get_input_embeddings()
    tokens = table(ids)
    labels = _label_weights(lines, table.num_embeddings)
    directions = labels @ table.weight  # (R, H)
    frames = torch.zeros(*ids.shape, 1)
    spans = torch.zeros_like(tokens)
    for row, line in enumerate(lines):
        place = line.speech
        frames[row, place] = 1.0
        times = torch.tensor(line.spans)
        waves = span_waves(times, table.embedding_dim)
        spans[row, place] = line.span_weight * waves

    # The weights of spans are in units of the embeddings' spread.
    weight = table.weight.detach()
    spread = weight.std()
    return tokens + frames * directions[:, None] + spans * spread


def _label_weights(lines: list[Line], count: int) -> Tensor:
    """Return with what weight each token is added to the frames of a line, (R, V).

    Together the tokens of a label have its weight, so it is their mean embedding that is added.
    """
    weights = torch.zeros(len(lines), count)
    for row, line in enumerate(lines):
        for tokens, weight in line.labels:
            share = weight / len(tokens)
            weights[row, tokens] += share
    return weights
