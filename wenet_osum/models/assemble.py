"""A new model from a speech encoder and a causal LM: its config, its adapter, first weights."""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from wenet_osum import lookup
from wenet_osum.models import lora, unread
from wenet_osum.models.llm import causal, proof
from wenet_osum.models.osum_config import ENCODERS, OsumConfig

ADAPTERS = "wenet_osum.models.adapter"
ADAPTER_INITS = "wenet_osum.models.adapter_init"
# Rows of the embedding table that its scale is measured on.
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
    weights_later: bool = False,
) -> Model:
    """Make a ``model_class`` of the encoder and the LLM in two folders or under two hub names.

    ``weights_later`` leaves their weights unread where that can be (models/unread.py). Raises
    ValueError for an LLM that does not give the same packed as alone.
    """
    plug_in = lookup.load(ENCODERS, encoder)
    speech, of_speech = open_part(plug_in, encoder_source, dtype, weights_later)
    language, of_language = open_part(causal, llm_source, dtype, weights_later)
    proof.check_packed(language)
    made = lookup.load(ADAPTERS, adapter).Adapter
    if hasattr(made, "complete_conf"):
        adapter_conf = made.complete_conf(speech.width, language.config.hidden_size, adapter_conf)
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
    model.unread = unread.prefixed("encoder", of_speech) | unread.prefixed("llm", of_language)
    add_new_parts(model, adapter_init, dtype)
    settings = greedy(language.generation_config)
    model.generation_config = language.generation_config = settings
    return model


def open_part(
    plug_in: ModuleType, source: str, dtype: torch.dtype, weights_later: bool
) -> tuple[nn.Module, unread.Places]:
    """Open an encoder or an LLM by ``plug_in``, a file of models/encoder or models/llm.

    Returns it and where its unread weights lie; nothing where they have been read.
    """
    if weights_later and hasattr(plug_in, "without_weights"):
        opened = plug_in.without_weights(source)
        if opened is not None:
            return opened
    return plug_in.read(source, dtype), {}


def open_folder(model_class: type[Model], folder: str) -> Model | None:
    """Open a model folder with the weights of encoder and LLM unread, in eval mode and float32.

    None where transformers has to read them.
    """
    config = OsumConfig.from_pretrained(folder)
    config.part_dtypes = {}
    config.dtype = torch.float32
    config._name_or_path = folder
    with torch.device("meta"):
        model = model_class(config)
    where = unread.places(model, unread.find(folder))
    if where is None:
        return None
    unread.fill_buffers(model, where)
    model.unread = where
    for part, _ in model.named_children():
        if part not in ("encoder", "llm"):
            unread.read(model, part=part)

    with contextlib.suppress(OSError):
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.llm.generation_config = model.generation_config
    model.lora = lora.load(model.llm, folder)
    return model.eval()


def add_new_parts(model: PreTrainedModel, adapter_init: str | None, dtype: torch.dtype) -> None:
    """Give a model a new adapter and speech boundary, at the scale of the LLM's own tokens."""
    config, scale = model.config, token_scale(model)
    model.adapter = make_adapter(config, model.encoder.width)
    init_adapter(model.adapter, scale, adapter_init)
    model.adapter.to(dtype)
    model.speech_boundary = nn.Embedding(2, config.llm.hidden_size, dtype=dtype)
    nn.init.normal_(model.speech_boundary.weight, std=scale)
    if config.end_of_text is not None:
        # Start from an embedding that the LLM was trained with.
        model.set_speech_boundary(config.end_of_text)


@torch.no_grad()
def token_scale(model: PreTrainedModel) -> float:
    """Return the standard deviation of the token embeddings of the model's LLM."""
    count = min(model.config.llm.vocab_size, SCALE_ROWS)
    embeddings = unread.token_embeddings(model, 0, count)
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
