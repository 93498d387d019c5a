"""Small Whisper- and Qwen2-shaped models with random weights, saved as ordinary transformers
folders.

For recipes that train from scratch on a CPU: everything downstream loads these folders with the
code that loads ``openai/whisper-*`` and ``Qwen/*``. Their usual initial spread of 0.02 suits widths
of a thousand. At a hundred it leaves the audio far below the position embeddings, and nothing is
learned for the first passes; so it is width^-½ here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenet_osum.small.induction_init import init_induction_heads, init_time_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

# How far from its own place each head of a Whisper encoder begins to look, in frames of 20 ms.
OFFSETS = (-9, -3, 3, 9)
# The longest turn of Whisper's sinusoids, in frames / 2π.
LONGEST_TURN = 10000.0
# What is left of the random weights of heads that begin by looking near.
RANDOM_SHARE = 0.3


@dataclass
class SmallWhisper:
    """Sizes of the Whisper-shaped model."""

    width: int = 144
    heads: int = 4
    ffn: int = 576
    encoder_layers: int = 4
    decoder_layers: int = 2
    mels: int = 80
    dropout: float = 0.0


@dataclass
class SmallLlm:
    """Sizes of the Qwen2-shaped LLM, and how it is trained on pseudo-speech."""

    width: int = 192
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 512
    # Passes over the text.
    epochs: float = 4.0
    # Peak learning rate.
    lr: float = 3e-3
    # Lines per step.
    batch: int = 16
    # Begin with heads that copy (small/induction_init.py); needs 2 layers and 2 key heads.
    induction_init: bool = False
    # Share of lines that begin with silence (small/pseudo_speech.py), for corpora of long
    # utterances, whose late times are rare.
    leading_silence: float = 0.0
    # Task → how often it is asked; 1 for the built-in tasks that are not named.
    task_weights: dict[str, float] = field(default_factory=dict)


@dataclass
class SmallModels:
    """The models that ``make_models`` builds."""

    seed: int = 1
    # Tokens of the BPE, at most.
    vocab_size: int = 2000
    whisper: SmallWhisper = field(default_factory=SmallWhisper)
    llm: SmallLlm = field(default_factory=SmallLlm)


def save_whisper(
    sizes: SmallWhisper, tokenizer: PreTrainedTokenizerFast, folder: str | Path
) -> None:
    """Write a Whisper model with random weights, its tokenizer and feature extractor."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    end = tokenizer.eos_token_id
    start = tokenizer.bos_token_id
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=sizes.mels,
        d_model=sizes.width,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=sizes.ffn,
        decoder_ffn_dim=sizes.ffn,
        init_std=sizes.width**-0.5,
        dropout=sizes.dropout,
        decoder_start_token_id=start,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    init_local_attention(model.model.encoder)
    model.save_pretrained(folder)
    features = WhisperFeatureExtractor(feature_size=sizes.mels)
    features.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


@torch.no_grad()
def init_local_attention(
    encoder: nn.Module, offsets: tuple[int, ...] = OFFSETS, gain: float = 1.3
) -> None:
    """Let each head of a Whisper encoder begin by looking near its own place, in place.

    Head h looks ``offsets[h]`` frames (20 ms) away, over and over the offsets. Whisper knows places
    by sinusoids alone; that neighbors matter is the first thing it would have to learn. Keys begin
    as some of the sinusoid channels, queries as the same ones turned by the offset, so their
    product is Σ cos(ω(Δ - offset)), which is largest at Δ = offset. Training is free to change all
    of it.
    """
    width = encoder.embed_positions.weight.shape[1]
    for layer in encoder.layers:
        attention = layer.self_attn
        size = attention.head_dim
        heads = range(attention.num_heads)
        for head, offset in zip(heads, itertools.cycle(offsets), strict=False):
            query, key = _looking_at(offset, size, width)
            first = head * size
            rows = slice(first, first + size)
            for projection, read in ((attention.k_proj, key), (attention.q_proj, query)):
                drawn = projection.weight[rows]
                projection.weight[rows] = gain * read + RANDOM_SHARE * drawn


def _looking_at(offset: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    """Return query and key matrices (size, width) whose product is largest ``offset`` frames
    away."""
    # Whisper's positions: sines in the first half of the channels, cosines in the second.
    half = width // 2
    log_step = -math.log(LONGEST_TURN) / (half - 1)
    frequencies = torch.exp(log_step * torch.arange(half))

    # The faster half of them is read, with turns of 0.1 s to 10 s.
    count = size // 2
    sines = torch.linspace(0, half / 2, count).long()
    cosines = sines + half
    even = torch.arange(count) * 2
    odd = even + 1
    key = torch.zeros(size, width)
    key[even, sines] = 1.0
    key[odd, cosines] = 1.0

    # The query reads the same, turned: sin(x + turn) and cos(x + turn).
    turn = frequencies[sines] * offset
    query = torch.zeros(size, width)
    query[even, sines] = torch.cos(turn)
    query[even, cosines] = torch.sin(turn)
    query[odd, cosines] = torch.cos(turn)
    query[odd, sines] = -torch.sin(turn)
    return query, key


def small_llm(sizes: SmallLlm, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Make a fresh Qwen2-shaped LLM.

    Its config names no padding token, as Qwen2's own does not: transformers starts the embedding of
    one at zero and never trains it as input, and here the end of text stands for silence. Raises
    ValueError for sizes that ``induction_init`` does not fit.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    end = tokenizer.eos_token_id
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=sizes.width,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=2048,
        initializer_range=sizes.width**-0.5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=end,
        eos_token_id=end,
    )
    llm = Qwen2ForCausalLM(config)
    llm = llm.to(torch.float32)
    if sizes.induction_init:
        init_induction_heads(llm, end)
        init_time_embeddings(llm, tokenizer)
    llm.generation_config.pad_token_id = tokenizer.pad_token_id
    return llm
