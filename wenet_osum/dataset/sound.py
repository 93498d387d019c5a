"""A sound as Python users hand it over, made an audio file that ``dataset/audio.py`` decodes.

A sound is a path, an audio file's bytes, an open file, an array or a tensor. What is none of them
is refused with the value, the rule and the next step.
"""

from __future__ import annotations

import os
from numbers import Number
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from wenet_osum.dataset.audio import RATES, write_wav
from wenet_osum.records import SAMPLE_RATE

# (samples,), or with channels on the shorter axis; int16, or float with full scale 1.0
Array = np.ndarray | torch.Tensor
Data = bytes | bytearray | memoryview | BinaryIO
# A tuple, or a dict with the keys below, is an array with its own rate in Hz.
Sound = str | os.PathLike | Data | Array | tuple[Array, int] | dict
ARRAY, OWN_RATE = "array", "sampling_rate"  # as `datasets` writes them; other keys are passed over
MOST_CHANNELS = 8  # more is a batch mistaken for one recording
FULL_SCALE = 32768.0  # of 16-bit samples
LOUDEST = 100.0  # float samples beyond this are integers that were cast, not loud audio


def source_of(sound: Sound, rate: int = SAMPLE_RATE) -> bytes | Path:
    """Return a sound as an audio file: its path, or its bytes.

    ``rate`` (Hz) is that of bare samples. Raises ValueError for what is no sound.
    """
    if isinstance(sound, (str, os.PathLike)):
        return Path(sound)
    if isinstance(sound, (bytes, bytearray, memoryview)):
        return bytes(sound)
    if hasattr(sound, "read"):
        return _read_all(sound)
    array, rate = _with_rate(sound, rate)
    samples = _as_numpy(array)
    return wav_of(samples, rate)


def samples_of(chunk: bytes | Array) -> np.ndarray:
    """Return a chunk of a stream as mono samples, float32 (samples,).

    It is an array or tensor as above, or the bytes of 16-bit little-endian integers. Raises
    ValueError for what is neither.
    """
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return of_pcm16(bytes(chunk), 1)
    samples = _channels_last(_as_numpy(chunk))
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / FULL_SCALE
    elif samples.dtype.kind != "f":
        rule = "give int16, or float in [-1, 1]"
        raise ValueError(f"samples of type {samples.dtype}: the full scale is not known; {rule}")
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("audio: NaN or infinity: every sample must be a finite number")
    if samples.size:
        _check_scale(samples)
    return samples if samples.ndim == 1 else samples.mean(axis=1)


def of_pcm16(data: bytes, channels: int) -> np.ndarray:
    """Return 16-bit little-endian samples as mono float32 (samples,).

    Raises ValueError for bytes that are no whole number of samples.
    """
    block = 2 * channels
    if len(data) % block:
        rule = f"{block} bytes are a sample of {channels} channels of 16 bits"
        raise ValueError(f"{len(data)} bytes: {rule}")
    integers = np.frombuffer(data, "<i2")
    samples = integers.astype(np.float32) / FULL_SCALE
    return samples.reshape(-1, channels).mean(axis=1)


def _read_all(file: BinaryIO) -> bytes:
    """Read an open file. Raises ValueError for one that was opened as text."""
    data = file.read()
    if not isinstance(data, bytes):
        given = f"its read() gave {type(data).__name__}"
        raise ValueError(f"the file was opened as text: {given}; open it with mode 'rb'")
    return data


def _with_rate(sound: Array | tuple | dict, rate: int) -> tuple[Array, int]:
    """Return a sound's array and the rate it names, else ``rate``."""
    if isinstance(sound, dict):
        return _of_dict(sound)
    is_pair = isinstance(sound, tuple) and len(sound) == 2
    if is_pair and isinstance(sound[1], Number):
        return sound
    return sound, rate


def _of_dict(sound: dict) -> tuple[Array, int]:
    """Return array and rate of a sound as `datasets` and the pipelines of transformers write it."""
    missing = [repr(name) for name in (ARRAY, OWN_RATE) if name not in sound]
    if missing:
        known = ", ".join(map(repr, sound)) or "none"
        lacks = " and ".join(missing)
        raise ValueError(
            f"dict is no sound: it lacks {lacks} (its keys: {known}); "
            f"give {{'{ARRAY}': samples, '{OWN_RATE}': Hz}}"
        )
    return sound[ARRAY], sound[OWN_RATE]


def _as_numpy(array: Array) -> np.ndarray:
    """Return the samples of an array or tensor. Raises ValueError for anything else."""
    if isinstance(array, torch.Tensor):
        samples = array.detach().cpu()
        # numpy knows no bfloat16
        if samples.is_floating_point():
            samples = samples.float()
        return samples.numpy()
    if hasattr(array, "__array__"):
        return np.asarray(array)
    raise ValueError(
        f"{type(array).__name__} is no sound; give a path, bytes, an open file, an array, "
        "or a tuple (array, rate in Hz)"
    )


def wav_of(samples: np.ndarray, rate: int) -> bytes:
    """Write samples as the bytes of a WAV file, bit-exact for int16 and float32.

    They are (samples,), or have channels on the shorter axis. Raises ValueError.
    """
    check_rate(rate)
    samples = _channels_last(samples)
    if not samples.size:
        raise ValueError("audio: empty: the array holds no samples")
    subtype = "PCM_16"
    if samples.dtype.kind == "f":
        subtype = "FLOAT"
        samples = samples.astype(np.float32)
        _check_scale(samples)
    elif samples.dtype != np.int16:
        raise ValueError(
            f"samples of type {samples.dtype}: the full scale is not known; "
            "give int16, or float in [-1, 1]"
        )
    in_order = np.ascontiguousarray(samples)
    return write_wav(in_order, int(rate), subtype)


def _channels_last(samples: np.ndarray) -> np.ndarray:
    """Turn (channels, samples) round. Raises ValueError for a shape that no recording has."""
    if samples.ndim == 1:
        return samples
    if samples.ndim == 2:
        shorter, longer = sorted(samples.shape)
        if samples.shape[0] < longer:
            samples = samples.T
        if shorter <= MOST_CHANNELS:
            return samples
    rule = f"a recording is (samples,), or has up to {MOST_CHANNELS} channels"
    raise ValueError(f"shape {samples.shape}: {rule}; give several as a list")


def _check_scale(samples: np.ndarray) -> None:
    """Raise ValueError for float samples far beyond full scale."""
    peak = float(np.abs(samples).max())
    if peak > LOUDEST:
        found = f"float samples up to {peak:g}"
        raise ValueError(f"{found}: full scale is 1.0; divide what were int16 samples by 32768")


def check_rate(rate: int) -> None:
    """Raise ValueError for a sample rate that no recording has."""
    lowest, highest = RATES
    possible = isinstance(rate, Number) and not isinstance(rate, complex)
    if possible and lowest <= rate <= highest and int(rate) == rate:
        return
    rule = f"must be a whole number of Hz from {lowest} to {highest}"
    raise ValueError(f"sample rate {rate!r} {rule}, such as 16000")
