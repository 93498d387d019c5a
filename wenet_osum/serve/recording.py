"""Check whether an upload is a recording that the server will decode.

Its bytes decide, not its name and not what the client says it is.
"""

from __future__ import annotations

import io

from wenet_osum.dataset import mp3
from wenet_osum.dataset.audio import FFMPEG_HINT
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.riff import check_whole
from wenet_osum.dataset.sound import MOST_CHANNELS, RATES
from wenet_osum.serve.fault import Fault

# First bytes of a file → its format.
MARKS = {
    b"RIFF": "WAV",
    b"RF64": "WAV",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
}
# Hz; a header may claim anything, and resampling from odd rates takes memory by the rate.
MAX_RATE = 192_000
# More frames than this libsndfile counts when a stream does not say how long it is.
UNKNOWN_FRAMES = 1 << 60


def kind(data: bytes) -> str | None:
    """Return the format by its first bytes; None for what this server does not open."""
    # Each frame of MP3 begins with eleven bits that are 1.
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "MP3"
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return name
    return None


def duration(data: bytes, max_seconds: float) -> float:
    """Return the duration of a recording, s, by its header; of an MP3 without a count by its sound.

    Raises Fault for what is none, is cut short, too long, or of an unlikely shape.
    """
    if not data:
        raise _bad("the file is empty")
    if kind(data) is None:
        formats = sorted(set(MARKS.values()))
        known = ", ".join(formats)
        rule = "the file is no recording this server can read"
        raise _bad(f"{rule}; it takes {known} ({FFMPEG_HINT})")
    frames, rate, channels = _header(data, max_seconds)
    if not frames:
        raise _bad("the file holds no samples")
    if frames > UNKNOWN_FRAMES:
        advice = "write it again to a file that does (ffmpeg -i yours out.wav)"
        raise _bad(f"the file does not say how long it is; {advice}")

    lowest, _ = RATES
    if not lowest <= rate <= MAX_RATE or not 1 <= channels <= MOST_CHANNELS:
        rule = f"{lowest} to {MAX_RATE} Hz and up to {MOST_CHANNELS} channels"
        raise _bad(f"{rate} Hz and {channels} channels: this server takes {rule}")

    seconds = frames / rate
    if seconds > max_seconds:
        rule = f"{max_seconds:g} s is the most this server takes"
        fault = f"the recording lasts {seconds:.1f} s, and {rule}"
        raise Fault(413, fault, "file", "audio_too_long")
    return seconds


def _header(data: bytes, max_seconds: float) -> tuple[int, int, int]:
    """Return frames, rate in Hz and channels. Raises Fault for a file that cannot be read."""
    import soundfile

    try:
        check_whole(data)
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            frames = file.frames
            rate = file.samplerate
            # The header of such a file leaves it to a guess; what is too long is not counted out.
            if mp3.is_uncounted(file, data):
                frames = mp3.count(data, max_seconds * rate)
            return frames, rate, file.channels
    except Drop as error:
        raise _bad(str(error)) from None
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError):
        name = kind(data)
        raise _bad(f"the file begins like {name} and cannot be read as such") from None


def _bad(message: str) -> Fault:
    return Fault(400, message, "file", "invalid_audio")
