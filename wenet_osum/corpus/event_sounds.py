"""Short synthesized sounds that resemble vocal events; every parameter varies.

They sound like toys and are meant as such. ``make(label, rng)`` gives 16 kHz float32 audio, shape
(samples,), peak 1, about 0.2 to 0.5 s. The order of the draws decides how a seed sounds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wenet_osum import lookup
from wenet_osum.corpus.mix import band_pass, colored_noise, silence
from wenet_osum.records import SAMPLE_RATE


def make(label: str, rng: np.random.Generator) -> np.ndarray:
    """Make one sound of the kind ``label``.

    Raises ValueError with the known kinds for an unknown one.
    """
    if label not in SOUNDS:
        known = list(SOUNDS)
        raise ValueError(lookup.unknown("sound", label, known))
    make_sound = SOUNDS[label]
    sound = make_sound(rng)
    level = np.abs(sound)
    peak = float(level.max())
    scaled = sound / max(peak, 1e-8)
    return scaled.astype(np.float32)


def _count(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def _draw_count(rng: np.random.Generator, low_s: float, high_s: float) -> int:
    """Draw a length between two lengths, in samples."""
    seconds = rng.uniform(low_s, high_s)
    return _count(seconds)


def _draw_silence(rng: np.random.Generator, low_s: float, high_s: float) -> np.ndarray:
    seconds = rng.uniform(low_s, high_s)
    return silence(seconds)


def _sine(frequency_hz: float, count: int) -> np.ndarray:
    """Make a pure tone of ``count`` samples, peak 1."""
    time = np.arange(count)
    phase = 2 * np.pi * frequency_hz * time
    return np.sin(phase / SAMPLE_RATE)


def _ring(frequency_hz: float, count: int) -> np.ndarray:
    """Make a pure tone from its angle per sample, peak 1."""
    angle = 2 * np.pi * frequency_hz
    angle = angle / SAMPLE_RATE
    time = np.arange(count)
    return np.sin(angle * time)


def _curve(points: list[float], count: int) -> np.ndarray:
    """Spread ``points`` evenly over ``count`` samples, with straight lines between them."""
    positions = np.linspace(0, 1, len(points))
    wanted = np.linspace(0, 1, count)
    return np.interp(wanted, positions, points)


def _bell(count: int, power: float) -> np.ndarray:
    """Make a Hann window; a small ``power`` makes it rise and fall fast."""
    window = np.hanning(count)
    return window**power


def _envelope(count: int, attack_s: float, decay_s: float) -> np.ndarray:
    """Rise in ``attack_s``, then fall exponentially, to 0.37 in ``decay_s``."""
    time = np.arange(count)
    time = time / SAMPLE_RATE

    rise = time / max(attack_s, 1e-4)
    rise = np.minimum(rise, 1)

    after_attack = np.maximum(time - attack_s, 0)
    fall = np.exp(-after_attack / decay_s)
    return rise * fall


def _voiced(pitch_hz: np.ndarray, formants_hz: list[float], width: float = 0.25) -> np.ndarray:
    """Sum harmonics under a spectrum with broad peaks at ``formants_hz``.

    ``pitch_hz`` is (samples,); ``width`` is that of a peak, in natural logarithms of the frequency.
    """
    turns = np.cumsum(pitch_hz)
    phase = 2 * np.pi * turns
    phase = phase / SAMPLE_RATE
    out = np.zeros(len(pitch_hz))

    # Harmonics above 6 kHz add nothing that is heard.
    middle = float(np.median(pitch_hz))
    highest = int(min(40, 6000 / middle))
    for n in range(1, highest + 1):
        # The nearest formant decides how loud a harmonic is.
        gains = []
        for formant in formants_hz:
            distance = np.log(n * middle / formant)
            distance = distance / width
            gains.append(np.exp(-0.5 * distance**2))
        gain = max(gains) + 0.03
        gain = gain / n**0.3
        out += gain * np.sin(n * phase)
    return out


def _noise(count: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Make noise between two frequencies."""
    white = colored_noise(count, 0.0, rng)
    return band_pass(white, low_hz, high_hz)


def _laugh(rng: np.random.Generator) -> np.ndarray:
    """Make three or four short vowels, each lower than the one before, each begun with a breath."""
    pitch = rng.uniform(230, 420)
    step = rng.uniform(0.10, 0.13)
    formants = [
        rng.uniform(700, 950),
        rng.uniform(1300, 1700),
    ]
    parts = []
    count = _count(step * 0.62)
    for i in range(rng.integers(3, 5)):
        # A vowel whose pitch falls.
        fall = _curve([pitch * 1.1, pitch], count)
        vowel = _voiced(fall, formants)
        vowel = vowel * np.hanning(count)

        # A puff of breath at its head.
        breath = _noise(count, 900, 3500, rng)
        breath = breath * _envelope(count, 0.005, 0.015)

        loudness = 0.92**i
        syllable = (vowel + 0.8 * breath) * loudness
        pause = silence(step * 0.38)
        parts += [syllable, pause]
        pitch *= rng.uniform(0.90, 0.97)
    return np.concatenate(parts)


def _cough(rng: np.random.Generator) -> np.ndarray:
    """Make one or two bursts of low noise with a hard onset and a rattling tail."""
    parts = []
    bursts = rng.integers(1, 3)
    for _ in range(bursts):
        count = _draw_count(rng, 0.15, 0.22)
        high_hz = rng.uniform(1100, 1700)
        noise = _noise(count, 150, high_hz, rng)
        decay_s = rng.uniform(0.03, 0.05)
        burst = noise * _envelope(count, 0.003, decay_s)
        pause = _draw_silence(rng, 0.02, 0.06)
        parts += [burst, pause]
    return np.concatenate(parts)


def _cry(rng: np.random.Generator) -> np.ndarray:
    """Make a wail: the pitch climbs and falls with a slow tremble."""
    count = _draw_count(rng, 0.38, 0.5)
    pitch = rng.uniform(420, 560)
    bend = _curve([0.8, 1.25, 1.15, 0.75], count)

    tremble_hz = rng.uniform(6, 9)
    tremble = 1 + 0.05 * _sine(tremble_hz, count)

    first_formant = rng.uniform(900, 1200)
    formants = [first_formant, 2800]
    pitch_hz = pitch * bend * tremble
    wail = _voiced(pitch_hz, formants, 0.3)
    return wail * _bell(count, 0.4)


def _scream(rng: np.random.Generator) -> np.ndarray:
    """Make a high, loud, rough tone that holds."""
    count = _draw_count(rng, 0.35, 0.48)
    pitch = rng.uniform(1050, 1500)

    # The roughness switches the tone between soft and loud many times per second.
    rough_hz = rng.uniform(60, 90)
    switch = np.sign(_sine(rough_hz, count))
    rough = 1 + 0.5 * switch

    bend = _curve([0.85, 1.0, 1.05, 1.0], count)
    tone = _voiced(pitch * bend, [1400, 3000], 0.5)
    loud = np.tanh(1.5 * tone * rough)

    # It holds to the last eighth of its length.
    fade = _curve([8, 0], count)
    fade = np.minimum(1, fade)
    attack = _envelope(count, 0.03, 2.0)
    return loud * attack * fade


def _sigh(rng: np.random.Generator) -> np.ndarray:
    """Make a long soft breath that darkens as it fades."""
    count = _draw_count(rng, 0.36, 0.48)
    bright_hz = rng.uniform(2200, 3000)
    bright = _noise(count, 1200, bright_hz, rng)
    dark_hz = rng.uniform(800, 1100)
    dark = _noise(count, 400, dark_hz, rng)

    # One passes into the other.
    fade = _curve([1, 0.7, 0], count)
    bright = bright * fade
    dark = dark * (1 - fade)
    breath = bright + dark
    return breath * _bell(count, 0.8)


def _throat(rng: np.random.Generator) -> np.ndarray:
    """Make two creaks of low pulses, the second longer."""
    pulse_hz = rng.uniform(38, 55)
    counts = [
        _draw_count(rng, 0.10, 0.15),
        _draw_count(rng, 0.18, 0.24),
    ]
    parts = []
    for count in counts:
        # A pulse stands wherever the phase, whose rate drifts, passes a whole turn.
        steps = rng.standard_normal(count)
        drift = 0.2 * steps.cumsum() / 100
        rates_hz = np.full(count, pulse_hz)
        rates_hz = rates_hz * (1 + drift)
        phase = np.cumsum(rates_hz) / SAMPLE_RATE
        turns = np.floor(phase)
        pulses = np.diff(turns, prepend=0.0)

        # Each pulse rings for 25 ms.
        decay = np.exp(-np.arange(400) / 60)
        ring_hz = rng.uniform(450, 650)
        ring = decay * _ring(ring_hz, 400)
        creak = np.convolve(pulses, ring)
        creak = creak[:count] * _bell(count, 0.3)

        pause = _draw_silence(rng, 0.03, 0.05)
        parts += [creak, pause]
    return np.concatenate(parts)


def _sneeze(rng: np.random.Generator) -> np.ndarray:
    """Make a breath in that swells, a beat of silence, a sharp hiss and a short vowel."""
    swell_count = _draw_count(rng, 0.12, 0.16)
    hiss_count = _draw_count(rng, 0.10, 0.15)
    vowel_count = _draw_count(rng, 0.10, 0.14)
    pitch = rng.uniform(200, 330)

    # The breath in.
    noise = _noise(swell_count, 600, 2500, rng)
    rise = np.linspace(0, 1, swell_count)
    rise = rise**2
    swell = 0.25 * noise * rise

    # The hiss, as sudden as it is short.
    low_hz = rng.uniform(2800, 3600)
    noise = _noise(hiss_count, low_hz, 7500, rng)
    hiss = noise * _envelope(hiss_count, 0.004, 0.08)

    # The vowel after it.
    fall = _curve([pitch, pitch * 0.6], vowel_count)
    voice = 0.8 * _voiced(fall, [400, 900])
    vowel = voice / 3 * _envelope(vowel_count, 0.01, 0.06)

    beat = silence(0.03)
    return np.concatenate([swell, beat, hiss, vowel])


def _other(rng: np.random.Generator) -> np.ndarray:
    """Make nothing vocal: a chime of two or three pure tones, up or down."""
    count = rng.integers(2, 4)
    pitch = rng.uniform(500, 800)
    step = rng.uniform(1.25, 1.5)
    seconds = rng.uniform(0.36, 0.48)
    length = _count(seconds / count)
    direction = rng.choice([-1, 1])

    powers = np.arange(count)[::direction]
    pitches = pitch * step**powers
    envelope = _envelope(length, 0.003, 0.12)
    tones = []
    for pitch_hz in pitches:
        tone = _ring(pitch_hz, length)
        tones.append(tone * envelope)
    return np.concatenate(tones)


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
