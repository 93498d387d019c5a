"""Our manifest: a JSON object per line with every field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.dataset.scan import located
from wenet_osum.records import Utterance


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the utterances of a manifest."""
    rows = read_manifest(path, dropped)
    return located(rows, path)


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a manifest; nothing is lost."""
    return write_manifest(path, utterances)
