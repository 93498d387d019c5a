"""Changes to training audio and features; steps.py applies them in their order.

Every draw comes from a generator that (seed, epoch, key) fix, so workers do not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wenet_osum import config, lookup
from wenet_osum.config import SpecAugmentConfig
from wenet_osum.dataset.audio import decode, resample
from wenet_osum.records import SAMPLE_RATE, Word

if TYPE_CHECKING:
    from torch import Tensor

EFFECTS = "wenet_osum.dataset.effects"
LONGEST_RECORDING = 60 * SAMPLE_RATE  # samples of a noise or room that are kept in memory
COPY, TIME, MEL = "copy", "time", "mel"
Effect = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Mask(NamedTuple):
    """A change to features.

    Frames are replaced by those ``back`` earlier (COPY), frames (TIME) or mel bins (MEL) by the
    mean.
    """

    kind: str
    first: int  # frame, or mel bin
    last: int  # the one after
    back: int = 0  # frames


def make_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """Make the generator of one utterance in one epoch.

    It is the same in every process and run, which ``hash()`` is not.
    """
    name = f"{seed}|{epoch}|{key}"
    raw = name.encode("utf-8", "surrogatepass")
    hashed = hashlib.blake2b(raw, digest_size=16)
    number = int.from_bytes(hashed.digest(), "big")
    bits = np.random.PCG64(number)
    return np.random.Generator(bits)


def speed(
    audio: np.ndarray, factors: list[float], rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Play faster or slower by a factor drawn evenly; pitch moves along, as with sox.

    Returns audio (samples / factor,) and the factor used.
    """
    number = rng.integers(len(factors))
    chosen = float(factors[number])
    if chosen == 1.0:
        return audio, 1.0

    # a ratio of small numbers keeps the resampling kernel small
    ratio = Fraction(chosen).limit_denominator(100)
    if not ratio:
        raise ValueError(f"speed factor {chosen} must be at least 0.01; change augment.speeds")
    changed = resample(audio, ratio.numerator, ratio.denominator)
    return changed, float(ratio)


def scale_words(words: list[Word] | None, factor: float) -> list[Word] | None:
    """Return word times after ``speed`` by ``factor``."""
    if words is None:
        return None
    scaled = []
    for word in words:
        start = word.start / factor
        end = word.end / factor
        scaled.append(Word(word.text, start, end))
    return scaled


def reverberate(audio: np.ndarray, list_path: str, rng: np.random.Generator) -> np.ndarray:
    """Convolve with a room impulse response of the list.

    The direct sound stays in place, so that word times hold, and so does the level.
    """
    path = _pick(list_path, rng)
    response = _recording(path)
    magnitudes = np.abs(response)
    direct = int(np.argmax(magnitudes))

    # a product of spectra is a convolution, on a circle that is long enough for both
    longest = len(audio) + len(response) - 1
    size = 1 << longest.bit_length()
    dry = np.fft.rfft(audio, size)
    room = np.fft.rfft(response, size)
    wet = np.fft.irfft(dry * room, size)
    wet = wet[direct : direct + len(audio)]

    # as loud as before
    power = np.mean(np.square(wet))
    level = float(np.sqrt(power)) or 1.0
    before = np.sqrt(_power(audio))
    scaled = wet * (before / level)
    return scaled.astype(np.float32)


def add_noise(
    audio: np.ndarray,
    list_path: str,
    snr_db: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Add a recording of the list at a signal-to-noise ratio drawn from the range (dB).

    It is looped where it is short, and cut at a random place.
    """
    path = _pick(list_path, rng)
    noise = _recording(path)
    if len(noise) < len(audio):
        times = -(-len(audio) // len(noise))
        noise = np.tile(noise, times)

    # anywhere in it
    places = len(noise) - len(audio) + 1
    first = int(rng.integers(places))
    noise = noise[first : first + len(audio)]

    # silence has no ratio
    ratio_db = rng.uniform(*snr_db)
    power = float(_power(audio))
    noise_power = float(_power(noise))
    if power == 0 or noise_power == 0:
        return audio
    ratio = 10 ** (ratio_db / 10)
    scale = np.sqrt(power / noise_power / ratio)
    return audio + noise * np.float32(scale)


def _power(audio: np.ndarray) -> np.float64:
    """Return the mean square of the samples."""
    squares = np.square(audio, dtype=np.float64)
    return np.mean(squares)


def apply_effects(
    audio: np.ndarray, rows: Iterable[dict[str, Any]], rng: np.random.Generator
) -> np.ndarray:
    """Apply effects in order.

    A row is ``{name, prob, …}``: a file of ``dataset/effects``, the share of utterances that get
    it (1), its own settings. Raises ValueError for an unknown name, and for settings the effect
    does not have or that are of the wrong type.
    """
    for row in rows:
        written = json.dumps(row, sort_keys=True)
        prob, effect = load_effect(written)
        if rng.random() < prob:
            audio = effect(audio, rng)
    return audio


@lru_cache(maxsize=64)
def load_effect(row: str) -> tuple[float, Effect]:
    """Return (share, effect) of a row, which comes as JSON so that it can be remembered.

    Raises ValueError.
    """
    settings = json.loads(row)
    name = settings.pop("name", None)
    prob = settings.pop("prob", 1.0)
    is_share = isinstance(prob, (int, float)) and 0 <= prob <= 1
    if not is_share:
        raise ValueError(f"effect {name}: prob {prob!r} must lie between 0 and 1")
    module = lookup.load(EFFECTS, name)
    effect = config.from_dict(settings, module.Effect, f"effect {name}")
    return prob, effect


def gain(audio: np.ndarray, range_db: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Change the level by dB drawn from the range."""
    level_db = rng.uniform(*range_db)
    if level_db == 0:
        return audio
    factor = 10 ** (level_db / 20)
    return audio * np.float32(factor)


def draw_masks(
    frames: int, mels: int, conf: SpecAugmentConfig, rng: np.random.Generator
) -> list[Mask]:
    """Draw the masks of SpecAugment (Park et al., 2019) and of WeNet's SpecSub (arXiv 2106.05642):
    stretches that are replaced by earlier ones, then stretches of time and bands of mel bins.

    A stretch of time covers at most its longest and a fifth of the utterance.
    """
    masks = []
    fifth = frames // 5

    # copies of what stood anywhere before
    longest = min(conf.max_substitution, fifth)
    for _ in range(conf.substitutions):
        first, last = _stretch(frames, longest, rng)
        back = int(rng.integers(first + 1))
        masks.append(Mask(COPY, first, last, back))

    longest = min(conf.max_time, fifth)
    for _ in range(conf.time_masks):
        first, last = _stretch(frames, longest, rng)
        masks.append(Mask(TIME, first, last))

    longest = min(conf.max_mels, mels)
    for _ in range(conf.mel_masks):
        first, last = _stretch(mels, longest, rng)
        masks.append(Mask(MEL, first, last))
    return masks


def apply_masks(features: Tensor, masks: list[Mask]) -> Tensor:
    """Change (frames, mels); a new tensor."""
    changed = features.clone()

    # copies come first and read what was there before
    for kind, first, last, back in masks:
        if kind == COPY:
            changed[first:last] = features[first - back : last - back]

    # the mean is that after them
    mean = changed.mean()
    for kind, first, last, _ in masks:
        if kind == TIME:
            changed[first:last] = mean
        elif kind == MEL:
            changed[:, first:last] = mean
    return changed


def _stretch(total: int, longest: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a stretch of up to ``longest`` anywhere: its first place, and the one after its last."""
    length = int(rng.integers(longest + 1))
    places = total - length + 1
    first = int(rng.integers(places))
    return first, first + length


def _pick(list_path: str, rng: np.random.Generator) -> str:
    """Draw a recording of a list."""
    paths = read_list(list_path)
    number = rng.integers(len(paths))
    return paths[number]


@lru_cache(maxsize=8)
def read_list(list_path: str) -> tuple[str, ...]:
    """Read the recordings that a noise or reverberation list names, a path per line.

    Raises ValueError when the list or a recording is missing.
    """
    named = f"list of recordings {list_path}"
    advice = "write one path per line, or set its probability to 0"
    try:
        text = Path(list_path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{named} does not exist; {advice}") from None
    paths = []
    for line in text.splitlines():
        path = line.strip()
        if path:
            paths.append(path)
    if not paths:
        raise ValueError(f"{named} is empty; {advice}")
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        counted = f"{len(missing)} of {len(paths)} files do not exist"
        raise ValueError(f"{named}: {counted}, first {missing[0]!r}; correct the list")
    return tuple(paths)


@lru_cache(maxsize=64)
def _recording(path: str) -> np.ndarray:
    """Read a noise or a room, the first minute of it: 64 are kept."""
    try:
        audio = decode(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(
            f"recording {path} for augmentation cannot be used ({error}); take it out of its list"
        ) from None
    return audio[:LONGEST_RECORDING]
