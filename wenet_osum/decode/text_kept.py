"""What a model that hears has kept of its LLM's text: the same prompts, answered with LoRA and
without it.

Two figures say how far answers have moved: the share of replies that are the same word for word,
and the perplexity, under the trained LLM, of what the text LLM replies. The third, the
Kullback-Leibler divergence of the next token along these replies, moves before the others do.

Letters: B prompts, T tokens of the longest prompt and reply, A tokens of all replies, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.decode.text_replies import NO_END, TextLlm
from wenet_osum.models import lora
from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.osum import OsumModel

Answer = tuple[str, str]  # a reply, and what is wrong with it
# What asks as if training had not been.
Before = Callable[[], AbstractContextManager]


class Reply(NamedTuple):
    """What the text LLM replies to a prompt, and what the trained one does."""

    prompt: str
    before: str
    after: str


class Kept(NamedTuple):
    """How much of the text LLM is left."""

    prompts: int
    exact: float  # % of the replies that are the same
    perplexity_before: float  # of the text LLM's replies, as itself sees them
    perplexity: float  # of the same replies, as the trained LLM sees them
    kl: float  # nats per token, of the trained LLM from the text LLM

    @property
    def growth(self) -> float:
        """Return how many times as large as before the perplexity is."""
        return self.perplexity / self.perplexity_before


class Sums(NamedTuple):
    """Sums over the tokens of replies, in nats."""

    before: float
    after: float
    kl: float
    tokens: int


def of_model(model: OsumModel, tokenizer: object, max_tokens: int) -> TextLlm:
    """Return the LLM of a model, as one that is asked in text.

    Raises ValueError for a tokenizer without a chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError("the model's tokenizer has no chat template; text is asked for in one")
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return TextLlm(model.llm.eval(), tokenizer, system="", max_tokens=max_tokens)


def compare(
    after: TextLlm,
    prompts: Sequence[str],
    before: TextLlm | None = None,
    batch_size: int = 16,
) -> tuple[Kept, list[Reply]]:
    """Ask an LLM with its LoRA and without it; returns the figures and the replies.

    ``before`` is the text LLM of a model whose own weights were trained. Raises ValueError when
    there is neither it nor LoRA.
    """
    untrained: Before = nullcontext
    if before is None:
        if not lora.there(after.model):
            raise ValueError("the model has no LoRA; name the text LLM that it was made from")
        untrained = partial(lora.off, after.model)
        before = after

    replies = []
    sums = []
    for batch in _batches(prompts, batch_size):
        with untrained():
            old = list(before.replies(batch))
        new = list(after.replies(batch))
        for prompt, ours, theirs in zip(batch, old, new, strict=True):
            reply = Reply(prompt, ours[0], theirs[0])
            replies.append(reply)

        of_batch = _sums(before, after, untrained, batch, old)
        sums.append(of_batch)
    figures = _figures(replies, sums)
    return figures, replies


def _batches(prompts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for begin in range(0, len(prompts), size):
        yield prompts[begin : begin + size]


def _figures(replies: list[Reply], sums: list[Sums]) -> Kept:
    """Return the figures of all batches."""
    count = len(replies)
    same = sum(reply.before == reply.after for reply in replies)
    columns = zip(*sums, strict=True)
    before, after, divergence, tokens = map(sum, columns)
    return Kept(
        prompts=count,
        exact=100 * same / count,
        perplexity_before=math.exp(before / tokens),
        perplexity=math.exp(after / tokens),
        kl=divergence / tokens,
    )


@torch.inference_mode()
def _sums(
    before: TextLlm,
    after: TextLlm,
    untrained: Before,
    prompts: Sequence[str],
    replies: list[Answer],
) -> Sums:
    """Read prompts and replies with both LLMs and sum over the tokens of the replies."""
    ids, lengths, answer = _tokens(after, prompts, replies)
    with untrained():
        old = _log_probs(before, ids, lengths, answer)
    new = _log_probs(after, ids, lengths, answer)

    wanted = ids[answer]
    wanted = wanted.to(old.device)
    loss = functional.nll_loss
    difference = old - new
    terms = old.exp() * difference
    return Sums(
        before=loss(old, wanted, reduction="sum").item(),
        after=loss(new, wanted, reduction="sum").item(),
        kl=terms.sum().item(),
        tokens=len(wanted),
    )


def _tokens(
    llm: TextLlm, prompts: Sequence[str], replies: list[Answer]
) -> tuple[Tensor, Tensor, Tensor]:
    """Write prompts, replies and their ends as tokens.

    Returns ids (B, T), padded at the end, lengths (B,), and where the ids of replies are (B, T).
    """
    rows = []
    begins = []
    for prompt, (reply, reason) in zip(prompts, replies, strict=True):
        text = llm.prompt(prompt)
        asked = llm.tokenizer.encode(text, add_special_tokens=False)
        said = llm.tokenizer.encode(reply, add_special_tokens=False)
        # One that was cut off has no end to be foreseen.
        if reason != NO_END:
            said.append(llm.tokenizer.eos_token_id)
        row = torch.tensor(asked + said)
        rows.append(row)
        begin = len(asked)
        begins.append(begin)
    lengths = torch.tensor([len(row) for row in rows])
    ids = pad_sequence(rows, batch_first=True)

    # A reply begins behind its prompt and ends with its row.
    width = ids.shape[1]
    places = torch.arange(width)
    starts = torch.tensor(begins)[:, None]
    ends = lengths[:, None]
    answer = (places >= starts) & (places < ends)
    return ids, lengths, answer


def _log_probs(llm: TextLlm, ids: Tensor, lengths: Tensor, answer: Tensor) -> Tensor:
    """Return the log-probabilities (A, V) with which the tokens of replies are foreseen."""
    device = llm.model.device
    width = ids.shape[1]
    exists = valid_mask(lengths, width, device)
    mask = None if exists is None else exists.long()
    ids = ids.to(device)
    output = llm.model.base_model(ids, attention_mask=mask, use_cache=False)

    # A token is foreseen where the one before it was read.
    hidden = output.last_hidden_state[:, :-1]
    answer = answer.to(device)
    foreseeing = answer[:, 1:]
    head = llm.model.get_output_embeddings()
    logits = head(hidden[foreseeing])
    return logits.float().log_softmax(-1)
