"""Bytes of a recording that is still being made: 16-bit PCM, bare or behind the header of a WAV."""

from __future__ import annotations

import numpy as np

from wenet_osum.dataset.riff import read_riff
from wenet_osum.dataset.sound import MOST_CHANNELS, RATES, of_pcm16
from wenet_osum.records import SAMPLE_RATE
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.recording import MARKS, MAX_RATE

# The header of a WAV is not longer than this, bytes.
LONGEST_HEADER = 65536
RIFF = b"RIFF"


class PCM:
    """Turns the bytes of a stream into mono samples, whatever borders they come in.

    ``rate`` (Hz) is that of bare samples, which are mono; None: 16 kHz. A WAV says its own.
    """

    def __init__(self, rate: int | None, max_seconds: float) -> None:
        self.rate = rate or SAMPLE_RATE
        self.max_seconds = max_seconds
        self.channels = 1
        # Bytes that no samples were made of yet, and whether they begin with samples.
        self.waiting = b""
        self.begun = False
        # Bytes of samples that a WAV still has; None: all that come.
        self.left: int | None = None
        self.seconds = 0.0

    def samples(self, data: bytes) -> np.ndarray:
        """Return the samples that ``data`` completes, float32 (samples,).

        Raises Fault for a WAV of another encoding, and for a recording that is too long.
        """
        self.waiting += data
        if not self.begun and not self._begin():
            return np.zeros(0, np.float32)
        # What follows the samples of a WAV, such as tags, is not heard.
        self.waiting = self.waiting[: self.left]
        size = 2 * self.channels
        whole = len(self.waiting) // size * size
        found = of_pcm16(self.waiting[:whole], self.channels)
        self.waiting = self.waiting[whole:]
        if self.left is not None:
            self.left -= whole

        self.seconds += len(found) / self.rate
        if self.seconds > self.max_seconds:
            rule = f"{self.max_seconds:g} s is the most this server takes"
            raise Fault(413, f"the recording goes on too long: {rule}", code="audio_too_long")
        return found

    def finish(self) -> None:
        """Raise Fault where no more comes behind a part of a WAV's header."""
        if not self.begun and self.waiting and RIFF.startswith(self.waiting[: len(RIFF)]):
            raise _bad("the stream ends within the header of its WAV")

    def _begin(self) -> bool:
        """Read the header if there is one; return whether samples can be read now."""
        start = self.waiting[: len(RIFF)]
        if len(start) < len(RIFF):
            return False
        if start != RIFF:
            _check_bare(start)
            self.begun = True
            return True
        riff = read_riff(self.waiting)
        if riff is None:
            if len(self.waiting) > LONGEST_HEADER:
                raise _bad("the WAV has no header that can be read")
            return False

        lowest, _ = RATES
        possible = lowest <= riff.rate <= MAX_RATE and riff.channels <= MOST_CHANNELS
        if not riff.is_pcm16 or not possible:
            raise _bad(
                f"a stream is 16-bit PCM of up to {MAX_RATE} Hz and {MOST_CHANNELS} channels"
            )
        self.rate, self.channels = riff.rate, riff.channels
        self.waiting = self.waiting[riff.data :]
        self.left = riff.size
        self.begun = True
        return True


def _check_bare(start: bytes) -> None:
    """Raise Fault for the first bytes of a file, which would be heard as noise.

    An MP3 without a tag begins as samples may.
    """
    for mark, name in MARKS.items():
        if start.startswith(mark):
            raise _bad(f"a stream is 16-bit PCM or a WAV of it, and this is {name}")


def _bad(message: str) -> Fault:
    return Fault(400, message, code="invalid_audio")
