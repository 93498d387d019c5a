"""Find the samples of a RIFF file (WAV) from its header alone.

A RIFF file is a row of chunks: four bytes of name, four of size, then the content, padded to an
even length. ``fmt `` says how the samples are written, ``data`` holds them. Microsoft and IBM,
Multimedia Programming Interface and Data Specifications 1.0, 1991.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from wenet_osum.dataset.drop import Drop

PCM, FLOAT = 1, 3  # codecs
_EXTENSIBLE = 0xFFFE  # the codec stands further on in the chunk
# Declared sizes from here on mean "unknown": the writer could not seek back.
_STREAMED = 0x7FFFF000
_HEAD = struct.Struct("<4sI4s")  # RIFF, size of all that follows, WAVE
_CHUNK = struct.Struct("<4sI")  # name and size
_FORMAT = struct.Struct("<HHIIHH")  # codec, channels, rate, bytes per second, block, bits
_SUBFORMAT = struct.Struct("<24xH")  # the codec of an extensible format


class Format(NamedTuple):
    """The encoding of samples."""

    codec: int
    channels: int
    rate: int  # Hz
    block: int  # bytes of a sample of all channels
    bits: int


class Riff(NamedTuple):
    """The encoding and the position of the samples in a RIFF file."""

    codec: int
    channels: int
    rate: int  # Hz
    block: int  # bytes of a sample of all channels
    bits: int
    data: int  # byte where the samples begin
    size: int | None  # bytes of samples as declared, None when the header does not know

    @property
    def is_pcm16(self) -> bool:
        """Tell whether samples are 16-bit integers without gaps."""
        written = (self.codec, self.bits)
        whole = 2 * self.channels
        return written == (PCM, 16) and self.block == whole

    def samples(self, total: int) -> int:
        """Count the samples of one channel in a file of ``total`` bytes."""
        size = self.size
        if size is None:
            size = total - self.data
        return size // self.block

    def seconds(self, total: int) -> float:
        """Return the duration in s of a file of ``total`` bytes."""
        samples = self.samples(total)
        return samples / self.rate


def read_riff(data: bytes | memoryview) -> Riff | None:
    """Walk the chunks of a RIFF file up to its samples.

    Returns None for any other file, and where the samples lie behind the end of ``data``.
    """
    if len(data) < 12:
        return None
    kind, whole, form = _HEAD.unpack_from(data)
    if kind != b"RIFF" or form != b"WAVE":
        return None

    written = None
    at = 12
    while at + 8 <= len(data):
        name, size = _CHUNK.unpack_from(data, at)
        content = at + 8
        if name == b"fmt " and content + 16 <= len(data):
            written = _read_format(data, content, size)
        elif name == b"data":
            # samples of which nothing is known cannot be read
            if written is None or 0 in (written.channels, written.rate, written.block):
                return None
            return Riff(*written, content, _declared(size, whole))
        at = content + size + size % 2
    return None


def _read_format(data: bytes | memoryview, at: int, size: int) -> Format:
    """Read the content of a ``fmt `` chunk, of ``size`` bytes from byte ``at``."""
    codec, channels, rate, _, block, bits = _FORMAT.unpack_from(data, at)

    # An extensible format holds the codec at the head of a longer name, if it is there.
    there = min(size, len(data) - at)
    if codec == _EXTENSIBLE and there >= _SUBFORMAT.size:
        [codec] = _SUBFORMAT.unpack_from(data, at)
    return Format(codec, channels, rate, block, bits)


def _declared(size: int, whole: int) -> int | None:
    """Return the size of the samples; None where a writer to a pipe could not know it."""
    nothing_yet = size == 0 and whole in (0, 0xFFFFFFFF)
    if size >= _STREAMED or nothing_yet:
        return None
    return size


def check_whole(data: bytes | memoryview, riff: Riff | None = None) -> None:
    """Raise Drop when a RIFF file ends before the samples that its header promises.

    ``riff`` is the header, where it has been read.
    """
    riff = riff or read_riff(data)
    if riff is None:
        return
    # a header that does not know promises nothing
    if riff.size is None:
        return
    there = len(data) - riff.data
    if riff.size > there:
        promised = f"the header promises {riff.size} bytes of samples"
        raise Drop("audio: cut short", f"{promised}, {there} are there")
