"""The requests of serve_load.py: good ones with noise of many kinds, and every kind of bad one."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import soundfile

from wenet_osum.dataset.audio import write_wav

MAX_SECONDS = 40.0  # limits of the server under test
MAX_MB = 7.0
TASKS = (
    "asr",
    "srwt",
    "ser",
    "<TRANSCRIBE><EMOTION><GENDER>",
    "<AGE><GENDER>",
    "<STYLE><TRANSCRIBE>",
    "sttc",
)
BAD_SHARE = 1 / 6
LONG_SHARE = 0.03  # of the sounds: over 30 s, decoded in pieces
FORMS = [(16000, "WAV"), (16000, "FLAC"), (44100, "WAV"), (8000, "OGG")]  # rate, format


@dataclass
class Ask:
    """A request, and the status it should be answered with."""

    data: bytes | None
    fields: dict[str, str]
    status: int = 200
    sound: int = -1  # number of the good sound
    kind: str = "good"


def sounds(number: int, draws: np.random.Generator) -> list[bytes]:
    """Make bursts of noise in several formats, rates and lengths."""
    long = math.ceil(LONG_SHARE * number)
    found = []
    for place in range(number):
        rate, form = FORMS[place % len(FORMS)]
        shortest = 31.0 if place < long else 0.3
        seconds = shortest + 4 * draws.random()
        noise = bursts(seconds, rate, draws)

        # One in five has two channels.
        if place % 5 == 4:
            noise = np.stack([noise, 0.5 * noise], 1)
        out = io.BytesIO()
        soundfile.write(
            out,
            noise,
            rate,
            format=form,
        )
        found.append(out.getvalue())
    return found


def bursts(seconds: float, rate: int, draws: np.random.Generator) -> np.ndarray:
    """Draw noise, (samples,), whose loudness changes every 0.2 s."""
    changes = math.ceil(seconds / 0.2)
    levels = draws.random(changes)
    loudness = np.repeat(levels, round(0.2 * rate))
    samples = round(seconds * rate)
    loudness = loudness[:samples]
    noise = draws.standard_normal(len(loudness))
    return (0.3 * loudness * noise).clip(-1, 1)


def bad_asks(good: bytes) -> list[Ask]:
    """Return one of each kind of bad request; ``good`` is a WAV file."""
    asr = {"task": "asr"}
    half = len(good) // 2
    samples = round(8000 * (MAX_SECONDS + 5))
    silence = np.zeros(samples, np.float32)
    long = write_wav(silence, 8000)
    large = b"RIFF" + bytes(round(1.2e6 * MAX_MB))
    return [
        Ask(
            b"this is no recording" * 50,
            asr,
            400,
            kind="not audio",
        ),
        Ask(b"", asr, 400, kind="empty"),
        Ask(good[:half], asr, 400, kind="cut short"),
        Ask(long, asr, 413, kind="too long"),
        Ask(large, asr, 413, kind="too large"),
        Ask(None, asr, 400, kind="no file"),
        Ask(good, {"task": "emotionn"}, 400, kind="unknown task"),
        Ask(good, {"response_format": "docx"}, 400, kind="unknown format"),
    ]


def make_asks(number: int, good: list[bytes], seed: int = 1) -> list[Ask]:
    """Make requests in a mixed order, bad ones among them."""
    wavs = [data for data in good if data[:4] == b"RIFF"]
    shortest = min(wavs, key=len)
    bad = bad_asks(shortest)
    count = round(number * BAD_SHARE)
    asks = []
    for place in range(count):
        kind = place % len(bad)
        asks.append(bad[kind])
    for place in range(number - count):
        sound = place % len(good)
        fields = {
            "task": TASKS[sound % len(TASKS)],
            "response_format": "verbose_json",
        }
        asks.append(Ask(good[sound], fields, 200, sound))

    # Bad ones come between the good.
    draws = np.random.default_rng(seed)
    order = draws.permutation(number)
    return [asks[place] for place in order]
