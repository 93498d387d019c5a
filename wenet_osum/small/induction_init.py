"""Initial weights with which a small LLM can copy before any training.

Repeating what stands in the prompt takes two attention layers that work together, an induction circuit (Olsson et al., 2022, "In-context learning and
induction heads"); neither is of use before the other is there, and a small LLM spends most of a short training finding them. Here they are built into
the weights it starts from; training is free to change all of it. Speech has blanks between its tokens (pseudo_speech.py), so it is

- layer 0: each position attends to the last one before it that is not blank, and notes its token;
- layer 1: the token said last attends to the position, not blank, that has noted it, and copies the token that stands there.

A second head of layer 1 attends to where the token said last stands itself: what it reads there is left to training.

Times are copied too: the tokens that write one begin as the sinusoids that tell a frame's span in pseudo-speech. So the token of a word's start is
what a frame of that word is already most like, and it leads back to that frame when the word itself is to be said, also when the same word stands twice.

Letters: H width, E channels of a head.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.small.pseudo_speech import FRAME_S
from wenet_osum.small.sinusoids import span_waves

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

FARTHEST = 100  # tokens: how far back the fit of the first head reaches
PRESENT, BEFORE, FADING, FADED = -6.0, 6.0, 0.8, 12  # its logits: at the token itself, one before, less for each one more, up to so many
CLOSE = 4.0  # weight in the fit of the nearest ten tokens
SUPPRESSED = 10.0  # logits taken from blanks
MATCHED = 12.0  # logits of the right token, about
SLOW = 0.03  # rad a token: pairs of channels that turn slower can compare tokens far apart
BEGUN_TIME = re.compile(r"\s?<(\d+\.(\d+))")
WRITTEN, COPIED = 2.0, 6.0  # size of what the heads add, in lengths of an embedding, about


@torch.no_grad()
def init_induction_heads(llm: Qwen2ForCausalLM, blank: int) -> None:
    """Write the circuit into the first two layers of a fresh ``llm``. All layers begin by adding nothing but what these heads copy.

    Raises ValueError for an LLM of one layer or one key head.
    """
    if llm.config.num_hidden_layers < 2 or llm.config.num_key_value_heads < 2:
        raise ValueError("llm.induction_init takes an LLM of at least 2 layers and 2 key heads; raise llm.layers or llm.kv_heads")
    for layer in llm.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    first, second = (layer.self_attn for layer in llm.model.layers[:2])
    size, width = first.head_dim, llm.config.hidden_size
    silence = llm.get_input_embeddings().weight[blank]
    silence = silence / silence.norm()
    rates = 1.0 / llm.config.rope_parameters["rope_theta"] ** (torch.arange(size // 2) / (size // 2))
    noted, note, copied, own = (_orthogonal(size, width) for _ in range(4))
    _attend_back(first, rates, silence)
    _carry(first, noted, note, WRITTEN)
    comparing = torch.tensor([p for p, rate in enumerate(rates[:-1]) if rate < SLOW])
    _attend_like(second, 0, noted, note, comparing)
    _avoid(second, silence)
    _carry(second, copied, copied, COPIED)
    _attend_like(second, 1, own, own, comparing)


@torch.no_grad()
def init_time_embeddings(llm: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the embeddings of tokens that write times to the sinusoids of a span that starts and ends then.

    They are as long as the embeddings are on average.
    """
    table = llm.get_input_embeddings().weight
    length = table.norm(dim=1).mean()
    for token, time in time_tokens(tokenizer).items():
        moment = torch.full((2,), time / FRAME_S)
        table[token] = length * functional.normalize(span_waves(moment, table.shape[1]), dim=-1)


def time_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, float]:
    """Find the tokens that write a time down to one of its decimals: id → middle of the times that begin so, s."""
    found = {}
    for i in range(len(tokenizer)):
        if text := BEGUN_TIME.fullmatch(tokenizer.decode([i])):
            found[i] = float(text[1]) + 0.5 * 10 ** -len(text[2])
    return found


def _orthogonal(rows: int, columns: int) -> Tensor:
    return torch.linalg.qr(torch.randn(columns, rows))[0].T


def _head(attention: torch.nn.Module, number: int) -> tuple[slice, slice]:
    """Rows of the first query head that key head ``number`` serves, and of that key head."""
    size, shared = attention.head_dim, attention.num_key_value_groups
    return slice(number * shared * size, (number * shared + 1) * size), slice(number * size, (number + 1) * size)


def _attend_back(attention: torch.nn.Module, rates: Tensor, silence: Tensor) -> None:
    """Head 0: biases whose product, turned by the rotary embedding, depends on the distance alone: Σ a cos(rate · d) + b sin(rate · d)."""
    queries, keys = _head(attention, 0)
    half, size = len(rates), attention.head_dim
    distance = torch.arange(float(FARTHEST))
    wanted = torch.where(distance == 0, PRESENT, BEFORE - FADING * (distance - 1).clamp(max=FADED))
    angles = distance[:, None] * rates[:-1]  # the last pair is kept for blanks
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    weight = torch.where(distance < 10, CLOSE, 1.0)
    ridge = 0.3 * torch.eye(waves.shape[1])
    fitted = torch.linalg.lstsq(torch.cat([waves * weight[:, None], ridge]), torch.cat([wanted * weight, torch.zeros(len(ridge))])).solution
    attention.q_proj.weight[queries], attention.k_proj.weight[keys] = 0.0, 0.0
    bias = torch.zeros(size)
    bias[: half - 1], bias[half : size - 1] = fitted.chunk(2)
    attention.k_proj.bias[keys] = bias
    attention.q_proj.bias[queries][: half - 1] = math.sqrt(size)
    _avoid(attention, silence)


def _avoid(attention: torch.nn.Module, silence: Tensor) -> None:
    """Head 0: take logits from blanks, in the pair of channels that hardly turns."""
    queries, keys = _head(attention, 0)
    pair = attention.head_dim // 2 - 1
    attention.q_proj.weight[queries][pair], attention.q_proj.bias[queries][pair] = 0.0, math.sqrt(attention.head_dim)
    attention.k_proj.weight[keys][pair], attention.k_proj.bias[keys][pair] = -SUPPRESSED / math.sqrt(len(silence)) * silence, 0.0


def _attend_like(attention: torch.nn.Module, number: int, query: Tensor, key: Tensor, pairs: Tensor) -> None:
    """Head ``number``: attend to where ``key`` (E, H) finds what ``query`` (E, H) finds here, compared in slowly turning channels."""
    queries, keys = _head(attention, number)
    half, size = attention.head_dim // 2, attention.head_dim
    channels = torch.cat([pairs, pairs + half])
    gain = math.sqrt(MATCHED * math.sqrt(size) / len(channels))
    for projection, rows, matrix in ((attention.q_proj, queries, query), (attention.k_proj, keys, key)):
        projection.weight[rows], projection.bias[rows] = 0.0, 0.0
        projection.weight[rows][channels] = gain * matrix[channels]


def _carry(attention: torch.nn.Module, read: Tensor, write: Tensor, size: float) -> None:
    """Head 0: what ``read`` (E, H) finds where it attends is added as ``write`` (E, H) writes it."""
    queries, keys = _head(attention, 0)
    attention.v_proj.weight[keys], attention.v_proj.bias[keys] = read, 0.0
    attention.o_proj.weight[:, queries] = size / math.sqrt(len(read)) * write.T
