"""In which precision the parts of a model lie in its folder, frozen ones in bfloat16 beside trained
ones in float32, and in which one autocast computes.

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
    """Bring the parameters and saved buffers of each part to its dtype.

    Buffers that are not saved stay: those of rotary positions need float32.
    """
    saved = model.state_dict(keep_vars=True)
    for name, tensor in saved.items():
        wanted = dtypes.get(_part(name))
        if wanted is None or not tensor.is_floating_point():
            continue
        dtype = getattr(torch, wanted)
        tensor.data = tensor.data.to(dtype)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype that autocast computes in on a device; None where it is off."""
    # The meta device knows no autocast.
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)
