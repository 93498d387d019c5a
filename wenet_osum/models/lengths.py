"""Masks from lengths. Lengths stay on the CPU, so that no step waits for the accelerator to learn them."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, size: int, device: torch.device | str = "cpu") -> Tensor | None:
    """True where a row of ``size`` positions holds something: (B, size) bool. None when every row is full: nothing to mask."""
    if int(lengths.min()) == size:
        return None
    return (torch.arange(size) < lengths.cpu()[:, None]).to(device, non_blocking=True)


def spans(starts: Tensor, lengths: Tensor) -> Tensor:
    """The ranges ``start … start + length - 1`` laid end to end, (Σ lengths,) int64."""
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total) + torch.repeat_interleave(starts - ends + lengths, lengths, output_size=total)
