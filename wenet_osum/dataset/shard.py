"""Lists of shards and raw lists: their indices, and single utterances read by seek.

``load_list`` says what there is, ``read_utterance`` brings one utterance with its audio, ``pack`` and ``write_list`` make shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections import Counter, OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.audio import cut
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.layout import read_members
from wenet_osum.dataset.manifest import parse_line
from wenet_osum.dataset.pack import Report, pack, recording
from wenet_osum.dataset.remote import is_pipe, is_url, read_remote, seeks, spooled
from wenet_osum.dataset.scan import Faults, find, groups, scan_file, scan_raw, scan_tar
from wenet_osum.files import write_text
from wenet_osum.records import Utterance

__all__ = ["Drop", "Dropped", "Handles", "Index", "Report", "load_index", "load_list", "pack", "read_utterance", "write_list"]
RAW_ROWS = 1000  # lines of a raw list in one Index
REMOTE = ".remote"  # LIST.remote: the folder with the indices of a list's addresses and programs


def load_list(path: str | Path, dropped: Counter) -> list[Index]:
    """The indices of a list, which is a ``data.list`` (a tar path or URL a line) or a raw list (JSON lines); content tells which.

    A tar may also be a program (``pipe:…``, remote.py). Indices are built by one scan where absent or stale and stored beside the file, those of
    addresses and programs in a folder beside the list, if that can be written; nobody can tell when these are stale. Utterances left
    out are counted in ``dropped`` by reason (a ``Dropped`` keeps their keys). Of keys that stand twice in the list the first stays.
    Raises ValueError for a missing or empty list, missing shards, and lists without one usable utterance.
    """
    path = str(path)
    paths = list_paths(path)
    if paths is None:
        found = _load_raw(path, dropped)
    else:
        _check_there(path, paths)
        found = [load_index(shard, dropped, Path(path + REMOTE)) for shard in paths]
    found = [index for index in _first_keys(found, dropped) if len(index)]
    if not found:
        reasons = "; ".join(f"{n} × {r}" for r, n in dropped.most_common(5)) or "the shards are empty"
        raise ValueError(f"list {path} has no usable utterance ({reasons}); tools/check_data_list.py shows each fault")
    return found


def list_paths(path: str) -> list[str] | None:
    """The shards of a data.list; None when ``path`` is a raw list. Raises ValueError when it is missing or empty or no text."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
            if head[257:262] == b"ustar":
                raise ValueError(f"list {path} is a tar; write its path into a text file, a shard a line, and give that")
            if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
                return None
            text = (head + file.read()).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"list {path} cannot be read ({error.strerror}); check the path, or run the stage that writes it") from None
    except UnicodeDecodeError:
        raise ValueError(f"list {path} is not UTF-8 text; it must hold a shard path or a JSON object a line") from None
    paths = [line.strip() for line in text.splitlines() if line.strip()]
    if not paths:
        raise ValueError(f"list {path} is empty; it must hold a shard path or a JSON object a line")
    return paths


def load_index(path: str, dropped: Counter, keep: Path | None = None) -> Index:
    """The index of one shard (path, URL or pipe), restored or built. Raises ValueError when the shard is missing.

    ``keep`` is the folder where indices of URLs and pipes are stored.
    """
    if is_url(path) or is_pipe(path):
        index, faults = _load_remote(path, keep)
    else:
        _check_there(path, [path])
        restored = indices.restore(path, indices.stamp_of(path))
        index, faults = restored[:2] if restored else _scan(path)
    for key, reason in faults:
        note(dropped, key, reason)
    return index


def _scan(path: str) -> tuple[Index, Faults]:
    stamp = indices.stamp_of(path)
    if not stamp[0]:
        return indices.build(path, "tar", []), [(path, "empty shard (0 bytes)")]
    index, faults = scan_file(path, path)
    indices.save(index, faults, stamp)
    return index, faults


def _load_remote(path: str, keep: Path | None) -> tuple[Index, Faults]:
    """The index that lies beside an address or was kept here before, else one of the whole shard."""
    kept = None if keep is None else keep / (hashlib.sha1(path.encode()).hexdigest() + indices.SUFFIX)
    restored = indices.restore(path, None, str(kept)) if kept else None
    if not restored and is_url(path):
        with contextlib.suppress(Drop):
            restored = indices.restore(path, None, io.BytesIO(read_remote(path + indices.SUFFIX)))
    index, faults = restored[:2] if restored else scan_tar(memoryview(read_remote(path)), path)
    if kept and not (restored and kept.exists()):
        with contextlib.suppress(OSError):
            kept.parent.mkdir(exist_ok=True)
            indices.save(index, faults, [], to=kept)
    return index, faults


def _index_of(path: str) -> str:
    """Where to find the index of a shard, for a message."""
    return f"its index in the list's folder *{REMOTE}" if is_url(path) or is_pipe(path) else path + indices.SUFFIX


def _check_there(path: str, paths: list[str]) -> None:
    missing = [p for p in paths if not is_url(p) and not is_pipe(p) and not os.path.isfile(p)]
    if missing:
        raise ValueError(f"{path}: {len(missing)} of {len(paths)} shards do not exist, first {missing[0]!r}; pack them again or take them out")


def _load_raw(path: str, dropped: Counter) -> list[Index]:
    stamp = indices.stamp_of(path)
    restored = indices.restore(path, stamp)
    if restored:
        index, faults, _ = restored
    else:
        index, faults, audio_fault = scan_raw(path)
        if not audio_fault:  # a recording can be put right without the list changing
            indices.save(index, faults, stamp)
    for key, reason in faults:
        note(dropped, key, reason)
    return [index.select(slice(at, at + RAW_ROWS)) for at in range(0, len(index), RAW_ROWS)]


def _first_keys(found: list[Index], dropped: Counter) -> list[Index]:
    """Leave out keys that stood before in the list. 64-bit hashes find the candidates: they take 8 bytes a key."""
    hashes = np.fromiter((hash(str(k)) for index in found for k in index.keys), dtype=np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    doubtful = set(values[counts > 1].tolist())
    if not doubtful:
        return found
    seen: set[str] = set()
    kept = []
    for index in found:
        keep = np.ones(len(index), dtype=bool)
        for i, key in enumerate(map(str, index.keys)):
            if hash(key) in doubtful:
                keep[i] = key not in seen
                seen.add(key)
            if not keep[i]:
                note(dropped, key, "duplicate key")
        kept.append(index.select(keep))
    return kept


class Handles:
    """Open files, the least recently used closed first. Reads carry their own position, so forked workers may share descriptors;
    a spawned worker starts with none."""

    def __init__(self, limit: int = 32):
        self.limit = limit
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``. Raises Drop when they are not there."""
        if seeks(path):
            data = read_remote(path, offset, size)
        else:
            try:
                data = os.pread(self._descriptor(path), size, offset)
            except OSError as error:
                raise Drop("shard: cannot be read", f"{path}: {error.strerror}") from None
        if len(data) != size:
            raise Drop("shard: shorter than its index says", f"{path}: {len(data)} of {size} bytes at {offset}; delete {_index_of(path)}")
        return data

    def _descriptor(self, path: str) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        self._open[path] = spooled(path) if is_pipe(path) else os.open(path, os.O_RDONLY)
        if len(self._open) > self.limit:
            os.close(self._open.popitem(last=False)[1])
        return self._open[path]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __reduce__(self) -> tuple:
        return Handles, (self.limit,)

    def __del__(self) -> None:
        self.close()


def read_utterance(index: Index, i: int, handles: Handles) -> tuple[Utterance, bytes]:
    """Utterance ``i`` and the bytes of its audio file. A segment comes cut out, with ``start`` and ``end`` taken off.

    Raises Drop for anything that cannot be read.
    """
    block = handles.read(index.path, int(index.offsets[i]), int(index.sizes[i]))
    if index.kind == "tar":
        utterance, audio = _read_tar(index, block)
    else:
        utterance, audio = _read_raw(index, block)
    if utterance.key != index.keys[i]:
        fault = f"{utterance.key!r} where {str(index.keys[i])!r} should be"
        raise Drop("index does not fit its file", f"{index.path}: {fault}; delete {_index_of(index.path)}")
    utterance.start = utterance.end = None
    utterance.duration = round(float(index.durations[i]), 4)
    return utterance, audio


def _read_tar(index: Index, block: bytes) -> tuple[Utterance, bytes]:
    buffer, faults = memoryview(block), []
    group = next(groups(buffer, faults, ended=False), None)
    if group is None:
        raise Drop("index does not fit its file", f"{index.path}: no members; delete {_index_of(index.path)}")
    parts = {ext: buffer[m.data : m.data + m.size] for ext, m in group.members.items()}
    utterance, ext = read_members(group.stem, parts)
    audio = bytes(parts[ext])
    return utterance, audio if utterance.start is None and utterance.end is None else cut(audio, utterance.start, utterance.end)


def _read_raw(index: Index, line: bytes) -> tuple[Utterance, bytes]:
    try:
        utterance = parse_line(line)
    except ValueError as error:
        raise Drop("index does not fit its file", f"{index.path}: {error}") from None
    return utterance, recording(utterance, find(utterance.wav, index.path))


def write_list(path: str | Path, shard_paths: Iterable[str | Path]) -> None:
    """Write a data.list, one shard per line; the file appears whole or not at all."""
    write_text(path, "".join(f"{shard}\n" for shard in shard_paths))
