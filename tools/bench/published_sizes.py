"""The sizes of the published models that the confs of the examples name, so that a machine without
a network can measure them with random weights.

From table 1 of the Whisper paper (Radford et al., 2022) and table 1 of the Qwen2 technical report
(2024).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from transformers import Qwen2Config, WhisperConfig


def whisper(width: int, layers: int, heads: int) -> WhisperConfig:
    """Return the sizes of a multilingual Whisper with 80 mel bins."""
    return WhisperConfig(
        vocab_size=51865,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
    )


def qwen2(
    vocabulary: int, width: int, ffn: int, layers: int, heads: int, kv_heads: int, tied: bool
) -> Qwen2Config:
    """Return the sizes of a Qwen2; ``tied``: the head is the embedding table."""
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
        eos_token_id=151643,
    )


# By the names that the confs use.
WHISPER: dict[str, Callable[[], WhisperConfig]] = {
    "openai/whisper-medium": partial(whisper, 1024, 24, 16),
    "openai/whisper-small": partial(whisper, 768, 12, 12),
    "openai/whisper-base": partial(whisper, 512, 6, 8),
}
QWEN2: dict[str, Callable[[], Qwen2Config]] = {
    "Qwen/Qwen2-7B": partial(qwen2, 152064, 3584, 18944, 28, 28, 4, False),
    "Qwen/Qwen2-0.5B": partial(qwen2, 151936, 896, 4864, 24, 14, 2, True),
    "Qwen/Qwen2.5-0.5B-Instruct": partial(qwen2, 151936, 896, 4864, 24, 14, 2, True),
}
