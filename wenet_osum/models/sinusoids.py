"""Positions as sinusoids."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


def positions(length: int, width: int, device: torch.device) -> Tensor:
    """Sinusoid positions (length, width), sine in even and cosine in odd channels (Vaswani et al., 2017). Computed, not stored:

    a non-persistent buffer would come back as garbage from a model built on the meta device.
    """
    return _table(-(-length // 512) * 512, width, str(device))[:length]


def waves(positions: Tensor, width: int, fastest: float = 1.0, slowest: float = 1e-4) -> Tensor:
    """Sinusoids (…, width) of real-valued ``positions`` (…), turning by ``fastest`` down to almost ``slowest`` radians a place."""
    powers = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    angles = positions.float()[..., None] * (fastest * torch.exp(powers * math.log(slowest / fastest)))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


@functools.lru_cache(maxsize=8)
def _table(length: int, width: int, device: str) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return waves(torch.arange(length, device=device), width)
