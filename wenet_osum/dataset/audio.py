"""Audio: bytes → samples at 16 kHz, durations from headers, and the log-mel features of Whisper.

torch, librosa and soundfile are imported where they are used: packing and checking lists works without loading them.
"""

from __future__ import annotations

import io
import math
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wenet_osum.dataset.drop import Drop
from wenet_osum.records import SAMPLE_RATE

if TYPE_CHECKING:
    import soundfile
    import torch
    from torch import Tensor

N_FFT, HOP = 400, 160  # samples: 25 ms window, 10 ms hop
MIN_SAMPLES = HOP  # shorter audio has no frame and is dropped
MIN_PADDED = N_FFT // 2 + 1  # log_mel pads shorter audio with zeros up to this, or the reflection at the edges fails
BAND = 16  # mel bins computed together: fewer make products of zeros rarer, and matrix products slower
HEAD = 4096  # bytes that nearly always hold all header chunks
RATES = (1000, 768_000)  # Hz; anything else is a rate in kHz or no rate at all
EXACT = ("FLAC", "WAV", "WAVEX")  # refused when cut short; of other formats what is left is decoded
FFMPEG_HINT = "ffmpeg -i yours out.wav makes one"  # after what says which recordings can be read
UNRECOGNIZED = 1  # libsndfile's code for a format it does not know
COUNTS = (b"Xing", b"Info", b"VBRI")  # marks of an MP3 whose first frame counts the others
COUNTED_SAMPLES = 1 << 16  # read at once to count those of an MP3 that does not
_STREAMED = 0x7FFFF000  # declared sizes from here on mean "unknown": the writer could not seek back


class Riff(NamedTuple):
    """Where a RIFF file keeps its samples."""

    codec: int  # 1 PCM, 3 float
    channels: int
    rate: int  # Hz
    block: int  # bytes a sample of all channels
    bits: int
    data: int  # byte where the samples begin
    size: int | None  # bytes of samples as declared, None when the header does not know


def decode(data: bytes | memoryview, start: float | None = None, end: float | None = None) -> np.ndarray:
    """Decode an audio file to mono float32 at 16 kHz, (samples,); channels are averaged.

    ``start`` and ``end`` (s) take a segment. Full scale is 1.0; louder float audio stays as it is. Raises Drop for audio that cannot be read,
    is empty or cut short, is shorter than 10 ms, holds NaN or infinity, or has a rate outside 1 to
    768 kHz. A cut MP3 or Ogg is as long as what is left.
    """
    audio, rate = _samples(data)
    check_file_rate(rate)
    audio = _segment(audio, rate, start, end)
    if audio.ndim == 2:
        audio = audio.mean(axis=1, dtype=np.float32)
    audio = resample(audio, rate)
    if len(audio) < MIN_SAMPLES:
        raise Drop("audio: shorter than 10 ms" if len(audio) else "audio: empty", f"{len(audio)} samples at 16 kHz, {MIN_SAMPLES} are needed")
    return audio


def _samples(data: bytes | memoryview) -> tuple[np.ndarray, int]:
    """(samples,) or (samples, channels) float32, and the rate in Hz."""
    riff = read_riff(data)
    check_whole(data, riff)
    if riff and riff.codec == 1 and riff.bits == 16 and riff.block == 2 * riff.channels:
        size = (len(data) - riff.data) if riff.size is None else riff.size
        audio = np.frombuffer(data, "<i2", size // riff.block * riff.channels, riff.data).astype(np.float32)
        audio *= np.float32(1 / 32768)
        return (audio.reshape(-1, riff.channels) if riff.channels > 1 else audio), riff.rate
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            audio, rate, promised = file.read(dtype="float32"), file.samplerate, file.frames
            exact = file.format in EXACT
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise unreadable(f"{len(data)} bytes starting {bytes(data[:8])!r}", error) from None
    if exact and len(audio) < promised:
        raise Drop("audio: cut short", f"the header promises {promised} samples, {len(audio)} can be decoded")
    if not np.isfinite(audio).all():
        bad = int(np.flatnonzero(~np.isfinite(audio))[0])
        raise Drop("audio: NaN or infinity", f"sample {bad} is {audio.flat[bad]}; every sample must be a finite number")
    return audio, rate


def unreadable(what: str, error: Exception) -> Drop:
    """Return the Drop for audio that soundfile cannot open, with a hint for unknown formats."""
    told = f"{what}: {getattr(error, 'error_string', error)}"
    if getattr(error, "code", None) == UNRECOGNIZED:
        told += f" It must be a recording such as WAV, FLAC, MP3 or Ogg ({FFMPEG_HINT})"
    return Drop("audio: unreadable", told)


def check_file_rate(rate: int) -> None:
    """Raise Drop for a sample rate that no recording has: resampling takes memory by the rate."""
    if not RATES[0] <= rate <= RATES[1]:
        reason = f"audio: sample rate outside {RATES[0]} to {RATES[1]} Hz"
        raise Drop(reason, f"the header says {rate} Hz; write the file again with the right one")


def check_whole(data: bytes | memoryview, riff: Riff | None = None) -> None:
    """Raise Drop when a RIFF file ends before the samples its header (``riff``, if it has been read) promises."""
    riff = riff or read_riff(data)
    if riff and riff.size is not None and riff.data + riff.size > len(data):
        raise Drop("audio: cut short", f"the header promises {riff.size} bytes of samples, {len(data) - riff.data} are there")


def _segment(audio: np.ndarray, rate: int, start: float | None, end: float | None) -> np.ndarray:
    if start is None and end is None:
        return audio
    first, last = round((start or 0.0) * rate), len(audio) if end is None else round(end * rate)
    if first >= len(audio):
        raise Drop("audio: segment outside the recording", f"start {start} s, the recording ends at {len(audio) / rate:.2f} s")
    return audio[first:last]


def cut(source: bytes | str | Path, start: float | None, end: float | None) -> bytes:
    """A segment of a recording (file or its bytes) as WAV in the recording's own sample format; integer formats stay bit-exact. Raises Drop."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, (bytes, memoryview)) else str(source)) as file:
            first = round((start or 0.0) * file.samplerate)
            last = file.frames if end is None else min(round(end * file.samplerate), file.frames)
            if first >= last:
                raise Drop("audio: segment outside the recording", f"{start} to {end} s of {file.frames / file.samplerate:.2f} s")
            subtype = file.subtype if file.subtype in ("PCM_16", "PCM_24", "PCM_32") else "FLOAT"
            file.seek(first)
            audio = file.read(last - first, dtype={"PCM_16": "int16", "FLOAT": "float32"}.get(subtype, "int32"), always_2d=True)
            rate = file.samplerate
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise unreadable("recording of a segment", error) from None
    return write_wav(audio, rate, subtype)


def write_wav(audio: np.ndarray, rate: int = SAMPLE_RATE, subtype: str = "PCM_16") -> bytes:
    """Samples as the bytes of a WAV file. Float audio beyond full scale is clipped in PCM formats, never wrapped."""
    import soundfile

    if audio.dtype.kind == "f" and subtype == "PCM_16":
        audio = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)
    out = io.BytesIO()
    soundfile.write(out, audio, rate, subtype=subtype, format="WAV")
    return out.getvalue()


def convert(data: bytes, rate: int) -> bytes:
    """An audio file at another rate (Hz), as 16-bit mono WAV; the same bytes when it has that rate already. Raises Drop."""
    audio, own = _samples(data)
    check_file_rate(own)
    if own == rate:
        return data
    return write_wav(resample(audio.mean(axis=1, dtype=np.float32) if audio.ndim == 2 else audio, own, rate), rate)


def resample(audio: np.ndarray, rate: int, to: int = SAMPLE_RATE) -> np.ndarray:
    """(samples,) float32 at ``rate`` Hz → at ``to`` Hz, by torchaudio's windowed sinc with the kernel kept."""
    if rate == to or not len(audio):
        return np.ascontiguousarray(audio, dtype=np.float32)
    common = math.gcd(rate, to)
    if max(rate, to) // common > 2000:  # the kernel of such odd pairs would take gigabytes; polyphase filtering does not
        from scipy.signal import resample_poly

        return resample_poly(audio, to // common, rate // common).astype(np.float32)
    import torch

    return _resampler(rate // common, to // common)(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))).numpy()


@lru_cache(maxsize=32)
def _resampler(rate: int, to: int):
    import torchaudio

    return torchaudio.transforms.Resample(rate, to)


def read_duration(source: bytes | memoryview | str | Path) -> float:
    """Duration in s from the header (of a file, or of its first bytes): RIFF and FLAC without decoding, others by soundfile.

    Bytes must be the whole file for formats other than RIFF and FLAC. Raises Drop when the audio cannot be read or is empty.
    """
    if isinstance(source, (str, Path)):
        data, total = _read_head(source)
    else:
        data, total = source, len(source)
    seconds = _header_seconds(data, total)
    if seconds is None:
        import soundfile

        try:
            opened = str(source) if isinstance(source, (str, Path)) else io.BytesIO(source)
            with soundfile.SoundFile(opened) as file:
                seconds = _count_samples(file, source) / file.samplerate
        except (soundfile.SoundFileError, RuntimeError, TypeError, ZeroDivisionError) as error:
            raise unreadable(f"starting {bytes(data[:8])!r}", error) from None
    if seconds <= 0:
        raise Drop("audio: empty", "the header counts no samples")
    return seconds


def _count_samples(file: soundfile.SoundFile, source: bytes | memoryview | str | Path) -> int:
    """Return the number of samples; an MP3 without a count of its frames is decoded for it.

    libsndfile guesses by the bits of the first frame, which is several times too many
    where silence comes first and the rate of bits varies.
    """
    if file.format != "MP3" or _counts_frames(source):
        return file.frames
    counted = 0
    while size := len(file.read(COUNTED_SAMPLES, dtype="float32")):
        counted += size
    return counted


def _counts_frames(source: bytes | memoryview | str | Path) -> bool:
    """Whether the first frame of an MP3, after an ID3 tag, holds their number."""
    with open(source, "rb") if isinstance(source, (str, Path)) else io.BytesIO(source) as file:
        head = file.read(10)
        # Seven bits a byte tell how long the tag is.
        tag = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(head[6:])))
        file.seek(10 + tag if head[:3] == b"ID3" else 0)
        frame = file.read(HEAD)
    return any(mark in frame for mark in COUNTS)


def _read_head(path: str | Path) -> tuple[bytes, int]:
    try:
        with open(path, "rb") as file:
            return file.read(HEAD), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise Drop("audio: file not found" if isinstance(error, FileNotFoundError) else "audio: unreadable", f"{path}: {error.strerror}") from None


def whole_duration(data: bytes) -> float:
    """``check_whole`` and ``read_duration`` of a file's bytes, its header read once."""
    riff = read_riff(data)
    if riff and riff.codec in (1, 3) and (seconds := _riff_seconds(riff, len(data))):
        check_whole(data, riff)
        return seconds
    check_whole(data)
    return read_duration(data)


def _riff_seconds(riff: Riff, total: int) -> float:
    size = total - riff.data if riff.size is None else riff.size
    return size // riff.block / riff.rate


def _header_seconds(data: bytes | memoryview, total: int) -> float | None:
    if not total:
        return 0.0
    riff = read_riff(data)
    if riff and riff.codec in (1, 3):
        return _riff_seconds(riff, total)
    if bytes(data[:4]) == b"fLaC" and len(data) >= 26 and data[4] & 0x7F == 0:
        bits = int.from_bytes(data[18:26], "big")  # rate 20, channels 3, sample size 5, samples 36 bits
        rate, samples = bits >> 44, bits & ((1 << 36) - 1)
        return samples / rate if rate and samples else None
    return None


def read_riff(data: bytes | memoryview) -> Riff | None:
    """Walk the chunks of a RIFF file up to its samples; None when it is none, or they lie behind the end of ``data``."""
    if len(data) < 12 or bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WAVE":
        return None
    whole, at, form = struct.unpack_from("<I", data, 4)[0], 12, None
    while at + 8 <= len(data):
        name, size = bytes(data[at : at + 4]), struct.unpack_from("<I", data, at + 4)[0]
        if name == b"fmt " and at + 24 <= len(data):
            codec, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", data, at + 8)
            if codec == 0xFFFE and size >= 26 and at + 34 <= len(data):
                codec = struct.unpack_from("<H", data, at + 32)[0]
            form = (codec, channels, rate, block, bits)
        elif name == b"data":
            known = size < _STREAMED and not (size == 0 and whole in (0, 0xFFFFFFFF))
            return Riff(*form, at + 8, size if known else None) if form and all(form[1:4]) else None
        at += 8 + size + size % 2
    return None


def log_mel(audio: np.ndarray, mels: int = 80) -> Tensor:
    """Whisper's log-mel features: (samples,) at 16 kHz → (frames, mels) float32, a frame every 10 ms, samples // 160 in all.

    Audio under 201 samples is padded with zeros to 201, so there is at least one frame. Digital silence is −1.5.
    """
    import torch

    wave = torch.from_numpy(reflected(audio))
    spectrum = torch.stft(wave, N_FFT, HOP, window=mel_window(), center=False, return_complex=True)
    parts = torch.view_as_real(spectrum.T[:-1]).reshape(-1, N_FFT + 2)  # (frames, 402): real and imaginary side by side
    parts.square_()
    logs = torch.empty(len(parts), mels)
    for rows, columns, filters in _filter_bands(mels):  # the sum over both parts happens inside the products
        torch.mm(parts[:, columns], filters, out=logs[:, rows])
    logs.clamp_(min=1e-10).log10_()
    return logs.clamp_(min=logs.max() - 8.0).add_(4.0).mul_(0.25)


def reflected(audio: np.ndarray) -> np.ndarray:
    """(samples,) → (samples + 400,) float32: both ends continued by reflection, so that frames are centered. Short audio is first padded to 201 samples."""
    edge, size = N_FFT // 2, max(len(audio), MIN_PADDED)
    wave = np.zeros(size + N_FFT, dtype=np.float32)
    wave[edge : edge + len(audio)] = audio
    wave[:edge] = wave[2 * edge : edge : -1]
    wave[edge + size :] = wave[edge + size - 2 : size - 2 : -1]
    return wave


@lru_cache(maxsize=4)
def mel_window(device: torch.device | str = "cpu") -> Tensor:
    """The window of the log-mel features."""
    import torch

    return torch.hann_window(N_FFT, device=device)


@lru_cache(maxsize=4)
def doubled_filters(mels: int, device: torch.device | str = "cpu") -> Tensor:
    """Slaney mel filters, every row twice: (402, mels)."""
    import librosa
    import torch

    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=mels)  # (mels, 201)
    return torch.from_numpy(filters).float().repeat_interleave(2, dim=1).T.contiguous().to(device)


@lru_cache(maxsize=4)
def _filter_bands(mels: int) -> list[tuple[slice, slice, Tensor]]:
    """The doubled filters in bands of neighbors: mel bins, the columns where they are not zero, and those weights. A quarter of the products."""
    whole, bands = doubled_filters(mels), []
    for first in range(0, mels, BAND):
        rows = slice(first, first + BAND)
        used = whole[:, rows].any(dim=1).nonzero()
        columns = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((rows, columns, whole[columns, rows].contiguous()))
    return bands
