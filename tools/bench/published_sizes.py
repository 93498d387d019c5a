"""The sizes of the published models that the confs of examples/osum name, so that a machine without
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


def qwen2_7b() -> Qwen2Config:
    """Return the sizes of Qwen2-7B."""
    return Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        eos_token_id=151643,
    )


def qwen2_half_b() -> Qwen2Config:
    """Return the sizes of Qwen2-0.5B."""
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=151643,
    )


# By the names that the confs use.
WHISPER: dict[str, Callable[[], WhisperConfig]] = {
    "openai/whisper-medium": partial(whisper, 1024, 24, 16),
    "openai/whisper-small": partial(whisper, 768, 12, 12),
}
QWEN2: dict[str, Callable[[], Qwen2Config]] = {
    "Qwen/Qwen2-7B": qwen2_7b,
    "Qwen/Qwen2-0.5B": qwen2_half_b,
}
