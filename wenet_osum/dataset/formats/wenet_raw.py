"""WeNet's raw list: ``{"key", "wav", "txt"}`` per line, and ``start`` and ``end`` of a segment.

Reading takes every field there is.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator

from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.formats._fields import count_lost, without_conversations
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.dataset.scan import located, raw_duration
from wenet_osum.records import Utterance

FORM = "WeNet's raw list"
KEPT = frozenset(("key", "wav", "txt", "start", "end"))


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the utterances of a raw list."""
    rows = read_manifest(path, dropped)
    return located(rows, path)


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a raw list with transcripts; utterances without one are left out, as WeNet needs it."""
    return write_manifest(path, _plain(utterances, lost))


def _plain(utterances: Iterable[Utterance], lost: Counter) -> Iterator[Utterance]:
    """Yield utterances with nothing but what WeNet reads."""
    for utterance in without_conversations(utterances, FORM, lost):
        if utterance.txt is None:
            lost["utterance without txt"] += 1
            continue
        try:
            start, end = _segment(utterance)
        except Drop as drop:
            lost[drop.reason] += 1
            continue
        count_lost(utterance, KEPT, FORM, lost)
        yield Utterance(
            utterance.key,
            utterance.wav,
            utterance.txt,
            start=start,
            end=end,
        )


def _segment(utterance: Utterance) -> tuple[float | None, float | None]:
    """Return both edges of a segment, as WeNet wants them; Nones for a whole recording.

    Raises Drop where the end has to be read from the recording and cannot be.
    """
    start, end = utterance.start, utterance.end
    if start is None and end is None:
        return None, None
    start = start or 0.0
    if end is None:
        # Its duration is read into a copy: a field that was not given is not lost.
        copy = dataclasses.replace(utterance)
        end = start + raw_duration(copy, "")
    return start, end
