"""Put recordings together: joined, warped, filtered, made noisy or reverberant.

Word times stay true. Audio is 16 kHz mono float32, shape (samples,); times are seconds. Whatever is
random is drawn from a numpy Generator.
"""

from __future__ import annotations

import numpy as np
from numpy.fft import irfft, rfft, rfftfreq

from wenet_osum.records import SAMPLE_RATE, Word

BLOCK = 320  # samples, 20 ms


def silence(seconds: float) -> np.ndarray:
    """Make zeros; of a length below 0 there are none."""
    count = round(seconds * SAMPLE_RATE)
    count = max(0, count)
    return np.zeros(count, np.float32)


def shift_words(words: list[Word], seconds: float) -> list[Word]:
    """Return the words later by ``seconds``."""
    moved = []
    for word in words:
        start = word.start + seconds
        end = word.end + seconds
        moved.append(Word(word.text, start, end))
    return moved


def join(pieces: list[np.ndarray], pauses_s: list[float]) -> tuple[np.ndarray, list[float]]:
    """Put pieces one after another, with a pause before each and one after the last.

    Returns the audio and where each piece begins, s. Raises ValueError when there is not one pause
    more than pieces.
    """
    needed = len(pieces) + 1
    given = len(pauses_s)
    if given != needed:
        rule = f"{len(pieces)} pieces need {needed} pauses"
        raise ValueError(f"{rule} (before each and after the last), got {given}")

    first, *others = [silence(pause_s) for pause_s in pauses_s]
    parts = [first]
    begin = len(first)
    begins_s = []
    for piece, pause in zip(pieces, others, strict=True):
        begins_s.append(begin / SAMPLE_RATE)
        piece = piece.astype(np.float32)
        parts += [piece, pause]
        begin += len(piece) + len(pause)
    joined = np.concatenate(parts)
    return joined, begins_s


def resample(audio: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Change the sampling rate by any ratio, band-limited.

    The Fourier transform of the padded signal is cut or padded to the new rate.
    """
    if round(from_hz) == round(to_hz):
        return audio.astype(np.float32)

    # The new length is rounded, which stretches the signal a little. Of many lengths with room for
    # the ends not to wrap into each other, the one that stretches least is taken.
    shortest = _even_length(len(audio) + 256)
    lengths = shortest + 8 * np.arange(512)
    counts = lengths * to_hz / from_hz
    rounded = np.round(counts)
    errors = np.abs(counts - rounded)
    best = int(np.argmin(errors))
    padded = int(lengths[best])
    count = round(counts[best])

    # Frequencies that the new rate cannot hold are left out, new ones are zero.
    spectrum = rfft(audio, padded)
    bins = count // 2 + 1
    if bins <= len(spectrum):
        spectrum = spectrum[:bins]
    else:
        missing = bins - len(spectrum)
        spectrum = np.pad(spectrum, (0, missing))
    out = irfft(spectrum, count)
    out = out * (count / padded)

    length = round(len(audio) * to_hz / from_hz)
    return out[:length].astype(np.float32)


def _even_length(count: int) -> int:
    """Return a length that the FFT is quick at, not below ``count``."""
    return -(-count // 1024) * 1024


def rms(audio: np.ndarray) -> float:
    """Return the root mean square of the audible part; 0 for silence.

    That are the 20 ms blocks within 40 dB of the loudest one.
    """
    if not len(audio):
        return 0.0
    if len(audio) >= BLOCK:
        whole = len(audio) // BLOCK * BLOCK
        blocks = audio[:whole].reshape(-1, BLOCK)
    else:
        blocks = audio.reshape(1, -1)

    squares = blocks.astype(np.float64) ** 2
    power = squares.mean(1)
    limit = power.max() * 1e-4
    audible = power[power >= limit]
    return float(np.sqrt(audible.mean()))


def _full_rms(audio: np.ndarray) -> float:
    """Return the root mean square of every sample."""
    squares = audio.astype(np.float64) ** 2
    power = squares.mean()
    return float(np.sqrt(power))


def _gain(level_db: float) -> float:
    return 10 ** (level_db / 20)


def set_level(audio: np.ndarray, level_db: float, peak: float = 0.98) -> np.ndarray:
    """Scale speech to ``level_db`` below full scale (RMS).

    The gain is less where a sample would pass ``peak``.
    """
    own = max(rms(audio), 1e-8)
    gain = _gain(level_db) / own

    level = np.abs(audio)
    highest = float(level.max(initial=0))
    highest = max(highest, 1e-8)
    gain = min(gain, peak / highest)
    return (audio * gain).astype(np.float32)


def colored_noise(count: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Make noise of RMS 1 whose power falls with frequency to the ``exponent``.

    0 is white, 1 pink, 2 brown.
    """
    length = _even_length(count + 1)
    frequencies = rfftfreq(length, 1 / SAMPLE_RATE)
    frequencies = np.maximum(frequencies, 20.0)
    shape = frequencies ** (-exponent / 2)

    # The power of each frequency is given, its phase is drawn.
    phases = rng.uniform(0, 2 * np.pi, len(shape))
    turns = np.exp(1j * phases)
    noise = irfft(shape * turns)
    noise = noise[:count]

    # The draw has some other level.
    squares = noise**2
    power = squares.sum() / max(count, 1)
    level = float(np.sqrt(power))
    level = max(level, 1e-12)
    scaled = noise / level
    return scaled.astype(np.float32)


def add_noise(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise, repeated or cut to the length of the speech, at a signal-to-noise ratio in dB.

    Raises ValueError for empty noise.
    """
    if len(noise) == 0:
        raise ValueError("noise is empty; give a recording of at least one sample")
    noise = np.resize(noise, len(speech))

    # The speech is measured where it is spoken, the noise everywhere.
    speech_level = rms(speech)
    noise_level = max(_full_rms(noise), 1e-8)
    gain = speech_level / noise_level * _gain(-snr_db)
    mixed = speech + gain * noise
    return mixed.astype(np.float32)


def band_pass(audio: np.ndarray, low_hz: float, high_hz: float, order: int = 4) -> np.ndarray:
    """Filter with a zero-phase band-pass that has Butterworth-shaped edges."""
    count = len(audio) + 256
    length = _even_length(count)
    frequencies = rfftfreq(length, 1 / SAMPLE_RATE)
    frequencies = np.maximum(frequencies, 1e-3)

    # Each edge falls by 6 dB per octave and order, twice as filters do that run one way only.
    power = 2 * order
    low_edge = 1 + (low_hz / frequencies) ** power
    high_edge = 1 + (frequencies / high_hz) ** power
    gain = 1 / np.sqrt(low_edge * high_edge)
    return _filter(audio, gain, length)


def _filter(audio: np.ndarray, transfer: np.ndarray, length: int) -> np.ndarray:
    """Multiply the spectrum of audio, padded to ``length``, by ``transfer``."""
    spectrum = rfft(audio, length)
    padded = irfft(spectrum * transfer)
    filtered = padded[: len(audio)]
    return filtered.astype(np.float32)


def impulse_response(
    decay_s: float, rng: np.random.Generator, predelay_s: float = 0.01
) -> np.ndarray:
    """Make a room of noise: the direct sound, then a tail that falls by 60 dB in ``decay_s``."""
    count = round(decay_s * SAMPLE_RATE)
    noise = rng.standard_normal(count)
    time = np.arange(count)
    decades = -3 * time / max(count, 1)
    tail = noise * 10**decades

    # Before the first echo arrives there is nothing.
    first = round(predelay_s * SAMPLE_RATE)
    tail[:first] = 0

    # The tail has the energy of the direct sound.
    squares = tail**2
    level = float(np.sqrt(squares.sum()))
    tail /= max(level, 1e-12)
    response = np.concatenate([[1.0], tail])
    return response.astype(np.float32)


def reverberate(audio: np.ndarray, response: np.ndarray, wet: float = 1.0) -> np.ndarray:
    """Convolve with an impulse response whose first sample is the direct sound.

    The length, and so every word time, stays.
    """
    response = response.copy()
    response[1:] *= wet
    count = len(audio) + len(response)
    length = _even_length(count)
    transfer = rfft(response, length)
    return _filter(audio, transfer, length)


def warp(audio: np.ndarray, words: list[Word], speed: np.ndarray) -> tuple[np.ndarray, list[Word]]:
    """Play the audio at a changing speed; pitch, tempo and word times move together.

    ``speed`` (any number of points, evenly spread over the audio) is 1 where nothing changes, 1.2
    for faster and higher.
    """
    # The speed at each input sample.
    points = np.linspace(0, 1, len(speed))
    samples = np.linspace(0, 1, len(audio))
    speeds = np.interp(samples, points, speed)

    # When each input sample is heard, in output samples.
    lasting = 1 / speeds
    ends = np.cumsum(lasting)
    times = np.concatenate([[0.0], ends])
    inputs = np.arange(len(times))

    # Where each output sample comes from.
    count = int(times[-1])
    outputs = np.arange(count)
    positions = np.interp(outputs, times, inputs)

    # Linear interpolation between samples costs the treble; half as far apart it does not.
    doubled = resample(audio, 1, 2)
    known = np.arange(len(doubled))
    warped = np.interp(positions * 2, known, doubled)
    warped = warped.astype(np.float32)

    moved = []
    for word in words:
        start = np.interp(word.start * SAMPLE_RATE, inputs, times)
        end = np.interp(word.end * SAMPLE_RATE, inputs, times)
        start_s = float(start) / SAMPLE_RATE
        end_s = float(end) / SAMPLE_RATE
        moved.append(Word(word.text, start_s, end_s))
    return warped, moved


def insert(
    audio: np.ndarray,
    words: list[Word],
    sound: np.ndarray,
    at_s: float,
    gap_s: float = 0.05,
) -> tuple[np.ndarray, list[Word]]:
    """Cut the audio at ``at_s`` and put a sound there, with ``gap_s`` of silence on both sides.

    Returns the audio and the words, the later ones moved. Raises ValueError when ``at_s`` lies
    inside a word.
    """
    for word in words:
        if word.start + 1e-6 < at_s < word.end - 1e-6:
            fault = f"{at_s:.3f} s lies inside the word {word}"
            raise ValueError(f"{fault}; insert between words")

    at = round(at_s * SAMPLE_RATE)
    cut = min(at, len(audio))
    before = _fade(audio[:cut], end=True)
    after = _fade(audio[cut:], end=False)

    gap = silence(gap_s)
    sound = sound.astype(np.float32)
    added = np.concatenate([gap, sound, gap])
    mixed = np.concatenate([before, added, after])

    # Words that begin at the cut or after it move.
    moved_s = len(added) / SAMPLE_RATE
    moved = []
    for word in words:
        if word.start >= at_s - 1e-6:
            [word] = shift_words([word], moved_s)
        moved.append(word)
    return mixed, moved


def spread(
    audio: np.ndarray, words: list[Word], pauses_s: list[float]
) -> tuple[np.ndarray, list[Word]]:
    """Open a pause after each word but the last; words and pauses are paired in order."""
    # From the end on, so that the times of earlier words stay.
    for i in range(len(words) - 1, 0, -1):
        pause_s = pauses_s[i - 1]
        if pause_s <= 0:
            continue
        pause = silence(pause_s)
        at_s = words[i].start
        audio, words = insert(audio, words, pause, at_s, gap_s=0.0)
    return audio, words


def _fade(audio: np.ndarray, end: bool, seconds: float = 0.004) -> np.ndarray:
    """Fade shortly at a cut, so that it does not click."""
    count = round(seconds * SAMPLE_RATE)
    count = min(count, len(audio))
    ramp = np.linspace(0, 1, count, dtype=np.float32)
    faded = audio.copy()
    if not count:
        return faded
    if end:
        faded[-count:] *= ramp[::-1]
    else:
        faded[:count] *= ramp
    return faded
