"""Audio: bytes to samples at 16 kHz and back, segments cut out, durations told from headers.

torch and soundfile are imported where they are used: packing and checking lists works without
loading them. Features are made in log_mel.py.
"""

from __future__ import annotations

import io
import math
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wenet_osum.dataset import mp3, ogg
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.log_mel import HOP
from wenet_osum.dataset.mp3 import Source
from wenet_osum.dataset.riff import FLOAT, PCM, Riff, check_whole, read_riff
from wenet_osum.records import SAMPLE_RATE

if TYPE_CHECKING:
    import soundfile
    from torchaudio.transforms import Resample

MIN_SAMPLES = HOP  # shorter audio has no frame and is dropped
HEAD = 4096  # bytes that nearly always hold all header chunks
RATES = (1000, 768_000)  # Hz; anything else is a rate in kHz or no rate at all
# Refused when cut short; of other formats what is left is decoded.
EXACT = ("FLAC", "WAV", "WAVEX")
# Follows what says which recordings can be read.
FFMPEG_HINT = "ffmpeg -i yours out.wav makes one"
UNRECOGNIZED = 1  # libsndfile's code for a format it does not know
UNCOUNTED = 1 << 48  # samples that no recording has: libsndfile's answer where a header says none
# The kernel of a resampling between rates with larger numbers in their ratio takes gigabytes.
LARGEST_RATIO = 2000
# How segments are written: libsndfile's format to the type of numbers that keeps it bit-exact.
EXACT_TYPES = {"PCM_16": "int16", "PCM_24": "int32", "PCM_32": "int32", "FLOAT": "float32"}


def decode(
    data: bytes | memoryview, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """Decode an audio file to mono float32 at 16 kHz, (samples,); channels are averaged.

    ``start`` and ``end`` (s) take a segment. Full scale is 1.0; louder float audio stays as it is.
    Raises Drop for audio that cannot be read, is empty or cut short, is shorter than 10 ms, holds
    NaN or infinity, has a rate outside 1 to 768 kHz, or is an Ogg file joined of several. A cut MP3
    or Ogg is as long as what is left.
    """
    audio, rate = _samples(data)
    check_file_rate(rate)
    audio = _segment(audio, rate, start, end)
    audio = resample(_mono(audio), rate)
    if len(audio) < MIN_SAMPLES:
        reason = "audio: shorter than 10 ms" if len(audio) else "audio: empty"
        raise Drop(reason, f"{len(audio)} samples at 16 kHz, {MIN_SAMPLES} are needed")
    return audio


def _samples(data: bytes | memoryview) -> tuple[np.ndarray, int]:
    """Read (samples,) or (samples, channels) float32, and the rate in Hz. Raises Drop."""
    riff = read_riff(data)
    check_whole(data, riff)
    # nearly all corpora are 16-bit WAV: its bytes are the samples
    if riff and riff.is_pcm16:
        return _pcm16(data, riff), riff.rate
    return _by_soundfile(data)


def _pcm16(data: bytes | memoryview, riff: Riff) -> np.ndarray:
    """Read the samples of a 16-bit WAV."""
    count = riff.samples(len(data)) * riff.channels
    integers = np.frombuffer(data, "<i2", count, riff.data)
    audio = integers.astype(np.float32)
    audio *= np.float32(1 / 32768)
    if riff.channels == 1:
        return audio
    return audio.reshape(-1, riff.channels)


def _by_soundfile(data: bytes | memoryview) -> tuple[np.ndarray, int]:
    """Read any format that libsndfile knows. Raises Drop."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_counted(file)
            uncounted = mp3.is_uncounted(file, data)
            # Their number is given, as GSM 6.10 in WAV cannot seek to find it.
            audio = mp3.read(data) if uncounted else file.read(file.frames, dtype="float32")
            rate = file.samplerate
            promised = file.frames
            exact = file.format in EXACT
    except Drop:
        raise
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        head = bytes(data[:8])
        raise unreadable(f"{len(data)} bytes starting {head!r}", error) from None

    if ogg.is_joined(data):
        told = f"its first part has {promised} samples ({FFMPEG_HINT})"
        raise Drop("audio: Ogg files joined into one", told)
    if exact and len(audio) < promised:
        told = f"the header promises {promised} samples"
        raise Drop("audio: cut short", f"{told}, {len(audio)} can be decoded")
    finite = np.isfinite(audio)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        told = f"sample {bad} is {audio.flat[bad]}"
        raise Drop("audio: NaN or infinity", f"{told}; every sample must be a finite number")
    return audio, rate


def unreadable(what: str, error: Exception) -> Drop:
    """Return the Drop for audio that soundfile cannot open, with a hint for unknown formats."""
    reason = getattr(error, "error_string", error)
    told = f"{what}: {reason}"
    if getattr(error, "code", None) == UNRECOGNIZED:
        told += f" It must be a recording such as WAV, FLAC, MP3 or Ogg ({FFMPEG_HINT})"
    return Drop("audio: unreadable", told)


def check_file_rate(rate: int) -> None:
    """Raise Drop for a sample rate that no recording has: resampling takes memory by the rate."""
    lowest, highest = RATES
    if not lowest <= rate <= highest:
        reason = f"audio: sample rate outside {lowest} to {highest} Hz"
        raise Drop(reason, f"the header says {rate} Hz; write the file again with the right one")


def _mono(audio: np.ndarray) -> np.ndarray:
    """Average channels: (samples,) float32 of audio with or without an axis of them."""
    if audio.ndim == 1:
        return audio
    return audio.mean(axis=1, dtype=np.float32)


def _segment(audio: np.ndarray, rate: int, start: float | None, end: float | None) -> np.ndarray:
    """Take the samples from ``start`` to ``end`` (s). Raises Drop where there are none."""
    if start is None and end is None:
        return audio
    first = round((start or 0.0) * rate)
    last = len(audio)
    if end is not None:
        last = round(end * rate)
    if first >= len(audio):
        ends = len(audio) / rate
        told = f"start {start} s, the recording ends at {ends:.2f} s"
        raise Drop("audio: segment outside the recording", told)
    return audio[first:last]


def cut(source: Source, start: float | None, end: float | None) -> bytes:
    """Cut a segment (s) out of a recording, as WAV in its own sample format.

    Integer formats stay bit-exact. Raises Drop.
    """
    import soundfile

    try:
        with soundfile.SoundFile(_opened(source)) as file:
            rate = file.samplerate
            if mp3.is_uncounted(file, source):
                return write_wav(_segment(mp3.read(source), rate, start, end), rate, "FLOAT")
            first, last = _span(file, start, end)
            subtype = file.subtype if file.subtype in EXACT_TYPES else "FLOAT"
            # What cannot seek is read from its beginning.
            skipped = first
            if file.seekable():
                skipped = 0
                file.seek(first)
            audio = file.read(
                last - first + skipped,
                dtype=EXACT_TYPES[subtype],
                always_2d=True,
            )
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise unreadable("recording of a segment", error) from None
    return write_wav(audio[skipped:], rate, subtype)


def _span(file: soundfile.SoundFile, start: float | None, end: float | None) -> tuple[int, int]:
    """Return the first sample of a segment and the one after its last. Raises Drop."""
    first = round((start or 0.0) * file.samplerate)
    last = file.frames
    if end is not None:
        last = min(last, round(end * file.samplerate))
    if first >= last:
        whole = file.frames / file.samplerate
        told = f"{start} to {end} s of {whole:.2f} s"
        raise Drop("audio: segment outside the recording", told)
    return first, last


def _opened(source: Source) -> str | io.BytesIO:
    """Return what soundfile opens: a path, or bytes as a file."""
    if isinstance(source, (str, Path)):
        return str(source)
    return io.BytesIO(source)


def write_wav(audio: np.ndarray, rate: int = SAMPLE_RATE, subtype: str = "PCM_16") -> bytes:
    """Write samples as the bytes of a WAV file.

    Float audio beyond full scale is clipped in PCM formats, never wrapped.
    """
    import soundfile

    if audio.dtype.kind == "f" and subtype == "PCM_16":
        whole = np.rint(audio * 32768.0)
        audio = np.clip(whole, -32768, 32767).astype(np.int16)
    out = io.BytesIO()
    soundfile.write(out, audio, rate, subtype=subtype, format="WAV")
    return out.getvalue()


def convert(data: bytes, rate: int) -> bytes:
    """Write an audio file at another rate (Hz), as 16-bit mono WAV.

    Returns the same bytes when it has that rate already. Raises Drop.
    """
    audio, own_rate = _samples(data)
    check_file_rate(own_rate)
    if own_rate == rate:
        return data
    audio = resample(_mono(audio), own_rate, rate)
    return write_wav(audio, rate)


def resample(audio: np.ndarray, rate: int, to: int = SAMPLE_RATE) -> np.ndarray:
    """Change (samples,) float32 from ``rate`` Hz to ``to`` Hz.

    It is torchaudio's windowed sinc, its kernel kept for the next call.
    """
    audio = np.ascontiguousarray(audio, dtype=np.float32)
    if rate == to or not len(audio):
        return audio
    common = math.gcd(rate, to)
    before, after = rate // common, to // common

    # Polyphase filtering needs no kernel for every place between two samples.
    if max(before, after) > LARGEST_RATIO:
        from scipy.signal import resample_poly

        return resample_poly(audio, after, before).astype(np.float32)

    import torch

    changed = _resampler(before, after)(torch.from_numpy(audio))
    return changed.numpy()


@lru_cache(maxsize=32)
def _resampler(rate: int, to: int) -> Resample:
    import torchaudio

    return torchaudio.transforms.Resample(rate, to)


def read_duration(source: Source) -> float:
    """Return the duration in s as the header tells it, of a file or of its first bytes.

    RIFF and FLAC are read without decoding; of any other format soundfile needs the whole file.
    Raises Drop when the audio cannot be read or is empty.
    """
    if isinstance(source, (str, Path)):
        head, total = _read_head(source)
    else:
        head, total = source, len(source)
    seconds = _header_seconds(head, total)
    if seconds is None:
        seconds = _seconds_by_soundfile(source, head)
    if seconds <= 0:
        raise Drop("audio: empty", "the header counts no samples")
    return seconds


def whole_duration(data: bytes) -> float:
    """Do ``check_whole`` and ``read_duration`` of a file's bytes, its header read once."""
    riff = read_riff(data)
    check_whole(data, riff)
    if _tells_duration(riff):
        seconds = riff.seconds(len(data))
        if seconds:
            return seconds
    return read_duration(data)


def _tells_duration(riff: Riff | None) -> bool:
    """Tell whether the header of a RIFF file counts its samples: compressed ones it does not."""
    return riff is not None and riff.codec in (PCM, FLOAT)


def _read_head(path: str | Path) -> tuple[bytes, int]:
    """Read the first bytes of a file, and how many it has. Raises Drop."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return file.read(HEAD), size
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "audio: file not found" if missing else "audio: unreadable"
        raise Drop(reason, f"{path}: {error.strerror}") from None


def _header_seconds(head: bytes | memoryview, total: int) -> float | None:
    """Read the duration of a file of ``total`` bytes from its first ones; None: they do not say."""
    if not total:
        return 0.0
    riff = read_riff(head)
    if _tells_duration(riff):
        return riff.seconds(total)
    if _is_flac(head):
        # 64 bits: rate 20, channels 3, sample size 5, samples 36
        bits = int.from_bytes(head[18:26], "big")
        rate = bits >> 44
        samples = bits & ((1 << 36) - 1)
        if rate and samples:
            return samples / rate
    return None


def _is_flac(head: bytes | memoryview) -> bool:
    """Tell whether a file begins with FLAC's own header."""
    if len(head) < 26:
        return False
    first_block = head[4] & 0x7F
    return bytes(head[:4]) == b"fLaC" and first_block == 0


def _seconds_by_soundfile(source: Source, head: bytes | memoryview) -> float:
    """Count the samples of any format that libsndfile knows. Raises Drop."""
    import soundfile

    try:
        with soundfile.SoundFile(_opened(source)) as file:
            return _count_samples(file, source) / file.samplerate
    except Drop:
        raise
    except (soundfile.SoundFileError, RuntimeError, TypeError, ZeroDivisionError) as error:
        first = bytes(head[:8])
        raise unreadable(f"starting {first!r}", error) from None


def _count_samples(file: soundfile.SoundFile, source: Source) -> int:
    """Return the number of samples; an MP3 without a count of its frames is decoded for it."""
    _check_counted(file)
    if mp3.is_uncounted(file, source):
        return mp3.count(source)
    return file.frames


def _check_counted(file: soundfile.SoundFile) -> None:
    """Raise Drop for a FLAC that was written to a pipe, whose header has no number of samples."""
    if file.frames >= UNCOUNTED:
        told = f"write it to a file, not a pipe ({FFMPEG_HINT})"
        raise Drop("audio: its header does not count the samples", told)
