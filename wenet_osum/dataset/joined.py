"""Recordings of a list joined to long ones, to try how long audio is decoded: transcripts and word times are true by construction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wenet_osum.corpus import mix
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.rewrite import read_audio
from wenet_osum.records import SAMPLE_RATE, Utterance
from wenet_osum.tasks.base import join_words


def join_list(utterances: list[Utterance], out_dir: str | Path, dropped: Dropped, pause_s: float = 0.8, longest_s: float = 600.0, list_path: str = "") -> Iterator[Utterance]:
    """Write recordings of up to ``longest_s`` seconds under ``out_dir``, one language each, ``pause_s`` of silence around every part.

    Yields one utterance a recording. It has word times where all of its parts have them, and no labels: these are true of parts only.
    Parts without a transcript, or that cannot be read, are counted in ``dropped``. Raises ValueError when no part is left.
    """
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    made = 0
    for lang in dict.fromkeys(u.lang for u in utterances):
        for number, group in enumerate(_groups([u for u in utterances if u.lang == lang], dropped, pause_s, longest_s, list_path)):
            made += 1
            yield _joined(group, f"long-{lang or 'any'}-{number:03d}", Path(out_dir), pause_s)
    if not made:
        raise ValueError(f"none of {len(utterances)} utterances can be joined: they need a transcript and a readable recording")


Part = tuple[Utterance, np.ndarray]


def _groups(utterances: list[Utterance], dropped: Dropped, pause_s: float, longest_s: float, list_path: str) -> Iterator[list[Part]]:
    """Parts that make one recording, in the order of the list; a part that is too long alone stands alone."""
    group: list[Part] = []
    seconds = pause_s
    for utterance in utterances:
        try:
            if not utterance.txt:
                raise Drop("transcript: not there", utterance.key)
            audio = read_audio(utterance, list_path)
        except Drop as drop:
            note(dropped, utterance.key, drop.reason)
            continue
        if group and seconds + len(audio) / SAMPLE_RATE + pause_s > longest_s:
            yield group
            group, seconds = [], pause_s
        group.append((utterance, audio))
        seconds += len(audio) / SAMPLE_RATE + pause_s
    if group:
        yield group


def _joined(group: list[Part], key: str, folder: Path, pause_s: float) -> Utterance:
    audio, begins = mix.join([audio for _, audio in group], [pause_s] * (len(group) + 1))
    path = folder / f"{key}.wav"
    path.write_bytes(write_wav(audio))
    parts = [utterance for utterance, _ in group]
    timed = all(part.words for part in parts)
    words = [word for part, begin in zip(parts, begins, strict=True) for word in mix.shift_words(part.words, begin)] if timed else None
    text = join_words([part.txt for part in parts])
    return Utterance(key, str(path), text, lang=parts[0].lang, words=words, duration=round(len(audio) / SAMPLE_RATE, 4), extra={"parts": [part.key for part in parts]})
