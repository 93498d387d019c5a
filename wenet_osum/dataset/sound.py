"""A sound in memory or on disk → the audio file that ``dataset/audio.py`` decodes: what Python users hand over, and what is refused."""

from __future__ import annotations

import os
from numbers import Number
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from wenet_osum.dataset.audio import RATES, write_wav
from wenet_osum.records import SAMPLE_RATE

Array = np.ndarray | torch.Tensor  # (samples,), or with channels on the shorter axis; int16, or float with full scale 1.0
Data = bytes | bytearray | memoryview | BinaryIO
# A tuple, or a dict with the keys below, is an array with its own rate in Hz.
Sound = str | os.PathLike | Data | Array | tuple[Array, int] | dict
ARRAY, OWN_RATE = "array", "sampling_rate"  # as `datasets` writes them; other keys are passed over
MOST_CHANNELS = 8  # more is a batch mistaken for one recording
LOUDEST = 100.0  # float samples beyond this are integers that were cast, not loud audio


def source_of(sound: Sound, rate: int = SAMPLE_RATE) -> bytes | Path:
    """The sound as an audio file: its path, or its bytes. ``rate`` (Hz) is that of bare samples. Raises ValueError for what is none."""
    if isinstance(sound, (str, os.PathLike)):
        return Path(sound)
    if isinstance(sound, (bytes, bytearray, memoryview)):
        return bytes(sound)
    if hasattr(sound, "read"):
        data = sound.read()
        if not isinstance(data, bytes):
            raise ValueError(f"the file was opened as text: its read() gave {type(data).__name__}; open it with mode 'rb'")
        return data
    if isinstance(sound, dict):
        sound, rate = _of_dict(sound)
    elif isinstance(sound, tuple) and len(sound) == 2 and isinstance(sound[1], Number):
        sound, rate = sound
    if isinstance(sound, torch.Tensor):
        sound = sound.detach().cpu()
        sound = (sound.float() if sound.is_floating_point() else sound).numpy()
    elif not hasattr(sound, "__array__"):
        raise ValueError(f"{type(sound).__name__} is no sound; give a path, bytes, an open file, an array, or a tuple (array, rate in Hz)")
    return wav_of(np.asarray(sound), rate)


def _of_dict(sound: dict) -> tuple[Array, int]:
    """Return array and rate of a sound as `datasets` and the pipelines of transformers write it."""
    if missing := [name for name in (ARRAY, OWN_RATE) if name not in sound]:
        known = ", ".join(map(repr, sound)) or "none"
        raise ValueError(
            f"dict is no sound: it lacks {' and '.join(map(repr, missing))} (its keys: {known}); "
            f"give {{'{ARRAY}': samples, '{OWN_RATE}': Hz}}"
        )
    return sound[ARRAY], sound[OWN_RATE]


def wav_of(samples: np.ndarray, rate: int) -> bytes:
    """Samples (samples,), or with channels on the shorter axis, as the bytes of a WAV file, bit-exact for int16 and float32. Raises ValueError."""
    check_rate(rate)
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > MOST_CHANNELS):
        raise ValueError(f"shape {samples.shape}: a recording is (samples,), or has up to {MOST_CHANNELS} channels; give several as a list")
    if not samples.size:
        raise ValueError("audio: empty: the array holds no samples")
    if samples.dtype.kind == "f":
        samples, kind = samples.astype(np.float32), "FLOAT"
        if (peak := float(np.abs(samples).max())) > LOUDEST:
            raise ValueError(f"float samples up to {peak:g}: full scale is 1.0; divide what were int16 samples by 32768")
    elif samples.dtype == np.int16:
        kind = "PCM_16"
    else:
        raise ValueError(f"samples of type {samples.dtype}: the full scale is not known; give int16, or float in [-1, 1]")
    return write_wav(np.ascontiguousarray(samples), int(rate), kind)


def check_rate(rate: int) -> None:
    """Raise ValueError for a sample rate that no recording has."""
    if not isinstance(rate, Number) or isinstance(rate, complex) or not RATES[0] <= rate <= RATES[1] or int(rate) != rate:
        raise ValueError(f"sample rate {rate!r} must be a whole number of Hz from {RATES[0]} to {RATES[1]}, such as 16000")
