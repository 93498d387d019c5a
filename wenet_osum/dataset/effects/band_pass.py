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

    def __call__(self, audio: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Audio within the band."""
        return mix.band_pass(audio, float(draw.uniform(*self.low_hz)), float(draw.uniform(*self.high_hz)))
