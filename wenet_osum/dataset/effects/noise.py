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
    # recordings, a path per line; None: synthesized noise
    list: str | None = None
    # of synthesized noise: power falls with frequency to this exponent, 0 white, 1 pink, 2 brown
    color: tuple[float, float] = (0.0, 2.0)

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return audio plus noise."""
        if self.list:
            return augment.add_noise(
                audio,
                self.list,
                self.snr_db,
                rng,
            )
        color = rng.uniform(*self.color)
        noise = mix.colored_noise(len(audio), color, rng)
        snr_db = rng.uniform(*self.snr_db)
        return mix.add_noise(audio, noise, snr_db)
