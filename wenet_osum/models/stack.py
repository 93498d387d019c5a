"""Neighboring states as one longer vector: how adapters lower a rate without weights.

Letters: B utterances, N states of the longest, D width, S = ceil(N / factor) groups.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from wenet_osum.models.lengths import valid_mask


def check_factor(name: str, factor: Any) -> None:
    """Raise ValueError unless ``factor``, the key ``name`` of adapter_conf, can be one."""
    if not isinstance(factor, int) or factor < 1:
        raise ValueError(
            f"adapter_conf: {name} {factor!r} must be a whole number of 1 or more, "
            "the encoder states of one embedding"
        )


def stacked_lengths(lengths: Tensor, factor: int) -> Tensor:
    """Count the groups of ``lengths`` states: a last one that is not full counts as well."""
    rounded_up = lengths + factor - 1
    return rounded_up // factor


def stack(states: Tensor, lengths: Tensor, factor: int) -> Tensor:
    """Stack ``factor`` states (B, N, D) each to (B, S, factor · D), where zeros fill up the last
    group of an utterance. ``lengths`` (B,) count its states."""
    rows, longest, width = states.shape
    mask = valid_mask(lengths, longest, states.device)
    if mask is not None:
        # Whatever lies behind an utterance must not get into its last group.
        behind = ~mask[..., None]
        states = states.masked_fill(behind, 0.0)

    # The last group is filled up, and the states of each group become one.
    missing = -longest % factor
    states = functional.pad(states, (0, 0, 0, missing))
    stacked = factor * width
    return states.reshape(rows, -1, stacked)
