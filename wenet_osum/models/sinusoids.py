"""Positions as sinusoids."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

# Places of a table are a multiple of it, so that few tables are made.
STEP = 512


def positions(length: int, width: int, device: torch.device) -> Tensor:
    """Return sinusoid positions (length, width), sine in even and cosine in odd channels (Vaswani
    et al., 2017).

    Computed, not stored: a non-persistent buffer would come back as garbage from a model built on
    the meta device.
    """
    steps = math.ceil(length / STEP)
    rounded = steps * STEP
    table = _table(rounded, width, str(device))
    return table[:length]


def waves(positions: Tensor, width: int, fastest: float = 1.0, slowest: float = 1e-4) -> Tensor:
    """Return sinusoids (…, width) of real-valued ``positions`` (…), turning by ``fastest`` down to
    almost ``slowest`` radians a place."""
    device = positions.device
    channels = torch.arange(0, width, 2, dtype=torch.float32, device=device)

    # How far each pair of channels turns a place, falling evenly in the logarithm.
    powers = channels / width
    range_log = math.log(slowest / fastest)
    turns = fastest * torch.exp(powers * range_log)

    # (…, width / 2), then sine and cosine of each beside each other.
    places = positions.float()
    angles = places[..., None] * turns
    sine = angles.sin()
    cosine = angles.cos()
    pairs = torch.stack([sine, cosine], dim=-1)
    return pairs.flatten(-2)


@functools.lru_cache(maxsize=8)
def _table(length: int, width: int, device: str) -> Tensor:
    # Whoever asks first may be in inference mode, those after it in training.
    with torch.inference_mode(False), torch.no_grad():
        places = torch.arange(length, device=device)
        return waves(places, width)
