"""MP3 files whose first frame does not count the others.

libsndfile guesses their length by the bits of that frame: too long where silence comes first and
the rate of bits varies, too short where noise does, and then it reads no further. What comes
through a pipe, which has no length, it reads to the end.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import soundfile

Source = bytes | memoryview | str | Path  # an audio file's bytes, or its path
# Marks of a first frame that counts the others.
COUNTS = (b"Xing", b"Info", b"VBRI")
FRAME = 4096  # bytes in which it stands
BLOCK = 1 << 16  # samples read at once


def is_uncounted(file: soundfile.SoundFile, source: Source) -> bool:
    """Tell whether an open file is an MP3 whose length is a guess."""
    return file.format == "MP3" and not _counts_frames(source)


def read(source: Source) -> np.ndarray:
    """Read all samples: (samples,), or (samples, channels) of several, float32."""
    parts = list(_blocks(source))
    if not parts:
        return np.zeros(0, np.float32)
    return np.concatenate(parts)


def count(source: Source, most: float = math.inf) -> int:
    """Count the samples, no further than until there are more than ``most``."""
    total = 0
    for block in _blocks(source):
        total += len(block)
        if total > most:
            break
    return total


def blocks(source: Source, first: int, last: int | None) -> Iterator[np.ndarray]:
    """Yield mono blocks (samples,) of the samples from ``first`` to ``last``, None: to the end."""
    at = 0
    for block in _blocks(source):
        begin = max(first - at, 0)
        end = len(block) if last is None else max(last - at, 0)
        part = block[begin:end]
        at += len(block)
        if len(part):
            yield part if part.ndim == 1 else part.mean(axis=1)
        if last is not None and at >= last:
            return


def _blocks(source: Source) -> Iterator[np.ndarray]:
    """Yield the samples block by block, of a pipe that a thread writes the file into."""
    import soundfile

    end, begin = os.pipe()
    writer = threading.Thread(target=_write, args=(source, begin), daemon=True)
    writer.start()
    with soundfile.SoundFile(end, closefd=True) as file:
        while len(block := file.read(BLOCK, dtype="float32")):
            yield block
    writer.join()


def _write(source: Source, descriptor: int) -> None:
    """Write a file into a pipe, as far as somebody reads it."""
    pipe = os.fdopen(descriptor, "wb")
    with contextlib.suppress(BrokenPipeError), opened(source) as file, pipe:
        shutil.copyfileobj(file, pipe)


def _counts_frames(source: Source) -> bool:
    """Tell whether the first frame, after an ID3 tag, holds the number of frames."""
    with opened(source) as file:
        head = file.read(10)
        begin = 0
        if head[:3] == b"ID3":
            begin = 10 + _tag_bytes(head[6:])
        file.seek(begin)
        frame = file.read(FRAME)
    return any(mark in frame for mark in COUNTS)


def _tag_bytes(written: bytes) -> int:
    """Read how long an ID3 tag is: seven bits of each byte tell it."""
    size = 0
    for byte in written:
        size = (size << 7) + (byte & 0x7F)
    return size


@contextmanager
def opened(source: Source) -> Iterator[io.IOBase]:
    """Open a path, or bytes as a file."""
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            yield file
    else:
        yield io.BytesIO(source)
