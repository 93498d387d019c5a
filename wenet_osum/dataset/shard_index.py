"""The index of one shard: kept beside it or in a folder of indices, else made by one scan.

When is a kept index trusted? One whose stamp (bytes and time of the shard) is that of the shard is.
A plain copy changes the time alone: ``cp``, ``aws s3 sync`` and ``rsync`` without ``-t`` give the
copy the time of copying. So where the size is the same and only the time is not, the index is held
against the shard: up to ``PROBES`` utterances spread evenly over it, the first and the last among
them, must lie where the index says, by the name in the header of their first member. A shard that
was packed anew, with other utterances or in another order, does not pass; indices of any age can be
held against their shards, as no hash need have been stored with them. What a repacked shard with
the same keys and sizes could hide are other labels. They decide who is drawn, never what is
learned: text, labels and audio are read from the shard, and its key is looked at each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.drop import Drop, note
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.remote import is_pipe, is_url, read_remote
from wenet_osum.dataset.scan import Faults, scan_file, scan_tar
from wenet_osum.dataset.tar import BadTar, split_name, stem_of, walk

FOLDER = "WENET_OSUM_INDEX_DIR"  # environment: where indices are kept that fit nowhere else
REMOTE = ".remote"  # LIST.remote: the folder with the indices of a list's addresses and programs
PROBES = 16  # utterances of a shard that are looked at
PROBE_BYTES = 4096  # of the head of an utterance: headers and names
KEPT, MISSING, STALE = "kept", "missing", "stale"


class Found(NamedTuple):
    """The index of a shard, and where it comes from."""

    index: Index
    faults: Faults
    state: str  # KEPT; MISSING or STALE: the shard was scanned


def load_index(path: str, dropped: Counter, keep: Path | None = None) -> Index:
    """Return the index of one shard (path, URL or pipe), restored or built.

    ``keep`` is the folder where indices of URLs and pipes are stored. Raises ValueError when the
    shard is missing.
    """
    found = find_index(path, keep)
    for key, reason in found.faults:
        note(dropped, key, reason)
    return found.index


def find_index(path: str, keep: Path | None = None) -> Found:
    """Return the index of one shard, with its faults and its state; ``keep`` as ``load_index``."""
    if is_remote(path):
        index, faults = _load_remote(path, keep)
        return Found(index, faults, KEPT)
    if not Path(path).is_file():
        raise ValueError(f"shard {path} does not exist; pack it again or take it out")
    stamp = indices.stamp_of(path)
    state = MISSING
    for file in _places(path):
        if not file.exists():
            continue
        stored = indices.read(path, str(file))
        if stored and _fits(path, stored, stamp):
            return Found(stored.index, stored.faults, KEPT)
        state = STALE
    index, faults = _scan(path, stamp)
    return Found(index, faults, state)


def index_folder() -> Path | None:
    """Return the folder that the environment names for indices."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else None


def is_remote(path: str) -> bool:
    """Tell whether a shard is an address or a program."""
    return is_url(path) or is_pipe(path)


def kept_at(path: str, folder: Path) -> Path:
    """Return where a folder of indices keeps that of a shard."""
    name = hashlib.sha1(path.encode()).hexdigest()
    return folder / (name + indices.SUFFIX)


def index_of(path: str) -> str:
    """Say where the index of a shard is, for a message."""
    if is_remote(path):
        return f"its index in the list's folder *{REMOTE}"
    return f"{path}{indices.SUFFIX} and the list's *.index.bin"


def _places(path: str) -> list[Path]:
    """Return the files where the index of a shard on disk may be kept."""
    found = [Path(path + indices.SUFFIX)]
    folder = index_folder()
    if folder:
        whole = str(Path(path).absolute())
        found.append(kept_at(whole, folder))
    return found


def _fits(path: str, stored: indices.Stored, stamp: list[int]) -> bool:
    """Tell whether a stored index is that of the shard as it is now."""
    if stored.stamp == stamp:
        return True
    size = stored.stamp[0] if stored.stamp else None
    return size == stamp[0] and _lie_there(path, stored.index)


def _lie_there(path: str, index: Index) -> bool:
    """Tell whether utterances spread over a shard lie where its index says."""
    if not len(index):
        return False
    spread = np.linspace(0, len(index) - 1, min(PROBES, len(index)))
    try:
        with open(path, "rb") as shard:
            for row in spread.astype(int).tolist():
                size = min(PROBE_BYTES, int(index.sizes[row]))
                head = os.pread(shard.fileno(), size, int(index.offsets[row]))
                key = str(index.keys[row])
                if _first_stem(head) not in (key, stem_of(key)):
                    return False
    except OSError:
        return False
    return True


def _first_stem(head: bytes) -> str:
    """Return the name, without extension, of the first member in a stretch of a tar."""
    try:
        first = next(walk(memoryview(head), check=True, ended=False), None)
        name = first.name if first else ""
    except BadTar as error:
        # its content ends beyond the stretch
        name = error.name
    stem, _ = split_name(name)
    return stem


def _scan(path: str, stamp: list[int]) -> tuple[Index, Faults]:
    """Build and store the index of a shard on disk."""
    size = stamp[0]
    if not size:
        nothing = indices.build(path, "tar", [])
        return nothing, [(path, "empty shard (0 bytes)")]
    index, faults = scan_file(path, path)
    # beside the shard, else where the environment says
    for file in _places(path):
        if indices.save(index, faults, stamp, to=file):
            break
    return index, faults


def _load_remote(path: str, keep: Path | None) -> tuple[Index, Faults]:
    """Return the index kept here, else the one beside an address, else one of the whole shard."""
    kept = kept_at(path, keep) if keep else None
    restored = _restore_remote(path, kept)
    if restored:
        index, faults = restored
    else:
        shard = read_remote(path)
        index, faults = scan_tar(memoryview(shard), path)

    # without permission to write, the next run reads the whole shard once more
    if kept and not (restored and kept.exists()):
        with contextlib.suppress(OSError):
            kept.parent.mkdir(exist_ok=True)
            indices.save(index, faults, [], to=kept)
    return index, faults


def _restore_remote(path: str, kept: Path | None) -> tuple[Index, Faults] | None:
    """Return the index of ``kept``, else the one that lies beside an address; None: neither is."""
    if kept:
        restored = indices.restore(path, None, str(kept))
        if restored:
            return restored[:2]
    if is_url(path):
        with contextlib.suppress(Drop):
            beside = read_remote(path + indices.SUFFIX)
            restored = indices.restore(path, None, io.BytesIO(beside))
            if restored:
                return restored[:2]
    return None
