"""Recordings of a list joined to long ones, to try how long audio is decoded.

Transcripts and word times are true by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wenet_osum.corpus import mix
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.rewrite import read_audio
from wenet_osum.files import write_bytes
from wenet_osum.records import SAMPLE_RATE, Utterance, Word
from wenet_osum.tasks.base import join_words

Part = tuple[Utterance, np.ndarray]  # with its audio, (samples,)


def join_list(
    utterances: list[Utterance],
    out_dir: str | Path,
    dropped: Dropped,
    pause_s: float = 0.8,
    longest_s: float = 600.0,
    list_path: str = "",
) -> Iterator[Utterance]:
    """Write recordings of up to ``longest_s`` seconds under ``out_dir``, one language each.

    There are ``pause_s`` of silence around every part. Yields one utterance per recording. It has
    word times where all of its parts have them, and no labels: these are true of parts only. Parts
    without a transcript, or that cannot be read, are counted in ``dropped``. Raises ValueError when
    no part is left.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    by_language: dict[str | None, list[Utterance]] = {}
    for utterance in utterances:
        by_language.setdefault(utterance.lang, []).append(utterance)

    made = 0
    for lang, spoken in by_language.items():
        parts = _readable(spoken, dropped, list_path)
        for number, group in enumerate(_groups(parts, pause_s, longest_s)):
            made += 1
            key = f"long-{lang or 'any'}-{number:03d}"
            yield _joined(group, key, folder, pause_s)
    if not made:
        needed = "they need a transcript and a readable recording"
        raise ValueError(f"none of {len(utterances)} utterances can be joined: {needed}")


def _readable(utterances: list[Utterance], dropped: Dropped, list_path: str) -> Iterator[Part]:
    """Yield the utterances that can be joined, each with its audio."""
    for utterance in utterances:
        try:
            if not utterance.txt:
                raise Drop("transcript: not there", utterance.key)
            audio = read_audio(utterance, list_path)
        except Drop as drop:
            note(dropped, utterance.key, drop.reason)
            continue
        yield utterance, audio


def _groups(parts: Iterator[Part], pause_s: float, longest_s: float) -> Iterator[list[Part]]:
    """Yield parts that make one recording, in their order; one that is too long stands alone."""
    group: list[Part] = []
    seconds = pause_s
    for utterance, audio in parts:
        added = len(audio) / SAMPLE_RATE + pause_s
        if group and seconds + added > longest_s:
            yield group
            group = []
            seconds = pause_s
        group.append((utterance, audio))
        seconds += added
    if group:
        yield group


def _joined(group: list[Part], key: str, folder: Path, pause_s: float) -> Utterance:
    """Write one recording and return its utterance."""
    parts = []
    pieces = []
    for utterance, piece in group:
        parts.append(utterance)
        pieces.append(piece)
    pauses_s = [pause_s] * (len(group) + 1)
    audio, begins_s = mix.join(pieces, pauses_s)
    path = folder / f"{key}.wav"
    write_bytes(path, write_wav(audio))

    text = join_words([part.txt for part in parts])
    duration = round(len(audio) / SAMPLE_RATE, 4)
    return Utterance(
        key,
        str(path),
        text,
        lang=parts[0].lang,
        words=_words(parts, begins_s),
        duration=duration,
        extra={"parts": [part.key for part in parts]},
    )


def _words(parts: list[Utterance], begins_s: list[float]) -> list[Word] | None:
    """Return the words of all parts in the recording's time; None where a part has no times."""
    words = []
    for part, begin_s in zip(parts, begins_s, strict=True):
        if not part.words:
            return None
        words += mix.shift_words(part.words, begin_s)
    return words
