"""Several LoRAs in one model, of which one works at a time.

Their base weights lie in memory once. A folder that training LoRA alone has left brings adapters
and the same base weights again: these are compared, and not loaded.
"""

from __future__ import annotations

import torch
from torch import nn

from wenet_osum.models import lora, unread
from wenet_osum.models.osum import OsumModel


def add(model: OsumModel, name: str, folder: str) -> None:
    """Put the adapters of a model folder into ``model`` as ``name``.

    Raises ValueError where it has none, and where any other weight is not that of ``model``.
    """
    if not isinstance(model, OsumModel):
        raise ValueError("a model without an LLM has no LoRA")
    if lora.settings(folder) is None:
        raise ValueError(f"{folder} has no LoRA: no {lora.FOLDER}/{lora.CONFIG} in it")
    _check_base(model, folder)
    lora.load(model.llm, folder, name=name)


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
