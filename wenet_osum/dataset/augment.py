"""Changes to training audio and features. Every draw comes from a generator that (seed, epoch, key) fix, so workers do not matter."""

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
from wenet_osum.config import AugmentConfig, SpecAugmentConfig
from wenet_osum.dataset.audio import decode, resample
from wenet_osum.records import SAMPLE_RATE, Word

if TYPE_CHECKING:
    from torch import Tensor

EFFECTS = "wenet_osum.dataset.effects"
COPY, TIME, MEL = "copy", "time", "mel"


class Mask(NamedTuple):
    """A change to features: frames replaced by those ``back`` earlier (COPY), frames (TIME) or mel bins (MEL) replaced by the mean."""

    kind: str
    first: int  # frame, or mel bin
    last: int  # the one after
    back: int = 0  # frames


def rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """The generator of one utterance in one epoch: the same in every process and run (``hash()`` is not)."""
    digest = hashlib.blake2b(f"{seed}|{epoch}|{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def augment(audio: np.ndarray, conf: AugmentConfig, draw: np.random.Generator) -> tuple[np.ndarray, float]:
    """All changes to the waveform, in the order a microphone meets them. Returns audio and the speed factor (divide word times by it)."""
    audio, factor = speed(audio, conf.speeds, draw)
    if conf.reverb and draw.random() < conf.reverb_prob:
        audio = reverberate(audio, conf.reverb, draw)
    if conf.noise and draw.random() < conf.noise_prob:
        audio = add_noise(audio, conf.noise, conf.noise_snr_db, draw)
    if conf.effects:
        audio = apply_effects(audio, conf.effects, draw)
    return gain(audio, conf.gain_db, draw), factor


def apply_effects(audio: np.ndarray, rows: Iterable[dict[str, Any]], draw: np.random.Generator) -> np.ndarray:
    """Effects in order. A row is ``{name, prob, …}``: a file of ``dataset/effects``, the share of utterances that get it (1), its own settings.

    Raises ValueError for an unknown name, and for settings the effect does not have or that are of the wrong type.
    """
    for row in rows:
        prob, effect = load_effect(json.dumps(row, sort_keys=True))
        if draw.random() < prob:
            audio = effect(audio, draw)
    return audio


@lru_cache(maxsize=64)
def load_effect(row: str) -> tuple[float, Callable[[np.ndarray, np.random.Generator], np.ndarray]]:
    """(share, effect) of a row, which comes as JSON so that it can be remembered. Raises ValueError."""
    settings = json.loads(row)
    name, prob = settings.pop("name", None), settings.pop("prob", 1.0)
    if not isinstance(prob, (int, float)) or not 0 <= prob <= 1:
        raise ValueError(f"effect {name}: prob {prob!r} must lie between 0 and 1")
    return prob, config.from_dict(settings, lookup.load(EFFECTS, name).Effect, f"effect {name}")


def speed(audio: np.ndarray, factors: list[float], draw: np.random.Generator) -> tuple[np.ndarray, float]:
    """Play faster or slower by a factor drawn evenly; pitch moves along, as with sox. Returns audio (samples / factor,) and the factor used."""
    chosen = float(factors[draw.integers(len(factors))])
    if chosen == 1.0:
        return audio, 1.0
    ratio = Fraction(chosen).limit_denominator(100)  # keeps the resampling kernel small
    if not ratio:
        raise ValueError(f"speed factor {chosen} must be at least 0.01; change augment.speeds")
    return resample(audio, ratio.numerator, ratio.denominator), float(ratio)


def scale_words(words: list[Word] | None, factor: float) -> list[Word] | None:
    """Word times after ``speed`` by ``factor``."""
    return [Word(w.text, w.start / factor, w.end / factor) for w in words] if words is not None else None


def add_noise(audio: np.ndarray, list_path: str, snr_db: tuple[float, float], draw: np.random.Generator) -> np.ndarray:
    """Add a recording of the list, looped or cut at a random place, at a signal-to-noise ratio drawn from the range (dB)."""
    noise = _recording(_pick(list_path, draw))
    noise = np.tile(noise, -(-len(audio) // len(noise))) if len(noise) < len(audio) else noise
    first = int(draw.integers(len(noise) - len(audio) + 1))
    noise = noise[first : first + len(audio)]
    ratio_db = draw.uniform(*snr_db)
    power, noise_power = float(np.mean(np.square(audio, dtype=np.float64))), float(np.mean(np.square(noise, dtype=np.float64)))
    if power == 0 or noise_power == 0:  # silence has no ratio
        return audio
    return audio + noise * np.float32(np.sqrt(power / noise_power / 10 ** (ratio_db / 10)))


def reverberate(audio: np.ndarray, list_path: str, draw: np.random.Generator) -> np.ndarray:
    """Convolve with a room impulse response of the list; the direct sound stays in place (word times hold) and so does the level."""
    response = _recording(_pick(list_path, draw))
    direct = int(np.argmax(np.abs(response)))
    size = 1 << (len(audio) + len(response) - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)[direct : direct + len(audio)]
    level = float(np.sqrt(np.mean(np.square(wet)))) or 1.0
    return (wet * (np.sqrt(np.mean(np.square(audio, dtype=np.float64))) / level)).astype(np.float32)


def gain(audio: np.ndarray, range_db: tuple[float, float], draw: np.random.Generator) -> np.ndarray:
    """Change the level by dB drawn from the range."""
    level = draw.uniform(*range_db)
    return audio if level == 0 else audio * np.float32(10 ** (level / 20))


def spec_augment(features: Tensor, conf: SpecAugmentConfig, draw: np.random.Generator) -> Tensor:
    """Mask stretches of time and bands of mel bins of (frames, mels) with the utterance's mean (Park et al., 2019), after replacing stretches by
    earlier ones (WeNet's SpecSub, arXiv 2106.05642); a new tensor."""
    return apply_masks(features, draw_masks(*features.shape, conf, draw))


def draw_masks(frames: int, mels: int, conf: SpecAugmentConfig, draw: np.random.Generator) -> list[Mask]:
    """What to change. A stretch of time covers at most its longest and a fifth of the utterance."""
    masks = []
    for _ in range(conf.substitutions):
        first, last = _stretch(frames, min(conf.max_substitution, frames // 5), draw)
        masks.append(Mask(COPY, first, last, int(draw.integers(first + 1))))
    masks += [Mask(TIME, *_stretch(frames, min(conf.max_time, frames // 5), draw)) for _ in range(conf.time_masks)]
    return masks + [Mask(MEL, *_stretch(mels, min(conf.max_mels, mels), draw)) for _ in range(conf.mel_masks)]


def apply_masks(features: Tensor, masks: list[Mask]) -> Tensor:
    """(frames, mels) with the changes; a new tensor. Copies come first and read what was there before; the mean is that after them."""
    changed = features.clone()
    for mask in masks:
        if mask.kind == COPY:
            changed[mask.first : mask.last] = features[mask.first - mask.back : mask.last - mask.back]
    mean = changed.mean()
    for mask in masks:
        if mask.kind == TIME:
            changed[mask.first : mask.last] = mean
        elif mask.kind == MEL:
            changed[:, mask.first : mask.last] = mean
    return changed


def _stretch(total: int, longest: int, draw: np.random.Generator) -> tuple[int, int]:
    length = int(draw.integers(longest + 1))
    first = int(draw.integers(total - length + 1))
    return first, first + length


def _pick(list_path: str, draw: np.random.Generator) -> str:
    paths = read_list(list_path)
    return paths[draw.integers(len(paths))]


@lru_cache(maxsize=8)
def read_list(list_path: str) -> tuple[str, ...]:
    """The recordings a noise or reverberation list names, a path a line. Raises ValueError when the list or a recording is missing."""
    try:
        paths = tuple(line.strip() for line in Path(list_path).read_text(encoding="utf-8").splitlines() if line.strip())
    except FileNotFoundError:
        raise ValueError(f"list of recordings {list_path} does not exist; write one path a line, or set its probability to 0") from None
    if not paths:
        raise ValueError(f"list of recordings {list_path} is empty; write one path a line, or set its probability to 0")
    missing = [p for p in paths if not Path(p).is_file()]
    if missing:
        raise ValueError(f"list of recordings {list_path}: {len(missing)} of {len(paths)} files do not exist, first {missing[0]!r}; correct the list")
    return paths


@lru_cache(maxsize=64)
def _recording(path: str) -> np.ndarray:
    try:
        audio = decode(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"recording {path} for augmentation cannot be used ({error}); take it out of its list") from None
    return audio[: 60 * SAMPLE_RATE]  # a minute bounds what 64 kept recordings take
