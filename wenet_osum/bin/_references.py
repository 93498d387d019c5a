"""The references of a list, whatever kind it is, and the sound of single ones. Shards and audio are opened only when asked for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.records import Utterance
from wenet_osum.score.hypotheses import read_lines

MIME = {b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg"}
LARGEST = 600_000  # bytes of one sound in a page
LOCAL = "://"  # what a URL has and a path has not: pages are not worth a download


@dataclass
class Reference:
    """An utterance and where its sound can be had."""

    utterance: Utterance
    list: str  # the list it stands in
    index_row: tuple | None = None  # (Index, row) inside a shard


def read_references(path: str) -> list[Reference]:
    """All utterances of a manifest or data.list. Raises ValueError for a missing, empty or unreadable one, and for text that is no list."""
    first = next((line for line in _lines(path) if line.strip()), None)
    if first is None:
        raise ValueError(f"list {path} is empty; run the stage that writes it, or check the path")
    if first.lstrip().startswith("{"):
        return [Reference(u, path) for u in read_manifest(path)]
    return _from_shards(path)


def _lines(path: str) -> list[str]:
    if not Path(path).is_file():
        raise ValueError(f"list {path} does not exist; check the path, or run the stage that writes it")
    return read_lines(path)


def _from_shards(path: str) -> list[Reference]:
    from wenet_osum.dataset.shard import Handles, load_list, read_utterance

    dropped: Counter = Counter()
    handles = Handles()
    found = [Reference(read_utterance(index, i, handles)[0], path, (index, i)) for index in load_list(path, dropped) for i in range(len(index))]
    if dropped:
        reasons = "; ".join(f"{n} × {reason}" for reason, n in dropped.most_common(3))
        raise ValueError(f"list {path}: {sum(dropped.values())} references cannot be read ({reasons}); tools/check_data_list.py shows each")
    return found


def contents(references: list[Reference]) -> bytes:
    """What a list says, for its hash: the same for the same references, wherever their audio lies."""
    rows = [{k: v for k, v in r.utterance.to_dict().items() if k != "wav"} for r in references]
    return "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def sound(reference: Reference, room: int) -> tuple[bytes, str] | None:
    """The utterance's audio and its MIME type; None when it is not at hand or larger than a page should hold."""
    from wenet_osum.dataset.shard import Handles, find, read_utterance, recording

    try:
        if reference.index_row:
            audio = read_utterance(*reference.index_row, Handles())[1] if LOCAL not in reference.index_row[0].path else b""
        else:
            audio = recording(reference.utterance, find(reference.utterance.wav, reference.list)) if LOCAL not in reference.utterance.wav else b""
    except (ValueError, OSError):
        return None
    return (audio, MIME.get(audio[:4], "audio/mpeg")) if 0 < len(audio) <= min(LARGEST, room) else None
