"""Moments and spans of time as sinusoids, with which frames and tokens carry times in small
models."""

from __future__ import annotations

from torch import Tensor

from wenet_osum.models.sinusoids import waves

# In radians per frame of 80 ms.
FASTEST = 2.0
SLOWEST = 0.015


def time_waves(times: Tensor, width: int) -> Tensor:
    """Encode ``times`` (…) of an utterance, in frames, as sinusoids (…, width).

    One turn takes from a quarter of a second to half a minute.
    """
    return waves(times, width, FASTEST, SLOWEST)


def span_waves(spans: Tensor, width: int) -> Tensor:
    """Encode ``spans`` (…, 2), start and end in frames, as sinusoids (…, width).

    Half of the channels encode the start, the other half the end. Raises ValueError for a width
    that is no multiple of 4.
    """
    if width % 4:
        raise ValueError(
            f"width {width} must be a multiple of 4 to tell start and end by sines and cosines; "
            "change llm.width"
        )
    half = width // 2
    waves = time_waves(spans, half)
    return waves.flatten(-2)
