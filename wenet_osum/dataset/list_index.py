"""The indices of a list: made once, kept in one file, mapped by every process (list_file.py).

The file lies beside the list, or in the folder that WENET_OSUM_INDEX_DIR names, say on a disk of
each machine. It is good as long as the list names the same shards, with the sizes and times that
they had; else it is made anew from the indices of the shards (shard_index.py), and shards without
one are scanned by as many processes as there are cores. Of processes that want it at the same time
one makes it, and the others wait for its lock: one per machine, or one of all where machines share
the folder and its file system has locks.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wenet_osum.dataset.index import Index, column_names
from wenet_osum.dataset.list_file import ListFile, Writer, open_file
from wenet_osum.dataset.list_parts import RawList, Shards
from wenet_osum.dataset.scan import Faults
from wenet_osum.dataset.shard_index import FOLDER, index_folder
from wenet_osum.files import locked, replaced

SUFFIX = ".index.bin"
BOM = b"\xef\xbb\xbf"  # with which some editors begin a UTF-8 file
CONTENT = "it must hold a shard path or a JSON object a line"


def load_list(path: str | Path, dropped: Counter) -> Sequence[Index]:
    """Return the indices of a list, which lie in one mapped file.

    It is a ``data.list`` (a tar path or URL per line) or a raw list (JSON lines); content tells
    which. A tar may also be a program (``pipe:…``, remote.py). Indices are built by one scan where
    absent or stale, and kept (shard_index.py); how many were scanned is told on stderr. Nobody can
    tell when those of addresses and programs are stale.

    Utterances left out are counted in ``dropped`` by reason (a ``Dropped`` keeps their keys). Of
    keys that stand twice in the list the first stays. Raises ValueError for a missing or empty
    list, missing shards, and lists without one usable utterance.
    """
    path = str(path)
    paths = list_paths(path)
    source = Shards(path, paths) if paths is not None else RawList(path)
    found = _load(path, source)
    found.note_faults(dropped)
    if not len(found):
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


def file_of(path: str) -> Path:
    """Return where the file of a list is kept."""
    folder = index_folder()
    if folder is None:
        return Path(path + SUFFIX)
    whole = str(Path(path).absolute())
    hashed = hashlib.sha1(whole.encode()).hexdigest()
    return folder / f"{Path(path).name}.{hashed[:16]}{SUFFIX}"


def _load(path: str, source: Shards | RawList) -> ListFile:
    """Map the file of a list, made where there is none that is good."""
    target = file_of(path)
    found = _good(target, source)
    if found is None:
        # another process may be at it, and have made it when the lock is free
        with locked(target):
            found = _good(target, source) or _make(target, source)
    return found


def _good(target: Path, source: Shards | RawList) -> ListFile | None:
    """Map a file if it is there and still that of its list."""
    found = open_file(target)
    if found is None or found.meta["paths"] != source.paths:
        return None
    if not set(column_names()) <= set(found.columns):
        return None
    return found if source.is_unchanged(found, target) else None


def _make(target: Path, source: Shards | RawList) -> ListFile:
    """Write the file of a list and map it; where it cannot be kept, an unnamed one."""
    made = None
    with (
        suppress(OSError),
        replaced(target) as temporary,
        open(
            temporary,
            "w+b",
        ) as out,
    ):
        made = _write(out, source)
    if made is not None and target.exists():
        return made
    if made is None:
        with tempfile.TemporaryFile() as out:
            made = _write(out, source)
    advice = f"set {FOLDER} to a folder that can be written"
    _tell(f"the index of the list cannot be kept at {target}, so each process makes it; {advice}")
    return made


def _write(out: BinaryIO, source: Shards | RawList) -> ListFile:
    """Write the indices of a list, and map what was written."""
    writer = Writer(out, column_names())
    faults: Faults = []
    hashes, states = [], Counter()
    for part in source.parts():
        faults += part.faults
        states[part.state] += 1
        if part.block:
            writer.add(part.block, part.shard)
            hashes.append(part.hashes)
    meta = {
        "paths": source.paths,
        "kind": source.kind,
        "faults": faults,
    } | source.facts()

    # keys that stand twice are looked for when all are written
    nothing = np.zeros((0, 2))
    writer.finish(meta, source.stamps(), nothing)
    gone = _seen_before(ListFile(out), hashes)
    if len(gone):
        writer.finish(meta, source.stamps(), gone)
    if told := source.told(states):
        _tell(told)
    return ListFile(out)


def _seen_before(file: ListFile, hashes: list[np.ndarray]) -> np.ndarray:
    """Return block and row of the keys that stood before in the list, (m, 2)."""
    # 64-bit hashes find the candidates: they take 8 bytes a key, however long the list is
    every = np.concatenate(
        [
            np.zeros(
                0,
                np.uint64,
            ),
            *hashes,
        ]
    )
    every.sort()
    twice = np.unique(every[1:][every[1:] == every[:-1]])
    gone = [np.zeros((0, 2), dtype=np.int64)]
    seen: set[str] = set()
    for block, own in enumerate(hashes):
        rows = np.flatnonzero(np.isin(own, twice))
        keys = file.whole(block).keys
        for row in rows.tolist():
            key = str(keys[row])
            if key in seen:
                gone.append(np.array([[block, row]]))
            seen.add(key)
    return np.concatenate(gone)


def _tell(sentence: str) -> None:
    """Say a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)
