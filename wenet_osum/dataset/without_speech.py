"""Recordings in which nobody speaks, with an empty transcript: silence, noise, and excerpts.

A model that has never heard any answers them with words (Koenecke et al., 2024, arXiv 2402.08021).
What is drawn depends on (seed, key) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wenet_osum.corpus import mix
from wenet_osum.dataset.audio import decode, write_wav
from wenet_osum.dataset.augment import make_rng
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.recording import recording
from wenet_osum.dataset.scan import find, raw_duration
from wenet_osum.files import write_bytes
from wenet_osum.records import SAMPLE_RATE, Utterance

SILENCE, NOISE, RECORDING = "silence", "noise", "recording"
# Shortest and longest, s.
DURATION_S = (0.5, 30.0)
# Levels of noise and excerpts, dB below full scale (RMS).
LEVEL_DB = (-60.0, -15.0)
# The level of a quiet room, which is no digital zero, dB.
ROOM_DB = -75.0


def how_many(rows: int, share: float) -> int:
    """Return how many are needed to be a ``share`` of themselves and ``rows`` others together.

    Raises ValueError for a share that cannot be.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share} must be above 0 and below 1, e.g. 0.05")
    count = rows * share / (1 - share)
    return max(1, round(count))


def durations(rows: Sequence[Utterance], list_path: str, dropped: Dropped) -> list[float]:
    """Return the durations of the rows of a list, s, within ``DURATION_S``.

    Those that stand in no row are read from the recordings; one that cannot be read is counted in
    ``dropped``. Raises ValueError where none is known.
    """
    shortest, longest = DURATION_S
    found = []
    for row in rows:
        try:
            seconds = raw_duration(row, list_path)
        except Drop as drop:
            note(dropped, row.key, drop.reason)
            continue
        seconds = max(seconds, shortest)
        found.append(min(seconds, longest))
    if not found:
        rule = "no row has a duration, or a recording that can be read"
        raise ValueError(f"{rule}; add them, for lengths are drawn from these")
    return found


def make(
    count: int,
    lengths_s: Sequence[float],
    wav_dir: str | Path,
    dropped: Dropped,
    sources: Sequence[Utterance] = (),
    list_path: str = "",
    seed: int = 777,
) -> Iterator[Utterance]:
    """Write ``count`` recordings into ``wav_dir`` and yield their rows.

    Lengths are drawn from ``lengths_s``, kinds evenly: silence, noise and, where there are
    ``sources`` (found as in a list at ``list_path``), excerpts of these. A source that cannot be
    read is counted in ``dropped``, and there is no row for it. Raises ValueError where a file of
    such a name holds something else.
    """
    kinds = [SILENCE, NOISE, RECORDING] if sources else [SILENCE, NOISE]
    folder = Path(wav_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        key = f"without_speech_{number:06d}"
        rng = make_rng(seed, 0, key)
        seconds = lengths_s[rng.integers(len(lengths_s))]
        size = round(seconds * SAMPLE_RATE)
        # In turn, so that each has its share also where there are few.
        kind = kinds[number % len(kinds)]
        extra = {"sound": kind}
        try:
            if kind == RECORDING:
                source = sources[rng.integers(len(sources))]
                extra["source"] = source.key
                whole = _read(source, list_path)
                audio = excerpt(whole, size, rng)
            else:
                audio = synthetic(kind, size, rng)
        except Drop as drop:
            note(dropped, key, drop.reason)
            continue
        path = folder / f"{key}.wav"
        data = write_wav(audio)
        # Keys are the same in every list: another one may have its sounds here.
        if path.exists() and path.read_bytes() != data:
            advice = "give this list a --wav_dir of its own, or delete what is there"
            raise ValueError(f"{path} is another recording; {advice}")
        write_bytes(path, data)
        yield Utterance(
            key,
            str(path),
            txt="",
            duration=round(size / SAMPLE_RATE, 4),
            extra=extra,
        )


def _read(source: Utterance, list_path: str) -> np.ndarray:
    """Read a recording. Raises Drop."""
    path = find(source.wav, list_path)
    data = recording(source, path)
    return decode(data)


def synthetic(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Make digital zeros or the sound of a quiet room, or colored noise; (size,) float32."""
    if kind == SILENCE:
        if rng.random() < 0.5:
            return np.zeros(size, np.float32)
        room = mix.colored_noise(size, 1.0, rng)
        return _at_level(room, ROOM_DB)
    exponent = rng.uniform(0, 2)
    noise = mix.colored_noise(size, exponent, rng)
    level_db = rng.uniform(*LEVEL_DB)
    return _at_level(noise, level_db)


def excerpt(audio: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cut ``size`` samples from a drawn place, a short recording repeated, at a drawn level."""
    if len(audio) < size:
        audio = np.resize(audio, size)
    places = len(audio) - size + 1
    first = int(rng.integers(places))
    level_db = rng.uniform(*LEVEL_DB)
    return _at_level(audio[first : first + size], level_db)


def _at_level(audio: np.ndarray, level_db: float) -> np.ndarray:
    """Scale audio to a level, dB; silence stays silence."""
    if not np.any(audio):
        return audio.astype(np.float32)
    return mix.set_level(audio, level_db)
