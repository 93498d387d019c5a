"""Background noise: recordings of a list, or synthesized noise between white and brown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wenet_osum.corpus import mix
from wenet_osum.dataset import augment


@dataclass(frozen=True)
class Effect:
    """Adds noise at a signal-to-noise ratio."""

    snr_db: tuple[float, float] = (5.0, 25.0)  # dB
    list: str | None = None  # recordings, a path a line; None: synthesized noise
    color: tuple[float, float] = (0.0, 2.0)  # of synthesized noise: power falls with frequency to this exponent, 0 white, 1 pink, 2 brown

    def __call__(self, audio: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Audio plus noise."""
        if self.list:
            return augment.add_noise(audio, self.list, self.snr_db, draw)
        noise = mix.colored_noise(len(audio), draw.uniform(*self.color), draw)
        return mix.add_noise(audio, noise, draw.uniform(*self.snr_db))
