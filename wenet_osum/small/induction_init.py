"""Initial weights with which a small LLM can copy before any training.

Repeating what stands in the prompt takes two attention layers that work together, an induction
circuit (Olsson et al., 2022, "In-context learning and induction heads"). Neither layer is of use
before the other is there, and a small LLM spends most of a short training finding them. Here they
are built into the weights it starts from; training is free to change all of it. Speech has blanks
between its tokens (pseudo_speech.py), so the circuit is

- layer 0: each position attends to the last one before it that is not blank, and notes its token;
- layer 1: the last token of the answer attends to the position, not blank, that has noted it, and
  copies the token that stands there.

A second head of layer 1 attends to where the last token of the answer stands itself in the speech.
What it reads there is left to training.

Times are copied too: the tokens that write a time begin as the sinusoids that encode the span of a
frame in pseudo-speech. So the token of a word's start is most similar to a frame of that word, and
leads back to that frame when the word itself is due, also when the same word stands twice.

Letters: H width, E channels of a head.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from wenet_osum.small.pseudo_speech import FRAME_S
from wenet_osum.small.sinusoids import span_waves

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

# The logits of the first head by distance, in tokens: at the token itself, and one before it. Each
# token further back has FADING less, up to FADED tokens.
PRESENT = -6.0
BEFORE = 6.0
FADING = 0.8
FADED = 12
# How far back, in tokens, these logits are fitted.
FARTHEST = 100
# The nearest tokens weigh more in the fit: so many of them, by this factor.
NEAREST = 10
CLOSE = 4.0
# Of the fit, which keeps its coefficients small.
RIDGE = 0.3
# Logits taken from blanks.
SUPPRESSED = 10.0
# Logits of the right token, about.
MATCHED = 12.0
# In rad per token: pairs of channels that turn slower can compare tokens far apart.
SLOW = 0.03
# A token that begins to write a time: its digits so far, and those after the point.
BEGUN_TIME = re.compile(r"\s?<(\d+\.(\d+))")
# Size of what the heads add, in lengths of an embedding, about.
WRITTEN = 2.0
COPIED = 6.0


@torch.no_grad()
def init_induction_heads(llm: Qwen2ForCausalLM, blank: int) -> None:
    """Write the circuit into the first two layers of a fresh ``llm``, in place.

    ``blank`` is the token id of blanks. All layers begin by adding nothing but what these heads
    copy. Raises ValueError for an LLM of one layer or one key head.
    """
    config = llm.config
    if config.num_hidden_layers < 2 or config.num_key_value_heads < 2:
        raise ValueError(
            "llm.induction_init takes an LLM of at least 2 layers and 2 key heads; "
            "raise llm.layers or llm.kv_heads"
        )
    layers = llm.model.layers
    for layer in layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()

    first, second = (layer.self_attn for layer in layers[:2])
    silence = _blank_direction(llm, blank)
    rates = _rotary_rates(llm)
    slow = _slow_pairs(rates)

    # Random directions keep apart what the layers write into the same embedding.
    shape = (first.head_dim, config.hidden_size)
    noted = _orthogonal(*shape)
    note = _orthogonal(*shape)
    copied = _orthogonal(*shape)
    own = _orthogonal(*shape)

    # Layer 0 notes at each position the token before it.
    _attend_back(first, rates, silence)
    _carry(first, noted, note, WRITTEN)

    # Layer 1 looks for the position that has noted the present token, and copies its token.
    _attend_like(second, 0, noted, note, slow)
    _avoid(second, silence)
    _carry(second, copied, copied, COPIED)

    # A second head looks for the present token itself.
    _attend_like(second, 1, own, own, slow)


def _blank_direction(llm: Qwen2ForCausalLM, blank: int) -> Tensor:
    """Return the direction (H,) of the embedding of blanks, of length 1."""
    silence = llm.get_input_embeddings().weight[blank]
    return silence / silence.norm()


def _rotary_rates(llm: Qwen2ForCausalLM) -> Tensor:
    """Return how far the rotary embedding turns each pair of channels (E / 2,), rad per token."""
    attention = llm.model.layers[0].self_attn
    rope = llm.config.rope_parameters
    theta = rope["rope_theta"]
    half = attention.head_dim // 2
    powers = torch.arange(half) / half
    return 1.0 / theta**powers


def _slow_pairs(rates: Tensor) -> Tensor:
    """Return the numbers of the pairs that turn slowly, without the last, which is for blanks."""
    slow = []
    for pair, rate in enumerate(rates[:-1]):
        if rate < SLOW:
            slow.append(pair)
    return torch.tensor(slow)


@torch.no_grad()
def init_time_embeddings(llm: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the embeddings of tokens that write times, in place.

    They become the sinusoids of a span that starts and ends at that time, as long as embeddings
    are on average.
    """
    table = llm.get_input_embeddings().weight
    width = table.shape[1]
    lengths = table.norm(dim=1)
    length = lengths.mean()
    for token, time in time_tokens(tokenizer).items():
        moment = torch.full((2,), time / FRAME_S)
        waves = span_waves(moment, width)
        direction = functional.normalize(waves, dim=-1)
        table[token] = length * direction


def time_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, float]:
    """Find the tokens that write a time at least to its first decimal.

    Returns token id → the middle, in seconds, of the times that begin with it.
    """
    found = {}
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        written = BEGUN_TIME.fullmatch(text)
        if written:
            number, decimals = written.groups()
            unit = 10 ** -len(decimals)
            found[token] = float(number) + 0.5 * unit
    return found


def _orthogonal(rows: int, columns: int) -> Tensor:
    """Draw a matrix (rows, columns) of orthogonal rows of length 1."""
    drawn = torch.randn(columns, rows)
    basis, _ = torch.linalg.qr(drawn)
    return basis.T


def _head(attention: nn.Module, number: int) -> tuple[slice, slice]:
    """Return the rows of the first query head that key head ``number`` serves, and of that key
    head."""
    size = attention.head_dim
    key = number * size
    query = key * attention.num_key_value_groups
    queries = slice(query, query + size)
    keys = slice(key, key + size)
    return queries, keys


def _attend_back(attention: nn.Module, rates: Tensor, silence: Tensor) -> None:
    """Let head 0 attend to the last position before its own that is not blank.

    It gets biases alone. The rotary embedding turns them, so their product depends only on the
    distance d: it is Σ a cos(rate · d) + b sin(rate · d).
    """
    queries, keys = _head(attention, 0)
    query, key = attention.q_proj, attention.k_proj
    query.weight[queries] = 0.0
    key.weight[keys] = 0.0

    # The last pair of channels is kept for blanks.
    half = len(rates)
    size = attention.head_dim
    fitted = _fit_distances(rates[:-1])
    cosines, sines = fitted.chunk(2)
    bias = torch.zeros(size)
    bias[: half - 1] = cosines
    bias[half : size - 1] = sines
    key.bias[keys] = bias
    query.bias[queries][: half - 1] = math.sqrt(size)
    _avoid(attention, silence)


def _fit_distances(rates: Tensor) -> Tensor:
    """Fit cosines and sines that turn by ``rates`` (P,) to the logits wanted at each distance.

    Returns the coefficients (2P,), of all cosines before those of all sines.
    """
    distance = torch.arange(float(FARTHEST))
    behind = distance - 1
    fading = FADING * behind.clamp(max=FADED)
    wanted = torch.where(distance == 0, PRESENT, BEFORE - fading)
    angles = distance[:, None] * rates
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    count = waves.shape[1]

    # Least squares: a row per distance, and one per coefficient that pulls it towards zero.
    weight = torch.where(distance < NEAREST, CLOSE, 1.0)
    weighted = waves * weight[:, None]
    ridge = RIDGE * torch.eye(count)
    rows = torch.cat([weighted, ridge])
    values = torch.cat([wanted * weight, torch.zeros(count)])
    fit = torch.linalg.lstsq(rows, values)
    return fit.solution


def _avoid(attention: nn.Module, silence: Tensor) -> None:
    """Take logits from blanks in head 0, in the pair of channels that hardly turns.

    ``silence`` (H,) is the direction of their embedding.
    """
    queries, keys = _head(attention, 0)
    size = attention.head_dim
    pair = size // 2 - 1

    # The query is the same at every position; the key falls with the share of blank in it.
    query = attention.q_proj
    query.weight[queries][pair] = 0.0
    query.bias[queries][pair] = math.sqrt(size)
    key = attention.k_proj
    strength = SUPPRESSED / math.sqrt(len(silence))
    key.weight[keys][pair] = -strength * silence
    key.bias[keys][pair] = 0.0


def _attend_like(
    attention: nn.Module, number: int, query: Tensor, key: Tensor, pairs: Tensor
) -> None:
    """Let head ``number`` attend to positions that are like its own.

    What ``query`` (E, H) reads at its own position is compared with what ``key`` (E, H) reads at
    others, in the slowly turning ``pairs`` of channels.
    """
    queries, keys = _head(attention, number)
    size = attention.head_dim
    half = size // 2
    channels = torch.cat([pairs, pairs + half])

    # The product of two equal readings is MATCHED, after the division by √E that attention makes.
    product = MATCHED * math.sqrt(size)
    gain = math.sqrt(product / len(channels))
    for projection, rows, matrix in (
        (attention.q_proj, queries, query),
        (attention.k_proj, keys, key),
    ):
        projection.weight[rows] = 0.0
        projection.bias[rows] = 0.0
        projection.weight[rows][channels] = gain * matrix[channels]


def _carry(attention: nn.Module, read: Tensor, write: Tensor, size: float) -> None:
    """Let head 0 add what it reads where it attends: read by ``read`` (E, H), added as ``write``
    (E, H) writes it."""
    queries, keys = _head(attention, 0)
    value = attention.v_proj
    value.weight[keys] = read
    value.bias[keys] = 0.0

    strength = size / math.sqrt(len(read))
    output = attention.o_proj
    output.weight[:, queries] = strength * write.T
