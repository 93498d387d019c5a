"""Reverberation: measured room impulse responses of a list, or synthesized rooms.

A synthesized room is noise that dies away exponentially.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wenet_osum.corpus import mix
from wenet_osum.dataset import augment


@dataclass(frozen=True)
class Effect:
    """Puts the speech into a room; the direct sound stays in place and the level as it was."""

    # impulse responses, a path per line; None: synthesized rooms
    list: str | None = None
    # of synthesized rooms: time in which the sound falls by 60 dB, s
    decay_s: tuple[float, float] = (0.2, 0.8)
    # of synthesized rooms: energy of the tail over that of the direct sound, as amplitudes
    wet: tuple[float, float] = (0.3, 1.0)

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return audio in a room."""
        if self.list:
            return augment.reverberate(audio, self.list, rng)

        decay_s = rng.uniform(*self.decay_s)
        response = mix.impulse_response(decay_s, rng)
        share = rng.uniform(*self.wet)
        wet = mix.reverberate(audio, response, share)

        # as loud as before; silence stays silence
        before = mix.rms(audio)
        after = max(mix.rms(wet), 1e-8)
        scaled = wet * (before / after)
        return scaled.astype(np.float32)
