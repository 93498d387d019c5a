"""A narrow band, as a telephone line or a cheap microphone lets through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wenet_osum.corpus import mix


@dataclass(frozen=True)
class Effect:
    """Keeps what lies between two frequencies."""

    low_hz: tuple[float, float] = (200.0, 400.0)
    high_hz: tuple[float, float] = (3000.0, 3800.0)

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return audio within the band."""
        low_hz = rng.uniform(*self.low_hz)
        # each end by itself: lines differ in both
        high_hz = rng.uniform(*self.high_hz)
        return mix.band_pass(audio, low_hz, high_hz)
