"""Reverberation: measured room impulse responses of a list, or a room of noise whose sound dies away exponentially."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wenet_osum.corpus import mix
from wenet_osum.dataset import augment


@dataclass(frozen=True)
class Effect:
    """Puts the speech into a room; the direct sound stays in place and the level as it was."""

    list: str | None = None  # impulse responses, a path a line; None: synthesized rooms
    decay_s: tuple[float, float] = (0.2, 0.8)  # of synthesized rooms: time in which the sound falls by 60 dB, s
    wet: tuple[float, float] = (0.3, 1.0)  # of synthesized rooms: energy of the tail over that of the direct sound, as amplitudes

    def __call__(self, audio: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Audio in a room."""
        if self.list:
            return augment.reverberate(audio, self.list, draw)
        response = mix.impulse_response(float(draw.uniform(*self.decay_s)), draw)
        wet = mix.reverberate(audio, response, float(draw.uniform(*self.wet)))
        return (wet * (mix.rms(audio) / max(mix.rms(wet), 1e-8))).astype(np.float32)
