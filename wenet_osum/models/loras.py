"""Several LoRAs in one model, of which one works at a time.

Their base weights lie in memory once. A folder that training LoRA alone has left brings adapters
and the same base weights again: these are compared, and not loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from wenet_osum.models import lora, unread
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.osum_config import OsumConfig


def add(model: OsumModel, name: str, folder: str) -> None:
    """Put the adapters of a model folder into ``model`` as ``name``.

    Raises ValueError where it has none, and where any other weight, or a setting that says what
    the LLM hears, is not that of ``model``.
    """
    if not isinstance(model, OsumModel):
        raise ValueError("a model without an LLM has no LoRA")
    try:
        found = lora.settings(folder)
    except OSError as error:
        raise ValueError(f"{folder}: {error}") from None
    if found is None:
        raise ValueError(f"{folder} has no LoRA: no {lora.FOLDER}/{lora.CONFIG} in it")
    _check_settings(model.config, OsumConfig.from_pretrained(folder), folder)
    _check_base(model, folder)
    lora.load(model.llm, folder, name=name)


def _check_settings(ours: OsumConfig, theirs: OsumConfig, folder: str) -> None:
    """Raise ValueError for a folder whose LLM was trained to hear something else."""
    pairs = {
        "adapter": (ours.adapter, theirs.adapter),
        "adapter_conf": (_conf_without_dropout(ours), _conf_without_dropout(theirs)),
        "time_marks": (ours.time_marks, theirs.time_marks),
        "encoder_conf.pad_s": (_pad_s(ours), _pad_s(theirs)),
    }
    for name, (own, other) in pairs.items():
        if own != other:
            raise ValueError(
                f"{folder} was trained with {name} {other}, the model has {own}: "
                "speech would be laid out otherwise than its LoRA knows it"
            )


def _conf_without_dropout(config: OsumConfig) -> dict[str, Any]:
    """Return what of ``adapter_conf`` changes what an LLM hears."""
    return {name: value for name, value in config.adapter_conf.items() if name != "dropout"}


def _pad_s(config: OsumConfig) -> float:
    return getattr(config.encoder, "pad_s", 0.0)


def _check_base(model: OsumModel, folder: str) -> None:
    """Raise ValueError for a folder whose weights beside LoRA are not those of ``model``."""
    state = model.state_dict()
    base = lora.base_state(state)
    for key, stored in unread.find(folder).items():
        own = base.get(key)
        if own is None:
            raise ValueError(f"{folder} has {key}, which the model has not")
        theirs = stored.read().to(own.dtype)
        if not torch.equal(theirs, own.cpu()):
            raise ValueError(
                f"{folder} differs from the model in {key}: only what was trained with LoRA alone "
                "from one model can be served together"
            )


def choose(llm: nn.Module, name: str | None) -> None:
    """Let the adapters ``name`` work, and no others; None: none at all."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in llm.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(name is not None)
            if name is not None:
                module.set_adapter(name)


def chosen(llm: nn.Module) -> str | None:
    """Return the name of the adapters that work; None where none do."""
    if not lora.there(llm):
        return None
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in llm.modules():
        if isinstance(module, BaseTunerLayer):
            return None if module.disable_adapters else module.active_adapters[0]
    return None
