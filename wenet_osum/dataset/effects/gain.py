"""Level: louder or softer, and cut off where it passes full scale, as a recorder set too high does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Effect:
    """Changes the level; what lies beyond ``ceiling`` afterwards is clipped."""

    gain_db: tuple[float, float] = (-15.0, 15.0)  # dB
    ceiling: float = 1.0  # of full scale

    def __call__(self, audio: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Louder or softer audio."""
        gain = np.float32(10 ** (draw.uniform(*self.gain_db) / 20))
        return np.clip(audio * gain, -self.ceiling, self.ceiling)
