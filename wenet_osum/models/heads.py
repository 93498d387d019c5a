"""Numbers of attention heads that fused attention runs."""

from __future__ import annotations

# Channels of a head: flash attention's limit.
LARGEST_HEAD = 256
# Heads of a layer, where they are small enough.
HEADS = 4


def fitting_heads(width: int) -> int:
    """Return 4 heads for a layer of ``width`` channels, or where those would be too large the next
    number that fits: 5 for 1280."""
    for heads in range(HEADS, width + 1):
        if width % heads == 0 and width // heads <= LARGEST_HEAD:
            return heads
    return HEADS
