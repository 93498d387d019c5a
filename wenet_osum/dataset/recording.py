"""The bytes of a recording at a path or URL, whole or a segment of it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from wenet_osum.config import StoreConfig
from wenet_osum.dataset.address import fetch, is_url
from wenet_osum.dataset.audio import cut, read_duration
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.retry import DEFAULT_STORE, drive_fault, with_retries
from wenet_osum.records import Utterance

# Seconds by which a segment may be shorter than it says, or a word may end after it: times are
# rounded.
ROUNDING_S = 0.1


def recording(utterance: Utterance, path: str, conf: StoreConfig = DEFAULT_STORE) -> bytes:
    """Read the recording at a path or URL, the utterance's segment cut out where it has one.

    Raises Drop.
    """
    start, end = utterance.start, utterance.end
    whole = start is None and end is None
    if is_url(path):
        audio = fetch(path, conf=conf)
        return audio if whole else cut(audio, start, end)
    read = partial(read_file, path) if whole else partial(_cut, path, start, end)
    try:
        return with_retries(read, conf)
    except Drop:
        raise
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "audio: file not found" if missing else "audio: unreadable"
        reason = drive_fault(path, error) or reason
        raise Drop(reason, f"{utterance.key!r}: {path}: {error}") from None


def whole_recording(utterance: Utterance, path: str, conf: StoreConfig = DEFAULT_STORE) -> bytes:
    """Do the same where it belongs to a text: a segment has to be as long as it says.

    Raises Drop, also for a segment that ends beyond the recording, whose text would be longer.
    """
    audio = recording(utterance, path, conf)
    check_length(utterance, audio)
    return audio


def check_length(utterance: Utterance, audio: bytes) -> None:
    """Raise Drop where ``audio`` is shorter than the segment of the utterance that it should be."""
    if utterance.end is not None:
        wanted = utterance.end - (utterance.start or 0.0)
        found = read_duration(audio)
        if found < wanted - ROUNDING_S:
            told = f"{wanted:.2f} s are asked, {found:.2f} s are there"
            raise Drop("audio: segment ends beyond the recording", told)


def check_words(utterance: Utterance, seconds: float) -> None:
    """Raise Drop for a word that ends after the ``seconds`` of the utterance's audio."""
    words = utterance.words or ()
    last = max((word.end for word in words), default=0.0)
    if last <= seconds + ROUNDING_S:
        return
    reached = f"a word ends at {last:.2f} s"
    told = f"{reached}, the audio at {seconds:.2f} s"
    raise Drop("word times beyond the recording", told)


def _cut(path: str, start: float | None, end: float | None) -> bytes:
    # soundfile does not say that a file is missing
    Path(path).stat()
    return cut(path, start, end)


def read_file(path: str) -> bytes:
    """Read a file with three system calls."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size)
        # beyond 2 GiB the system reads in pieces
        while len(data) < size:
            more = os.read(descriptor, size - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)
