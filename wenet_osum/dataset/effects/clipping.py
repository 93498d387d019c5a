"""Clipping: the loudest part of the wave is cut flat, whatever its level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Effect:
    """Cuts the wave at a share of its own peak; the level stays."""

    share: tuple[float, float] = (0.2, 0.8)  # of the peak

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return audio without its peaks."""
        magnitudes = np.abs(audio)
        # nothing at all has no peak
        peak = float(magnitudes.max(initial=0))
        share = rng.uniform(*self.share)
        limit = peak * share
        return np.clip(audio, -limit, limit)
