"""Small Whisper- and Qwen2-shaped models with random weights, saved as the ordinary folders of transformers.

For recipes that train from scratch on a CPU: everything downstream loads these folders with the code that loads
``openai/whisper-*`` and ``Qwen/*``. Their usual initial spread of 0.02 suits widths of a thousand; at a hundred it leaves the
audio far below the position embeddings, and nothing is learned for the first passes. So it is width^-½ here.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wenet_osum.small.induction_init import init_induction_heads, init_time_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM


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
    """Sizes of the Qwen2-shaped LLM and its training on plain text."""

    width: int = 192
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 512
    epochs: float = 4.0  # passes over the text
    lr: float = 3e-3  # peak learning rate
    batch: int = 16  # lines a step
    induction_init: bool = False  # starts with heads that copy (small/induction_init.py); needs 2 layers and 2 key heads
    leading_silence: float = 0.0  # share of lines that begin with silence (small/pseudo_speech.py): for long utterances, whose late times are rare
    task_weights: dict[str, float] = field(default_factory=dict)  # task → how often it is asked; 1 for the eight where it is not named


@dataclass
class SmallModels:
    """What ``make_models`` builds."""

    seed: int = 1
    vocab_size: int = 2000  # tokens of the BPE, at most
    whisper: SmallWhisper = field(default_factory=SmallWhisper)
    llm: SmallLlm = field(default_factory=SmallLlm)


def save_whisper(sizes: SmallWhisper, tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Write a Whisper model with random weights, its tokenizer and feature extractor."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

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
        decoder_start_token_id=tokenizer.bos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    init_local_attention(model.model.encoder)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=sizes.mels).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


@torch.no_grad()
def init_local_attention(encoder: torch.nn.Module, offsets: tuple[int, ...] = (-9, -3, 3, 9), gain: float = 1.3) -> None:
    """Let each head of a Whisper encoder begin by looking near its own place: head h at ``offsets[h]`` frames (20 ms) from it.

    Whisper knows places by sinusoids alone; that neighbors matter is the first thing it would have to learn. Keys begin as some
    of the sinusoid channels, queries as the same ones turned by the offset, so their product is Σ cos(ω(Δ - offset)), which is
    largest at Δ = offset. Training is free to change all of it.
    """
    half = encoder.embed_positions.weight.shape[1] // 2  # channels: half sines, half cosines
    frequencies = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half))
    for layer in encoder.layers:
        attention = layer.self_attn
        size = attention.head_dim
        channels = torch.linspace(0, half / 2, size // 2).long()  # the faster half: a turn in 0.1 s to 10 s
        sine, cosine = torch.arange(size // 2) * 2, torch.arange(size // 2) * 2 + 1
        for head, offset in zip(range(attention.num_heads), itertools.cycle(offsets), strict=False):
            turn = frequencies[channels] * offset
            key, query = torch.zeros(size, 2 * half), torch.zeros(size, 2 * half)
            key[sine, channels], key[cosine, channels + half] = 1.0, 1.0
            query[sine, channels], query[sine, channels + half] = torch.cos(turn), torch.sin(turn)
            query[cosine, channels + half], query[cosine, channels] = torch.cos(turn), -torch.sin(turn)
            rows = slice(head * size, (head + 1) * size)
            attention.k_proj.weight[rows] = gain * key + 0.3 * attention.k_proj.weight[rows]
            attention.q_proj.weight[rows] = gain * query + 0.3 * attention.q_proj.weight[rows]


def small_llm(sizes: SmallLlm, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A fresh Qwen2-shaped LLM.

    No padding token in its config, as in Qwen2's own: transformers starts the embedding of one at zero and never trains it as input, and
    here the end of text stands for silence.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

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
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    llm = Qwen2ForCausalLM(config).to(torch.float32)
    if sizes.induction_init:
        init_induction_heads(llm, tokenizer.eos_token_id)
        init_time_embeddings(llm, tokenizer)
    llm.generation_config.pad_token_id = tokenizer.pad_token_id
    return llm
