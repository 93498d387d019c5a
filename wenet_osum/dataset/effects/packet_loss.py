"""Lost packets, as on a poor connection: stretches of 20 ms are silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PACKET = 320  # samples, 20 ms


@dataclass(frozen=True)
class Effect:
    """Silences a share of the packets; losses come in runs."""

    share: tuple[float, float] = (0.02, 0.15)  # of packets lost
    run: float = 2.0  # packets lost in a row, on average

    def __call__(self, audio: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Audio with holes."""
        packets, share = -(-len(audio) // PACKET), float(draw.uniform(*self.share))
        lost = np.zeros(packets, bool)
        stays, starts = 1 - 1 / max(self.run, 1.0), share / max(self.run, 1.0) / max(1 - share, 1e-6)
        chances = draw.random(packets)
        for i in range(packets):  # a chain of two states, after Gilbert
            lost[i] = chances[i] < (stays if i and lost[i - 1] else starts)
        return np.where(np.repeat(lost, PACKET)[: len(audio)], np.float32(0), audio)
