"""The references of a list of any kind, and the audio of single ones.

Shards and audio are opened only when asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.records import Utterance
from wenet_osum.score.hypotheses import read_lines

# By the first bytes of a file.
MIME = {b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg"}
# Bytes of one recording in a page.
LARGEST = 600_000
# What a URL has and a path has not: pages are not worth a download.
REMOTE = "://"


@dataclass
class Reference:
    """An utterance and where its audio can be had."""

    utterance: Utterance
    # The list it stands in.
    list: str
    # (Index, row) inside a shard.
    index_row: tuple | None = None


def read_references(path: str) -> list[Reference]:
    """Read all utterances of a manifest or data.list.

    Raises ValueError for a missing, empty or unreadable one, and for text that is no list.
    """
    written = (line for line in _lines(path) if line.strip())
    first = next(written, None)
    if first is None:
        raise ValueError(f"list {path} is empty; run the stage that writes it, or check the path")
    if first.lstrip().startswith("{"):
        return [Reference(utterance, path) for utterance in read_manifest(path)]
    return _from_shards(path)


def _lines(path: str) -> list[str]:
    """Read the lines of a list. Raises ValueError when it is not there."""
    if not Path(path).is_file():
        raise ValueError(
            f"list {path} does not exist; check the path, or run the stage that writes it"
        )
    return read_lines(path)


def _from_shards(path: str) -> list[Reference]:
    """Read the utterances of a data.list. Raises ValueError when any cannot be read."""
    from wenet_osum.dataset.shard import Handles, load_list, read_utterance

    dropped: Counter = Counter()
    handles = Handles()
    found = []
    for index in load_list(path, dropped):
        for row in range(len(index)):
            utterance, _ = read_utterance(index, row, handles)
            found.append(Reference(utterance, path, (index, row)))
    if dropped:
        commonest = dropped.most_common(3)
        reasons = "; ".join(f"{count} × {reason}" for reason, count in commonest)
        raise ValueError(
            f"list {path}: {dropped.total()} references cannot be read ({reasons}); "
            "tools/check_data_list.py shows each"
        )
    return found


def contents(references: list[Reference]) -> bytes:
    """Return what a list says, for its hash: the same for the same references, wherever their
    audio lies."""
    lines = []
    for reference in references:
        row = reference.utterance.to_dict()
        row.pop("wav", None)
        line = json.dumps(row, ensure_ascii=False, sort_keys=True)
        lines.append(f"{line}\n")
    text = "".join(lines)
    return text.encode("utf-8", "backslashreplace")


def audio_of(reference: Reference, room: int) -> tuple[bytes, str] | None:
    """Return an utterance's audio file and its MIME type.

    None when it is not at hand, or has more bytes than a page should hold or has ``room`` for.
    """
    try:
        audio = _read_audio(reference)
    except (ValueError, OSError):
        return None
    if not 0 < len(audio) <= min(LARGEST, room):
        return None
    kind = MIME.get(audio[:4], "audio/mpeg")
    return audio, kind


def _read_audio(reference: Reference) -> bytes:
    """Read an utterance's audio file; empty where it would have to be downloaded.

    Raises ValueError and OSError for one that cannot be read.
    """
    from wenet_osum.dataset.shard import Handles, find, read_utterance, recording

    if reference.index_row:
        index, row = reference.index_row
        if REMOTE in index.path:
            return b""
        _, audio = read_utterance(index, row, Handles())
        # Of a conversation the page plays the last recording.
        return audio[-1] if isinstance(audio, list) else audio

    utterance = reference.utterance.recordings()[-1]
    if REMOTE in utterance.wav:
        return b""
    path = find(utterance.wav, reference.list)
    return recording(utterance, path)
