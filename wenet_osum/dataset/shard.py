"""Lists of shards and raw lists: their indices, and single utterances read by seek.

``load_list`` says what there is, ``read_utterance`` brings one utterance with its audio, ``pack``
and ``write_list`` make shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.audio import cut
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.handles import REMOTE, Handles, index_of
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.layout import part_of, read_members
from wenet_osum.dataset.manifest import parse_line
from wenet_osum.dataset.pack import Report, pack
from wenet_osum.dataset.recording import recording
from wenet_osum.dataset.remote import is_pipe, is_url, read_remote
from wenet_osum.dataset.scan import Faults, find, groups, scan_file, scan_raw, scan_tar
from wenet_osum.files import write_text
from wenet_osum.records import Utterance

__all__ = [
    "Drop",
    "Dropped",
    "Handles",
    "Index",
    "Report",
    "load_index",
    "load_list",
    "pack",
    "read_utterance",
    "write_list",
]
Audio = bytes | list[bytes]  # an audio file, or those of a conversation's recordings in order
RAW_ROWS = 1000  # lines of a raw list in one Index
BOM = b"\xef\xbb\xbf"  # with which some editors begin a UTF-8 file
MISFIT = "index does not fit its file"  # a reason that is counted
CONTENT = "it must hold a shard path or a JSON object a line"


def load_list(path: str | Path, dropped: Counter) -> list[Index]:
    """Return the indices of a list.

    It is a ``data.list`` (a tar path or URL per line) or a raw list (JSON lines); content tells
    which. A tar may also be a program (``pipe:…``, remote.py). Indices are built by one scan where
    absent or stale and stored beside the file, those of addresses and programs in a folder beside
    the list, if that can be written; nobody can tell when these are stale.

    Utterances left out are counted in ``dropped`` by reason (a ``Dropped`` keeps their keys). Of
    keys that stand twice in the list the first stays. Raises ValueError for a missing or empty
    list, missing shards, and lists without one usable utterance.
    """
    path = str(path)
    paths = list_paths(path)
    if paths is None:
        found = _load_raw(path, dropped)
    else:
        _check_there(path, paths)
        keep = Path(path + REMOTE)
        found = [load_index(shard, dropped, keep) for shard in paths]
    found = _first_keys(found, dropped)
    found = [index for index in found if len(index)]
    if not found:
        reasons = _most_common(dropped) or "the shards are empty"
        advice = "tools/check_data_list.py shows each fault"
        raise ValueError(f"list {path} has no usable utterance ({reasons}); {advice}")
    return found


def _most_common(dropped: Counter) -> str:
    """Name the reasons for which most utterances were left out."""
    told = []
    for reason, count in dropped.most_common(5):
        told.append(f"{count} × {reason}")
    return "; ".join(told)


def list_paths(path: str) -> list[str] | None:
    """Return the shards of a data.list; None when ``path`` is a raw list.

    Raises ValueError when it is missing or empty or no text.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(512)
            if head[257:262] == b"ustar":
                advice = "write its path into a text file, one shard per line, and give that"
                raise ValueError(f"list {path} is a tar; {advice}")
            if head.removeprefix(BOM).lstrip().startswith(b"{"):
                return None
            text = (head + file.read()).decode("utf-8-sig")
    except OSError as error:
        advice = "check the path, or run the stage that writes it"
        raise ValueError(f"list {path} cannot be read ({error.strerror}); {advice}") from None
    except UnicodeDecodeError:
        raise ValueError(f"list {path} is not UTF-8 text; {CONTENT}") from None
    lines = [line.strip() for line in text.splitlines()]
    paths = [line for line in lines if line]
    if not paths:
        raise ValueError(f"list {path} is empty; {CONTENT}")
    return paths


def load_index(path: str, dropped: Counter, keep: Path | None = None) -> Index:
    """Return the index of one shard (path, URL or pipe), restored or built.

    ``keep`` is the folder where indices of URLs and pipes are stored. Raises ValueError when the
    shard is missing.
    """
    if _is_remote(path):
        index, faults = _load_remote(path, keep)
    else:
        _check_there(path, [path])
        restored = indices.restore(path, indices.stamp_of(path))
        index, faults = restored[:2] if restored else _scan(path)
    for key, reason in faults:
        note(dropped, key, reason)
    return index


def _is_remote(path: str) -> bool:
    """Tell whether a shard is an address or a program."""
    return is_url(path) or is_pipe(path)


def _scan(path: str) -> tuple[Index, Faults]:
    """Build and store the index of a shard on disk."""
    stamp = indices.stamp_of(path)
    size = stamp[0]
    if not size:
        nothing = indices.build(path, "tar", [])
        return nothing, [(path, "empty shard (0 bytes)")]
    index, faults = scan_file(path, path)
    indices.save(index, faults, stamp)
    return index, faults


def _load_remote(path: str, keep: Path | None) -> tuple[Index, Faults]:
    """Return the index kept here, else the one beside an address, else one of the whole shard."""
    kept = None
    if keep is not None:
        name = hashlib.sha1(path.encode()).hexdigest()
        kept = keep / (name + indices.SUFFIX)
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


def _check_there(path: str, paths: list[str]) -> None:
    """Raise ValueError when shards on disk do not exist."""
    missing = []
    for shard in paths:
        if _is_remote(shard):
            continue
        if not Path(shard).is_file():
            missing.append(shard)
    if missing:
        counted = f"{len(missing)} of {len(paths)} shards do not exist"
        advice = "pack them again or take them out"
        raise ValueError(f"{path}: {counted}, first {missing[0]!r}; {advice}")


def _load_raw(path: str, dropped: Counter) -> list[Index]:
    """Return the indices of a raw list, restored or built, a thousand lines each."""
    stamp = indices.stamp_of(path)
    restored = indices.restore(path, stamp)
    if restored:
        index, faults, _ = restored
    else:
        index, faults, audio_fault = scan_raw(path)
        # a recording can be put right without the list changing
        if not audio_fault:
            indices.save(index, faults, stamp)
    for key, reason in faults:
        note(dropped, key, reason)
    parts = []
    for first in range(0, len(index), RAW_ROWS):
        rows = slice(first, first + RAW_ROWS)
        parts.append(index.select(rows))
    return parts


def _first_keys(found: list[Index], dropped: Counter) -> list[Index]:
    """Leave out keys that stood before in the list."""
    # 64-bit hashes find the candidates: they take 8 bytes a key, however long the list is.
    every = itertools.chain.from_iterable(index.keys for index in found)
    hashes = np.fromiter(map(hash, map(str, every)), dtype=np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    doubtful = set(values[counts > 1].tolist())
    if not doubtful:
        return found

    seen: set[str] = set()
    kept = []
    for index in found:
        keep = np.ones(len(index), dtype=bool)
        for row, key in enumerate(map(str, index.keys)):
            if hash(key) not in doubtful:
                continue
            if key in seen:
                keep[row] = False
                note(dropped, key, "duplicate key")
            seen.add(key)
        kept.append(index.select(keep))
    return kept


def read_utterance(index: Index, i: int, handles: Handles) -> tuple[Utterance, Audio]:
    """Read utterance ``i`` and the bytes of its audio file; of a conversation the list of all.

    A segment comes cut out, with ``start`` and ``end`` taken off. Raises Drop for anything that
    cannot be read.
    """
    path = index.path
    first = int(index.offsets[i])
    size = int(index.sizes[i])
    block = handles.read(path, first, size)
    if index.kind == "tar":
        utterance, audio = _read_tar(index, block)
    else:
        utterance, audio = _read_raw(index, block, handles)

    # an index of another file, or of one that has changed, leads to somebody else
    expected = str(index.keys[i])
    if utterance.key != expected:
        fault = f"{utterance.key!r} where {expected!r} should be"
        raise Drop(MISFIT, f"{path}: {fault}; delete {index_of(path)}")
    if utterance.turns:
        return _conversation(index, i, utterance), audio
    seconds = float(index.durations[i])
    utterance.start = None
    utterance.end = None
    utterance.duration = round(seconds, 4)
    return utterance, audio


def _conversation(index: Index, i: int, utterance: Utterance) -> Utterance:
    """Return a conversation whose recordings are cut out. Raises Drop."""
    turns = len(utterance.turns)
    if index.turns is None or index.turns[i, indices.TURNS] != turns:
        told = f"{index.path}: {utterance.key!r} has {turns} earlier turns"
        raise Drop(MISFIT, f"{told}, the index says otherwise; delete {index_of(index.path)}")
    for one in utterance.recordings():
        one.start = None
        one.end = None
    return utterance


def _read_tar(index: Index, block: bytes) -> tuple[Utterance, Audio]:
    """Read an utterance of its members. Raises Drop."""
    buffer = memoryview(block)
    group = next(groups(buffer, [], ended=False), None)
    if group is None:
        path = index.path
        raise Drop(MISFIT, f"{path}: no members; delete {index_of(path)}")
    parts = group.parts(buffer)
    utterance, _ = read_members(group.stem, parts)
    sounds = []
    for one in utterance.recordings():
        member = part_of(one, parts)
        sounds.append(_sound(one, member))
    if utterance.turns:
        return utterance, sounds
    return utterance, sounds[0]


def _sound(utterance: Utterance, member: memoryview) -> bytes:
    """Return the audio file of a member, the utterance's segment cut out where it has one."""
    audio = bytes(member)
    start, end = utterance.start, utterance.end
    if start is None and end is None:
        return audio
    return cut(audio, start, end)


def _read_raw(index: Index, line: bytes, handles: Handles) -> tuple[Utterance, Audio]:
    """Read an utterance of its line, and its recordings. Raises Drop."""
    try:
        utterance = parse_line(line)
    except ValueError as error:
        raise Drop(MISFIT, f"{index.path}: {error}") from None
    sounds = []
    for one in utterance.recordings():
        path = find(one.wav, index.path)
        sounds.append(recording(one, path, handles.conf))
    if utterance.turns:
        return utterance, sounds
    return utterance, sounds[0]


def write_list(path: str | Path, shard_paths: Iterable[str | Path]) -> None:
    """Write a data.list, one shard per line; the file appears whole or not at all."""
    lines = [f"{shard}\n" for shard in shard_paths]
    write_text(path, "".join(lines))
