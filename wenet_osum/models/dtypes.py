"""In which precision the parts of a model lie in its folder: frozen ones in bfloat16 beside trained
ones in float32.

transformers keeps one dtype for a whole model. Ours is kept a part in ``part_dtypes`` of
config.json, so that loading "as saved" neither doubles a frozen LLM nor rounds a trained adapter.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def of_parts(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of the dtype of each part, the first word of the names in ``state``; of several dtypes
    the one that holds them all.
    """
    found: dict[str, torch.dtype] = {}
    for name, tensor in state.items():
        part = name.split(".", 1)[0]
        if tensor.is_floating_point():
            found[part] = torch.promote_types(found.get(part, tensor.dtype), tensor.dtype)
    return {part: str(dtype).removeprefix("torch.") for part, dtype in found.items()}


def widest(dtypes: Mapping[str, str]) -> torch.dtype:
    """The dtype that holds all of ``dtypes`` (names, at least one) without rounding."""
    first, *others = (getattr(torch, name) for name in dtypes.values())
    for dtype in others:
        first = torch.promote_types(first, dtype)
    return first


def apply(model: nn.Module, dtypes: Mapping[str, str]) -> None:
    """Bring the parameters of each part to its dtype. Buffers stay: those of rotary positions need
    float32.
    """
    for name, parameter in model.named_parameters():
        wanted = dtypes.get(name.split(".", 1)[0])
        if wanted is not None and parameter.is_floating_point():
            parameter.data = parameter.data.to(getattr(torch, wanted))
