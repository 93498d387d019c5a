"""Clipping: the loudest part of the wave is cut flat, whatever its level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Effect:
    """Cuts the wave at a share of its own peak; the level stays."""

    share: tuple[float, float] = (0.2, 0.8)  # of the peak

    def __call__(self, audio: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Audio without its peaks."""
        limit = float(np.abs(audio).max(initial=0)) * float(draw.uniform(*self.share))
        return np.clip(audio, -limit, limit)
