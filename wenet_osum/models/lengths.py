"""Masks from lengths. Lengths stay on the CPU, so that no step waits for the accelerator to learn
them."""

from __future__ import annotations

import torch
from torch import Tensor

from wenet_osum.devices import to_device


def valid_mask(
    lengths: Tensor, size: int, device: torch.device | str = "cpu"
) -> Tensor | None:
    """Return (B, size) bool: True where a row of ``size`` positions holds something.

    None when every row is full: nothing to mask.
    """
    shortest = int(lengths.min())
    if shortest == size:
        return None
    positions = torch.arange(size)
    ends = lengths.cpu()[:, None]
    mask = positions < ends
    return to_device(mask, device)


def key_mask(lengths: Tensor, longest: int, device: torch.device) -> Tensor | None:
    """Return (B, 1, 1, longest) bool, as attention takes it: True for keys that exist.

    None: all of them do.
    """
    mask = valid_mask(lengths, longest, device)
    if mask is None:
        return None
    return mask[:, None, None, :]


def spans(starts: Tensor, lengths: Tensor) -> Tensor:
    """Return the ranges ``start … start + length - 1`` laid end to end, (Σ lengths,) int64."""
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0

    # Each range is a part of 0, 1, 2, …, moved from where it lies there to its start.
    moved = starts - (ends - lengths)
    moved = torch.repeat_interleave(moved, lengths, output_size=total)
    return torch.arange(total) + moved
