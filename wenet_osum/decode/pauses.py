"""Cut long recordings in the middle of pauses.

A pause is quiet for 0.2 s. What is quiet depends on the recording: a share of its loud parts, or
the floor of its noise.
"""

from __future__ import annotations

import numpy as np

# The grid of the loudness curve, s.
STEP_S = 0.01
# A pause is quiet for this many steps, 0.2 s …
SMOOTH_STEPS = 20
# … by 20 dB against the loud parts around it, the 95th percentile, …
PAUSE_RATIO = 0.01
# … or as quiet as the noise floor, which is the 2nd percentile of stretches of 0.05 s …
NOISE_STEPS = 5
NOISE_PERCENTILE = 2.0
# … with a margin of 2 dB, for noise is not even, …
NOISE_RATIO = 1.6
# … where the floor is 6 dB below the loud parts. Else nobody speaks, or noise covers all.
CONTRAST = 0.25
# The mean square below which everything is a pause: −80 dB of full scale.
SILENCE = 1e-8


def find_cut(audio: np.ndarray, rate: int, latest: int, longest_s: float) -> tuple[int, bool]:
    """Choose where a piece of ``audio`` (samples,) at ``rate`` Hz ends.

    Returns a sample in the second half of ``longest_s`` and not after ``latest``, and whether there
    is a pause: the middle of the longest one, else the last sample that is allowed.
    """
    # The loudness of every 10 ms, and where 0.2 s of it are a pause.
    step = round(STEP_S * rate)
    power = mean_squares(audio, step)
    smooth = moving_mean(power, SMOOTH_STEPS)
    quiet = smooth <= pause_level(power)

    # Only the second half is asked. Element i of ``quiet`` is about the 0.2 s around step i + 10.
    half = SMOOTH_STEPS // 2
    longest = round(longest_s * rate)
    latest = min(longest, latest)
    first = round(longest_s / 2 / STEP_S) - half
    last = latest // step - half
    begin, end = longest_run(quiet[first : last + 1])
    if begin == end:
        return latest, False

    # The middle is the farthest from both words, whose edges noise may hide.
    middle = (begin + end - 1) // 2
    cut = first + middle + half
    return cut * step, True


def voiced_frames(features: np.ndarray) -> np.ndarray:
    """Return which frames of log-mel features (frames, mels) are no pause: (frames,), bool.

    A frame is judged by the 0.05 s around it. Features are on Whisper's scale: a quarter of the
    decimal logarithm of power, plus one (dataset/log_mel.py).
    """
    exact = features.astype(np.float64)
    logs = 4.0 * exact - 4.0
    powers = np.power(10.0, logs)
    power = powers.mean(axis=1)
    if not len(power):
        return np.zeros(0, dtype=bool)
    half = NOISE_STEPS // 2
    padded = np.pad(power, half, mode="edge")
    smooth = moving_mean(padded, NOISE_STEPS)
    return smooth > pause_level(padded)


def mean_squares(audio: np.ndarray, step: int) -> np.ndarray:
    """Return the mean square of every ``step`` samples: (samples,) → (steps,), float64."""
    steps = len(audio) // step
    whole = audio[: steps * step]
    # In double precision, for running sums of these are subtracted from each other.
    whole = whole.astype(np.float64)
    grid = whole.reshape(steps, step)
    return np.square(grid).mean(axis=1)


def pause_level(power: np.ndarray) -> float:
    """Return the mean square at or below which 0.2 s are a pause; ``power`` (steps,) is per 10 ms.

    The loud parts alone do not tell: with steady noise no pause is 20 dB below them. A gap between
    two syllables is not taken for one, as it lasts less than 0.2 s and the floor is measured in
    stretches short enough to fit into it.
    """
    # The recording's own measures: what is loud in it, and the floor of its noise.
    loud = float(np.percentile(power, 95))
    short = moving_mean(power, NOISE_STEPS)
    floor = float(np.percentile(short, NOISE_PERCENTILE))

    far_below_loud = PAUSE_RATIO * loud
    near_floor = NOISE_RATIO * floor
    # A floor near the loud parts is none.
    near_floor = min(near_floor, CONTRAST * loud)
    return max(SILENCE, far_below_loud, near_floor)


def moving_mean(values: np.ndarray, size: int) -> np.ndarray:
    """Return the means of all stretches of ``size`` values: (values,) → (values - size + 1,)."""
    # A stretch's sum is the difference of two running sums.
    running = values.cumsum()
    sums = np.concatenate([[0.0], running])
    totals = sums[size:] - sums[:-size]
    # Rounding may leave a little less than nothing.
    return np.maximum(totals, 0) / size


def longest_run(true: np.ndarray) -> tuple[int, int]:
    """Return (begin, end) of the longest run of True in (n,), or (0, 0) without one."""
    ones = true.astype(np.int8)
    padded = np.concatenate([[0], ones, [0]])
    changes = np.diff(padded)
    edges = np.flatnonzero(changes)
    if not len(edges):
        return 0, 0

    # Every other edge is a begin, and the one after it the end.
    begins = edges[::2]
    ends = edges[1::2]
    lengths = ends - begins
    longest = lengths.argmax()
    return int(begins[longest]), int(ends[longest])
