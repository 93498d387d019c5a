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

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return audio with holes."""
        packets = -(-len(audio) // PACKET)
        share = rng.uniform(*self.share)
        chances = rng.random(packets)

        # the last packet may not be full
        lost = self._lost(chances, share)
        silent = np.repeat(lost, PACKET)
        silent = silent[: len(audio)]
        return np.where(silent, np.float32(0), audio)

    def _lost(self, chances: np.ndarray, share: float) -> np.ndarray:
        """Say which packets are lost, given a number from 0 to 1 for each."""
        # A chain of two states, after Gilbert, 1960. What follows a lost packet is lost, too, so
        # often that a run is as long as it should be; what follows another, so often that the
        # share comes out.
        run = max(self.run, 1.0)
        stays = 1 - 1 / run
        kept = max(1 - share, 1e-6)
        begins = share / run / kept

        lost = np.zeros(len(chances), bool)
        before = False
        for place, chance in enumerate(chances):
            limit = stays if before else begins
            before = chance < limit
            lost[place] = before
        return lost
