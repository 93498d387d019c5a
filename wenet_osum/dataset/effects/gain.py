"""Level: louder or softer, and cut off where it passes full scale.

So does a recorder that is set too high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Effect:
    """Changes the level; what lies beyond ``ceiling`` afterwards is clipped."""

    gain_db: tuple[float, float] = (-15.0, 15.0)  # dB
    ceiling: float = 1.0  # of full scale

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return louder or softer audio."""
        gain_db = rng.uniform(*self.gain_db)
        factor = 10 ** (gain_db / 20)
        changed = audio * np.float32(factor)

        ceiling = self.ceiling
        # also when the level falls: the audio may have been louder than full scale
        return np.clip(changed, -ceiling, ceiling)
