"""A new model from a speech encoder and a causal LM: its config, its adapter, first weights."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from wenet_osum import lookup
from wenet_osum.models.llm import causal, proof
from wenet_osum.models.osum_config import ENCODERS, OsumConfig

ADAPTERS = "wenet_osum.models.adapter"
ADAPTER_INITS = "wenet_osum.models.adapter_init"
# Token embeddings that tell how large those of the LLM are.
SCALE_ROWS = 20_000

Model = TypeVar("Model", bound=PreTrainedModel)


def assemble(
    model_class: type[Model],
    encoder_source: str,
    llm_source: str,
    encoder: str,
    adapter: str,
    adapter_conf: dict[str, Any],
    adapter_init: str | None,
    dtype: torch.dtype,
) -> Model:
    """Make a ``model_class`` of the encoder and the LLM in two folders or under two hub names.

    Raises ValueError for an LLM that does not give the same packed as alone.
    """
    speech = lookup.load(ENCODERS, encoder).read(encoder_source, dtype)
    language = causal.read(llm_source, dtype)
    proof.check_packed(language)
    made = lookup.load(ADAPTERS, adapter).Adapter
    if hasattr(made, "complete_conf"):
        adapter_conf = made.complete_conf(speech.width, adapter_conf)
    config = OsumConfig(
        encoder=speech.config,
        llm=language.config.to_dict(),
        adapter=adapter,
        adapter_conf=adapter_conf,
        losses=[],
        dtype=dtype,
    )

    # The parts are at hand: do not draw their weights first.
    with torch.device("meta"):
        model = model_class(config)
    model.encoder, model.llm = speech, language
    add_new_parts(model, adapter_init, dtype)
    settings = greedy(language.generation_config)
    model.generation_config = language.generation_config = settings
    return model


def add_new_parts(model: PreTrainedModel, adapter_init: str | None, dtype: torch.dtype) -> None:
    """Give a model a new adapter and speech boundary, at the scale of the LLM's own tokens."""
    config, scale = model.config, token_scale(model.llm)
    model.adapter = make_adapter(config, model.encoder.width)
    init_adapter(model.adapter, scale, adapter_init)
    model.adapter.to(dtype)
    model.speech_boundary = nn.Embedding(2, config.llm.hidden_size, dtype=dtype)
    nn.init.normal_(model.speech_boundary.weight, std=scale)
    if config.end_of_text is not None:
        # A border the LLM knows.
        model.set_speech_boundary(config.end_of_text)


@torch.no_grad()
def token_scale(llm: PreTrainedModel) -> float:
    """Return the standard deviation of an LLM's token embeddings."""
    count = min(llm.config.vocab_size, SCALE_ROWS)
    # They are called: those of Gemma are larger than the numbers of their table.
    embeddings = llm.get_input_embeddings()(torch.arange(count))
    return float(embeddings.float().std())


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
    """Make the adapter that ``config`` names, between an encoder of ``width`` channels and the LLM.

    Raises ValueError for arguments that it does not take.
    """
    adapter = lookup.load(ADAPTERS, config.adapter).Adapter
    try:
        return adapter(width, config.llm.hidden_size, **config.adapter_conf)
    except TypeError as error:
        raise ValueError(
            f"adapter_conf {config.adapter_conf} does not fit adapter {config.adapter!r}: {error}"
        ) from None


def init_adapter(adapter: nn.Module, std: float, name: str | None = None) -> None:
    """Set the initial weights of an adapter whose embeddings are to have the standard deviation
    ``std``.

    ``name`` is a file in models/adapter_init; without it the adapter's own method ``initialize`` is
    called, if it has one.
    """
    if name is not None:
        lookup.load(ADAPTER_INITS, name).initialize(adapter, std)
    elif hasattr(adapter, "initialize"):
        adapter.initialize(std)
