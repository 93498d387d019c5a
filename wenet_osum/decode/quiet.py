"""Whether the sound of a stream is silent now, and since when, by the measures of pauses.py."""

from __future__ import annotations

import numpy as np

from wenet_osum.decode.pauses import (
    NOISE_STEPS,
    SMOOTH_STEPS,
    STEP_S,
    mean_squares,
    moving_mean,
    pause_level,
)

# How much of the stream says what is loud in it, s.
REMEMBERED_S = 30.0


class Quiet:
    """Tells silence in the window of a stream at ``rate`` Hz by what came before it as well."""

    def __init__(self, rate: int) -> None:
        self.step = round(STEP_S * rate)
        # The mean squares of what is no longer in the window, per 10 ms.
        self.past = np.zeros(0)

    def remember(self, samples: np.ndarray) -> None:
        """Keep the loudness of ``samples`` (samples,), which leave the window."""
        power = mean_squares(samples, self.step)
        past = np.concatenate([self.past, power])
        steps = round(REMEMBERED_S / STEP_S)
        self.past = past[-steps:]

    def look(self, window: np.ndarray) -> tuple[bool, float]:
        """Return whether all of the window is silent, and for how many seconds its end is."""
        power = mean_squares(window, self.step)
        heard = np.concatenate([self.past, power])
        steps = len(power)
        if not steps or len(heard) < NOISE_STEPS:
            return not steps, 0.0
        level = pause_level(heard)

        # Where there is less than a pause, every 10 ms is asked.
        if steps < SMOOTH_STEPS:
            quiet = power <= level
            return bool(quiet.all()), 0.0
        quiet = moving_mean(power, SMOOTH_STEPS) <= level
        if quiet.all():
            return True, steps * STEP_S

        # Element i of ``quiet`` is about the 0.2 s from step i on.
        loud = np.flatnonzero(~quiet)
        run = len(quiet) - 1 - int(loud[-1])
        if not run:
            return False, 0.0
        paused = run + SMOOTH_STEPS - 1
        return False, paused * STEP_S
