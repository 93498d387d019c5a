"""Recordings put together: joined, warped, filtered, made noisy or reverberant, with word times that stay true.

Audio is 16 kHz mono float32, shape (samples,); times are seconds. Whatever is random is drawn from a numpy Generator.
"""

from __future__ import annotations

import numpy as np

from wenet_osum.records import SAMPLE_RATE, Word


def silence(seconds: float) -> np.ndarray:
    """Zeros, at least none."""
    return np.zeros(max(0, round(seconds * SAMPLE_RATE)), np.float32)


def shift_words(words: list[Word], seconds: float) -> list[Word]:
    """The words later by ``seconds``."""
    return [Word(w.text, w.start + seconds, w.end + seconds) for w in words]


def join(pieces: list[np.ndarray], pauses_s: list[float]) -> tuple[np.ndarray, list[float]]:
    """Pieces one after another with a pause before each and one after the last; gives the audio and where each piece begins, s.

    Raises ValueError when there is not one pause more than pieces.
    """
    if len(pauses_s) != len(pieces) + 1:
        raise ValueError(f"{len(pieces)} pieces need {len(pieces) + 1} pauses (before each and after the last), got {len(pauses_s)}")
    parts, begins = [silence(pauses_s[0])], []
    for piece, pause in zip(pieces, pauses_s[1:], strict=True):
        begins.append(sum(map(len, parts)) / SAMPLE_RATE)
        parts += [piece.astype(np.float32), silence(pause)]
    return np.concatenate(parts), begins


def resample(audio: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Band-limited change of the sampling rate by any ratio, through the Fourier transform of the padded signal."""
    if round(from_hz) == round(to_hz):
        return audio.astype(np.float32)
    lengths = _even_length(len(audio) + 256) + 8 * np.arange(512)  # room, so that the ends do not wrap into each other
    counts = lengths * to_hz / from_hz
    best = int(np.argmin(np.abs(counts - np.round(counts))))  # the length whose rounding stretches least
    padded, count = int(lengths[best]), round(counts[best])
    spectrum = np.fft.rfft(audio, padded)
    bins = count // 2 + 1
    spectrum = spectrum[:bins] if bins <= len(spectrum) else np.pad(spectrum, (0, bins - len(spectrum)))
    out = np.fft.irfft(spectrum, count) * (count / padded)
    return out[: round(len(audio) * to_hz / from_hz)].astype(np.float32)


def _even_length(count: int) -> int:
    """A length the FFT is quick at, not below ``count``."""
    return -(-count // 1024) * 1024


def rms(audio: np.ndarray) -> float:
    """Root mean square of the part within 40 dB of the loudest sample's 20 ms block; 0 for silence."""
    blocks = audio[: len(audio) // 320 * 320].reshape(-1, 320) if len(audio) >= 320 else audio.reshape(1, -1)
    power = (blocks.astype(np.float64) ** 2).mean(1) if blocks.size else np.zeros(1)
    return float(np.sqrt(power[power >= power.max() * 1e-4].mean()))


def set_level(audio: np.ndarray, level_db: float, peak: float = 0.98) -> np.ndarray:
    """Scale speech to ``level_db`` below full scale (RMS), less where a sample would pass ``peak``."""
    gain = 10 ** (level_db / 20) / max(rms(audio), 1e-8)
    return (audio * min(gain, peak / max(float(np.abs(audio).max(initial=0)), 1e-8))).astype(np.float32)


def colored_noise(count: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with frequency to the ``exponent``: 0 white, 1 pink, 2 brown; RMS 1."""
    frequencies = np.fft.rfftfreq(_even_length(count + 1), 1 / SAMPLE_RATE)
    shape = np.maximum(frequencies, 20.0) ** (-exponent / 2)
    phases = rng.uniform(0, 2 * np.pi, len(shape))
    noise = np.fft.irfft(shape * np.exp(1j * phases))[:count]
    return (noise / max(float(np.sqrt((noise**2).sum() / max(count, 1))), 1e-12)).astype(np.float32)


def add_noise(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech plus noise, repeated or cut to its length, at a signal-to-noise ratio in dB. Raises ValueError for empty noise."""
    if len(noise) == 0:
        raise ValueError("noise is empty; give a recording of at least one sample")
    noise = np.resize(noise, len(speech))
    gain = rms(speech) / max(float(np.sqrt((noise.astype(np.float64) ** 2).mean())), 1e-8) * 10 ** (-snr_db / 20)
    return (speech + gain * noise).astype(np.float32)


def band_pass(audio: np.ndarray, low_hz: float, high_hz: float, order: int = 4) -> np.ndarray:
    """Zero-phase band-pass with Butterworth-shaped edges."""
    length = _even_length(len(audio) + 256)
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 1e-3)
    gain = 1 / np.sqrt((1 + (low_hz / frequencies) ** (2 * order)) * (1 + (frequencies / high_hz) ** (2 * order)))
    return np.fft.irfft(np.fft.rfft(audio, length) * gain)[: len(audio)].astype(np.float32)


def impulse_response(decay_s: float, rng: np.random.Generator, predelay_s: float = 0.01) -> np.ndarray:
    """A room of noise: the direct sound, then an exponential tail that falls by 60 dB in ``decay_s``."""
    count = round(decay_s * SAMPLE_RATE)
    tail = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / max(count, 1))
    tail[: round(predelay_s * SAMPLE_RATE)] = 0
    tail /= max(float(np.sqrt((tail**2).sum())), 1e-12)
    return np.concatenate([[1.0], tail]).astype(np.float32)


def reverberate(audio: np.ndarray, response: np.ndarray, wet: float = 1.0) -> np.ndarray:
    """Convolve with an impulse response whose first sample is the direct sound; the length, and so every word time, stays."""
    response = np.concatenate([response[:1], wet * response[1:]])
    length = _even_length(len(audio) + len(response))
    return np.fft.irfft(np.fft.rfft(audio, length) * np.fft.rfft(response, length))[: len(audio)].astype(np.float32)


def warp(audio: np.ndarray, words: list[Word], speed: np.ndarray) -> tuple[np.ndarray, list[Word]]:
    """Play the audio at a changing speed: pitch and tempo move together, the words' times along.

    ``speed`` (any number of points, evenly spread over the audio) is 1 where nothing changes, 1.2 for faster and higher.
    """
    per_sample = np.interp(np.linspace(0, 1, len(audio)), np.linspace(0, 1, len(speed)), speed)
    times = np.concatenate([[0.0], np.cumsum(1 / per_sample)])  # when each input sample is heard, in output samples
    positions = np.interp(np.arange(int(times[-1])), times, np.arange(len(times)))
    doubled = resample(audio, 1, 2)  # linear interpolation between samples costs the treble; half as far apart it does not
    warped = np.interp(positions * 2, np.arange(len(doubled)), doubled).astype(np.float32)

    def when(seconds: float) -> float:
        return float(np.interp(seconds * SAMPLE_RATE, np.arange(len(times)), times)) / SAMPLE_RATE

    return warped, [Word(w.text, when(w.start), when(w.end)) for w in words]


def insert(audio: np.ndarray, words: list[Word], sound: np.ndarray, at_s: float, gap_s: float = 0.05) -> tuple[np.ndarray, list[Word]]:
    """Cut the audio at ``at_s`` and put a sound there with ``gap_s`` of silence on both sides; later words move.

    Raises ValueError when ``at_s`` lies inside a word.
    """
    inside = [w for w in words if w.start + 1e-6 < at_s < w.end - 1e-6]
    if inside:
        raise ValueError(f"{at_s:.3f} s lies inside the word {inside[0]}; insert between words")
    cut = min(round(at_s * SAMPLE_RATE), len(audio))
    added = np.concatenate([silence(gap_s), sound.astype(np.float32), silence(gap_s)])
    moved = len(added) / SAMPLE_RATE
    words = [Word(w.text, w.start + moved, w.end + moved) if w.start >= at_s - 1e-6 else w for w in words]
    return np.concatenate([_fade(audio[:cut], end=True), added, _fade(audio[cut:], end=False)]), words


def spread(audio: np.ndarray, words: list[Word], pauses_s: list[float]) -> tuple[np.ndarray, list[Word]]:
    """Open a pause after each word but the last; words and pauses are paired in order."""
    for i in reversed(range(len(words) - 1)):
        if pauses_s[i] > 0:
            audio, words = insert(audio, words, silence(pauses_s[i]), words[i + 1].start, gap_s=0.0)
    return audio, words


def _fade(audio: np.ndarray, end: bool, seconds: float = 0.004) -> np.ndarray:
    """A short fade at a cut, so that it does not click."""
    count = min(round(seconds * SAMPLE_RATE), len(audio))
    ramp = np.linspace(0, 1, count, dtype=np.float32)
    faded = audio.copy()
    if end and count:
        faded[-count:] *= ramp[::-1]
    elif count:
        faded[:count] *= ramp
    return faded
