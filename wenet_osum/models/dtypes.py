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
    """Name the dtype of each part, the first word of the names in ``state``; of several dtypes the
    one that holds them all."""
    found: dict[str, torch.dtype] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        part = _part(name)
        before = found.get(part, tensor.dtype)
        found[part] = torch.promote_types(before, tensor.dtype)
    names = {}
    for part, dtype in found.items():
        name = str(dtype)
        names[part] = name.removeprefix("torch.")
    return names


def _part(name: str) -> str:
    """Return the part that a tensor belongs to."""
    part, _, _ = name.partition(".")
    return part


def widest(dtypes: Mapping[str, str]) -> torch.dtype:
    """Return the dtype that holds all of ``dtypes`` (names, at least one) without rounding."""
    first, *others = dtypes.values()
    found = getattr(torch, first)
    for name in others:
        dtype = getattr(torch, name)
        found = torch.promote_types(found, dtype)
    return found


def apply(model: nn.Module, dtypes: Mapping[str, str]) -> None:
    """Bring the parameters of each part to its dtype.

    Buffers stay: those of rotary positions need float32.
    """
    for name, parameter in model.named_parameters():
        wanted = dtypes.get(_part(name))
        if wanted is None or not parameter.is_floating_point():
            continue
        dtype = getattr(torch, wanted)
        parameter.data = parameter.data.to(dtype)
