"""Whether an upload is a recording the server will decode. Its bytes decide, not its name and not what the client says it is."""

from __future__ import annotations

import io

from wenet_osum.dataset.audio import FFMPEG_HINT, check_whole
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.sound import MOST_CHANNELS, RATES
from wenet_osum.serve.fault import Fault

MARKS = {b"RIFF": "WAV", b"RF64": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF", b".snd": "AU", b"caff": "CAF"}
MAX_RATE = 192_000  # Hz; a header may claim anything, and resampling from odd rates takes memory by the rate
UNKNOWN_FRAMES = 1 << 60  # what libsndfile counts when a stream does not say how long it is


def kind(data: bytes) -> str | None:
    """The format by its first bytes; None for what this server does not open."""
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "MP3"
    return next((name for mark, name in MARKS.items() if data.startswith(mark)), None)


def duration(data: bytes, max_seconds: float) -> float:
    """Duration in s of a recording, by its header. Raises Fault for what is none, is cut short, too long, or of an unlikely shape."""
    if not data:
        raise _bad("the file is empty")
    if kind(data) is None:
        known = ", ".join(sorted(set(MARKS.values())))
        raise _bad(f"the file is no recording this server can read; it takes {known} ({FFMPEG_HINT})")
    frames, rate, channels = _header(data)
    if not frames:
        raise _bad("the file holds no samples")
    if frames > UNKNOWN_FRAMES:
        raise _bad("the file does not say how long it is; write it again to a file that does (ffmpeg -i yours out.wav)")
    if not RATES[0] <= rate <= MAX_RATE or not 1 <= channels <= MOST_CHANNELS:
        raise _bad(f"{rate} Hz and {channels} channels: this server takes {RATES[0]} to {MAX_RATE} Hz and up to {MOST_CHANNELS} channels")
    if frames / rate > max_seconds:
        why = f"the recording lasts {frames / rate:.1f} s, and {max_seconds:g} s is the most this server takes"
        raise Fault(413, why, "file", "audio_too_long")
    return frames / rate


def _header(data: bytes) -> tuple[int, int, int]:
    """Frames, rate in Hz and channels."""
    import soundfile

    try:
        check_whole(data)
        info = soundfile.info(io.BytesIO(data))
    except Drop as error:
        raise _bad(str(error)) from None
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        raise _bad(f"the file begins like {kind(data)} and cannot be read as such") from None
    return info.frames, info.samplerate, info.channels


def _bad(message: str) -> Fault:
    return Fault(400, message, "file", "invalid_audio")
