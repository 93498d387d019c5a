"""Speech as it comes out of a telephone or a lossy file: coded and decoded again by libsndfile."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wenet_osum import lookup
from wenet_osum.dataset.audio import resample
from wenet_osum.records import SAMPLE_RATE


class Codec(NamedTuple):
    """A format of libsndfile and the rate it runs at."""

    form: str
    subtype: str
    rate: int  # Hz


CODECS = {
    "mulaw": Codec("WAV", "ULAW", 8000),  # G.711 of North American and Japanese telephones
    "alaw": Codec("WAV", "ALAW", 8000),  # G.711 of all others
    "gsm": Codec("WAV", "GSM610", 8000),  # GSM full rate, 13 kbit/s
    "adpcm": Codec("WAV", "IMA_ADPCM", 16000),  # 4 bits a sample
    "mp3": Codec("MP3", "MPEG_LAYER_III", 16000),
    "vorbis": Codec("OGG", "VORBIS", 16000),
    "opus": Codec("OGG", "OPUS", 16000),
}
WITH_LEVEL = ("MP3", "OGG")  # formats whose compression can be chosen


@dataclass(frozen=True)
class Effect:
    """Codes and decodes with a codec drawn from ``kinds``.

    Raises ValueError for an unknown codec.
    """

    kinds: list[str] = field(default_factory=lambda: list(CODECS))
    # of mp3, vorbis and opus: 0 best quality, 1 smallest
    compression: tuple[float, float] = (0.5, 0.99)

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in CODECS:
                raise ValueError(lookup.unknown("codec", kind, [*CODECS]))
        if not self.kinds:
            known = ", ".join(CODECS)
            raise ValueError(f"effect codec needs at least one of {known} in kinds")

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return audio as the codec leaves it. What a codec delays is moved back."""
        number = rng.integers(len(self.kinds))
        kind = self.kinds[number]
        level = rng.uniform(*self.compression)

        # Integers cannot hold what is beyond full scale: such audio is coded softer.
        magnitudes = np.abs(audio)
        peak = float(magnitudes.max(initial=0)) / 0.99
        scale = np.float32(max(1.0, peak))
        coded = _coded(audio / scale, CODECS[kind], level) * scale

        # A codec may give more samples than it took, or fewer.
        in_place = coded[delay(kind) :][: len(audio)]
        missing = len(audio) - len(in_place)
        whole = np.pad(in_place, (0, missing))
        return whole.astype(np.float32)


def _coded(audio: np.ndarray, codec: Codec, level: float) -> np.ndarray:
    """Pass audio at 16 kHz through a codec at the rate it runs at."""
    taken = resample(audio, SAMPLE_RATE, codec.rate)
    given = _pass(taken, codec, level)
    return resample(given, codec.rate, SAMPLE_RATE)


def _pass(audio: np.ndarray, codec: Codec, level: float) -> np.ndarray:
    """Write a file and read it again."""
    import soundfile

    options = {}
    if codec.form in WITH_LEVEL:
        options["compression_level"] = level
    file = io.BytesIO()
    soundfile.write(
        file,
        audio,
        codec.rate,
        format=codec.form,
        subtype=codec.subtype,
        **options,
    )
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return decoded


@lru_cache(maxsize=len(CODECS))
def delay(kind: str) -> int:
    """Return by how many samples at 16 kHz a codec shifts what it is given.

    It is found by correlation with noise that swells and fades.
    """
    # Noise below 2 kHz, which all codecs let through.
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 0.1, SAMPLE_RATE // 2)
    noise = resample(drawn.astype(np.float32), 4000, SAMPLE_RATE)
    noise = noise[:SAMPLE_RATE]
    envelope = np.hanning(len(noise))
    noise *= envelope.astype(np.float32)
    coded = _coded(noise, CODECS[kind], 0.5)

    # A product of spectra, one of them conjugate, is a correlation on a circle.
    size = 1 << (len(noise) + len(coded)).bit_length()
    given = np.fft.rfft(noise, size)
    taken = np.fft.rfft(coded, size)
    match = np.fft.irfft(taken * np.conj(given), size)
    longest = SAMPLE_RATE // 4
    return int(np.argmax(match[:longest]))
