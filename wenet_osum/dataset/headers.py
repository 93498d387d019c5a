"""Durations of many recordings from their headers, read side by side.

On a network drive each file costs a round trip.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop, note
from wenet_osum.records import Utterance

AHEAD = 4096  # utterances under way


def with_durations(
    utterances: Iterable[Utterance], dropped: Counter, threads: int = 16
) -> Iterator[Utterance]:
    """Yield the utterances in their order, each with the duration of its recording.

    Those whose recording cannot be read are counted in ``dropped``.
    """
    rest = iter(utterances)
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(itertools.islice(rest, AHEAD)):
            for utterance, found in zip(chunk, pool.map(_seconds, chunk), strict=True):
                if isinstance(found, str):
                    note(dropped, utterance.key, found)
                else:
                    yield dataclasses.replace(utterance, duration=round(found, 4))


def _seconds(utterance: Utterance) -> float | str:
    """Length in s, or the reason why there is none."""
    try:
        return read_duration(utterance.wav)
    except Drop as fault:
        return fault.reason
