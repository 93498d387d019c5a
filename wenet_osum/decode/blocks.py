"""Read recordings in mono blocks of 5 s, so that hours take no more memory than a minute."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wenet_osum.dataset import mp3, ogg
from wenet_osum.dataset.audio import EXACT, FFMPEG_HINT, check_file_rate, unreadable
from wenet_osum.dataset.drop import Drop

if TYPE_CHECKING:
    from soundfile import SoundFile

# What is read at once, s.
BLOCK_S = 5.0


def read_blocks(source: bytes) -> Iterator[tuple[np.ndarray, int]]:
    """Yield a recording in mono blocks (samples,) of up to 5 s, each with its rate in Hz.

    ``source`` are the bytes of a file. Raises Drop when it cannot be read.
    """
    with opened(source) as file:
        for block in blocks_of(file, source):
            yield block, file.samplerate


@contextlib.contextmanager
def opened(source: str | Path | bytes) -> Iterator[SoundFile]:
    """Open a recording. Raises Drop for what goes wrong with it then and later."""
    import soundfile

    in_memory = isinstance(source, bytes)
    name = _name(source)
    if not in_memory and not Path(source).is_file():
        raise Drop("audio: file not found", name)
    try:
        opened = io.BytesIO(source) if in_memory else str(source)
        with soundfile.SoundFile(opened) as file:
            check_file_rate(file.samplerate)
            if file.format == "OGG":
                _check_one(source)
            yield file
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        raise unreadable(name, error) from None


def _check_one(source: str | Path | bytes) -> None:
    """Raise Drop for an Ogg file of several, of which the first alone would be read."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if ogg.is_joined(data):
        raise Drop("audio: Ogg files joined into one", f"{_name(source)} ({FFMPEG_HINT})")


def _name(source: str | Path | bytes) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


def blocks_of(
    file: SoundFile,
    source: str | Path | bytes,
    start: float | None = None,
    end: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield mono blocks of a segment from ``start`` to ``end`` (s) of an open file."""
    first = round((start or 0.0) * file.samplerate)
    last = None if end is None else round(end * file.samplerate)
    # Its number of samples is a guess, which ends too early or too late.
    if mp3.is_uncounted(file, source):
        blocks = mp3.blocks(source, first, last)
    else:
        samples = _seek(file, first, last)
        blocks = _blocks(file, samples)
    empty = True
    for block in blocks:
        empty = False
        yield block
    if empty:
        raise Drop("audio: empty", f"{_name(source)} has no samples from {start or 0.0} s on")


def _seek(file: SoundFile, first: int, last: int | None) -> int:
    """Go to sample ``first``; return how many there are from there to ``last``."""
    end = file.frames if last is None else min(last, file.frames)
    if first >= end:
        return 0
    file.seek(first)
    return end - first


def _blocks(file: SoundFile, samples: int) -> Iterator[np.ndarray]:
    """Yield mono blocks of 5 s until ``samples`` are read, or until the file ends.

    Raises Drop for what no encoder can take, and for a file that ends too early in a format whose
    header says exactly how long it is.
    """
    while samples > 0:
        size = min(samples, round(BLOCK_S * file.samplerate))
        channels = file.read(size, dtype="float32", always_2d=True)
        block = channels.mean(axis=1)
        if not len(block):
            if file.format not in EXACT:
                return
            missing = f"{samples} samples that the header promises cannot be decoded"
            raise Drop("audio: cut short", missing)
        if not np.isfinite(block).all():
            raise Drop("audio: NaN or infinity", "every sample must be a finite number")
        samples -= len(block)
        yield block
