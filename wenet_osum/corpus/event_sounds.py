"""Short synthesized sounds that resemble vocal events; every parameter varies. They sound like toys and are meant as such.

``make(label, rng)`` gives 16 kHz float32 audio, shape (samples,), peak 1, about 0.2 to 0.5 s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wenet_osum import lookup
from wenet_osum.records import SAMPLE_RATE
from wenet_osum.corpus.mix import band_pass, colored_noise, silence


def make(label: str, rng: np.random.Generator) -> np.ndarray:
    """One sound of the kind ``label``. Raises ValueError with the known kinds for an unknown one."""
    if label not in SOUNDS:
        raise ValueError(lookup.unknown("sound", label, list(SOUNDS)))
    sound = SOUNDS[label](rng)
    return (sound / max(float(np.abs(sound).max()), 1e-8)).astype(np.float32)


def _count(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _curve(points: list[float], count: int) -> np.ndarray:
    """``points`` evenly spread over ``count`` samples, straight lines between."""
    return np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(points)), points)


def _envelope(count: int, attack_s: float, decay_s: float) -> np.ndarray:
    """Rises in ``attack_s``, then falls exponentially, to 0.37 in ``decay_s``."""
    time = np.arange(count) / SAMPLE_RATE
    return np.minimum(time / max(attack_s, 1e-4), 1) * np.exp(-np.maximum(time - attack_s, 0) / decay_s)


def _voiced(pitch_hz: np.ndarray, formants_hz: list[float], width: float = 0.25) -> np.ndarray:
    """A sum of harmonics under a spectrum with broad peaks at ``formants_hz``."""
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    out = np.zeros(len(pitch_hz))
    middle = float(np.median(pitch_hz))
    for n in range(1, int(min(40, 6000 / middle)) + 1):
        gains = [np.exp(-0.5 * (np.log(n * middle / f) / width) ** 2) for f in formants_hz]
        out += (max(gains) + 0.03) / n**0.3 * np.sin(n * phase)
    return out


def _noise(count: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    return band_pass(colored_noise(count, 0.0, rng), low_hz, high_hz)


def _laugh(rng: np.random.Generator) -> np.ndarray:
    """Three to five short vowels, each lower than the one before, a breath at the head of each."""
    pitch, step, parts = rng.uniform(230, 420), rng.uniform(0.10, 0.13), []
    formants = [rng.uniform(700, 950), rng.uniform(1300, 1700)]
    for i in range(rng.integers(3, 5)):
        count = _count(step * 0.62)
        vowel = _voiced(_curve([pitch * 1.1, pitch], count), formants) * np.hanning(count)
        breath = _noise(count, 900, 3500, rng) * _envelope(count, 0.005, 0.015)
        parts += [(vowel + 0.8 * breath) * 0.92**i, silence(step * 0.38)]
        pitch *= rng.uniform(0.90, 0.97)
    return np.concatenate(parts)


def _cough(rng: np.random.Generator) -> np.ndarray:
    """One or two bursts of low noise with a hard onset and a rattling tail."""
    parts = []
    for _ in range(rng.integers(1, 3)):
        count = _count(rng.uniform(0.15, 0.22))
        burst = _noise(count, 150, rng.uniform(1100, 1700), rng) * _envelope(count, 0.003, rng.uniform(0.03, 0.05))
        parts += [burst, silence(rng.uniform(0.02, 0.06))]
    return np.concatenate(parts)


def _cry(rng: np.random.Generator) -> np.ndarray:
    """A wail: the pitch climbs and falls with a slow tremble."""
    count, pitch = _count(rng.uniform(0.38, 0.5)), rng.uniform(420, 560)
    bend = _curve([0.8, 1.25, 1.15, 0.75], count)
    tremble = 1 + 0.05 * np.sin(2 * np.pi * rng.uniform(6, 9) * np.arange(count) / SAMPLE_RATE)
    return _voiced(pitch * bend * tremble, [rng.uniform(900, 1200), 2800], 0.3) * np.hanning(count) ** 0.4


def _scream(rng: np.random.Generator) -> np.ndarray:
    """A high, loud, rough tone that holds."""
    count, pitch = _count(rng.uniform(0.35, 0.48)), rng.uniform(1050, 1500)
    rough = 1 + 0.5 * np.sign(np.sin(2 * np.pi * rng.uniform(60, 90) * np.arange(count) / SAMPLE_RATE))
    tone = _voiced(pitch * _curve([0.85, 1.0, 1.05, 1.0], count), [1400, 3000], 0.5)
    return np.tanh(1.5 * tone * rough) * _envelope(count, 0.03, 2.0) * np.minimum(1, _curve([8, 0], count))


def _sigh(rng: np.random.Generator) -> np.ndarray:
    """A long soft breath that darkens as it fades."""
    count = _count(rng.uniform(0.36, 0.48))
    bright, dark = _noise(count, 1200, rng.uniform(2200, 3000), rng), _noise(count, 400, rng.uniform(800, 1100), rng)
    fade = _curve([1, 0.7, 0], count)
    return (bright * fade + dark * (1 - fade)) * np.hanning(count) ** 0.8


def _throat(rng: np.random.Generator) -> np.ndarray:
    """Two creaks of low pulses, the second longer."""
    parts, pulse_hz = [], rng.uniform(38, 55)
    for seconds in (rng.uniform(0.10, 0.15), rng.uniform(0.18, 0.24)):
        count = _count(seconds)
        phase = np.cumsum(np.full(count, pulse_hz) * (1 + 0.2 * rng.standard_normal(count).cumsum() / 100)) / SAMPLE_RATE
        pulses = np.diff(np.floor(phase), prepend=0.0)
        ring = np.exp(-np.arange(400) / 60) * np.sin(2 * np.pi * rng.uniform(450, 650) / SAMPLE_RATE * np.arange(400))
        parts += [np.convolve(pulses, ring)[:count] * np.hanning(count) ** 0.3, silence(rng.uniform(0.03, 0.05))]
    return np.concatenate(parts)


def _sneeze(rng: np.random.Generator) -> np.ndarray:
    """A breath in that swells, a beat of silence, a sharp hiss and a short vowel."""
    swell = _count(rng.uniform(0.12, 0.16))
    hiss = _count(rng.uniform(0.10, 0.15))
    vowel = _count(rng.uniform(0.10, 0.14))
    pitch = rng.uniform(200, 330)
    return np.concatenate(
        [
            0.25 * _noise(swell, 600, 2500, rng) * np.linspace(0, 1, swell) ** 2,
            silence(0.03),
            _noise(hiss, rng.uniform(2800, 3600), 7500, rng) * _envelope(hiss, 0.004, 0.08),
            0.8 * _voiced(_curve([pitch, pitch * 0.6], vowel), [400, 900]) / 3 * _envelope(vowel, 0.01, 0.06),
        ]
    )


def _other(rng: np.random.Generator) -> np.ndarray:
    """Nothing vocal: a chime of two or three pure tones, up or down."""
    count, pitch, step = rng.integers(2, 4), rng.uniform(500, 800), rng.uniform(1.25, 1.5)
    length = _count(rng.uniform(0.36, 0.48) / count)
    pitches = pitch * step ** np.arange(count)[:: rng.choice([-1, 1])]
    return np.concatenate([np.sin(2 * np.pi * p / SAMPLE_RATE * np.arange(length)) * _envelope(length, 0.003, 0.12) for p in pitches])


SOUNDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "laugh": _laugh,
    "cough": _cough,
    "cry": _cry,
    "screaming": _scream,
    "sigh": _sigh,
    "throat clearing": _throat,
    "sneeze": _sneeze,
    "other": _other,
}
