"""What a new model is made of: its adapter with initial weights, and settings of generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers import GenerationConfig

from wenet_osum import lookup

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumConfig


def greedy(settings: GenerationConfig) -> GenerationConfig:
    """Keep the special tokens of an LLM's settings for ``generate`` and nothing else.

    Those of an Instruct LLM would sample and penalize repetition.
    """
    return GenerationConfig(
        do_sample=False,
        bos_token_id=settings.bos_token_id,
        eos_token_id=settings.eos_token_id,
        pad_token_id=settings.pad_token_id,
    )


def make_adapter(config: OsumConfig, width: int) -> nn.Module:
    """The adapter that ``config`` names, between an encoder of ``width`` channels and the LLM."""
    adapter = lookup.load("wenet_osum.models.adapter", config.adapter).Adapter
    try:
        return adapter(width, config.llm.hidden_size, **config.adapter_conf)
    except TypeError as error:
        raise ValueError(f"adapter_conf {config.adapter_conf} does not fit adapter {config.adapter!r}: {error}") from None


def init_adapter(adapter: nn.Module, std: float, name: str | None = None) -> None:
    """Set the initial weights of an adapter whose embeddings are to have the standard deviation ``std``.

    ``name`` is a file in models/adapter_init; without it the adapter's own method ``initialize`` is called, if it has one.
    """
    if name is not None:
        lookup.load("wenet_osum.models.adapter_init", name).initialize(adapter, std)
    elif hasattr(adapter, "initialize"):
        adapter.initialize(std)
