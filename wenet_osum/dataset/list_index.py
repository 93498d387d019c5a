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
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.index import Index, column_names
from wenet_osum.dataset.list_file import Block, ListFile, Writer, make_block, open_file
from wenet_osum.dataset.scan import Faults, mended, scan_raw
from wenet_osum.dataset.shard_index import (
    FOLDER,
    KEPT,
    MISSING,
    REMOTE,
    STALE,
    find_index,
    index_folder,
    is_remote,
    kept_at,
)
from wenet_osum.files import locked, replaced
from wenet_osum.progress import ProgressBar

SUFFIX = ".index.bin"
RAW_ROWS = 1000  # lines of a raw list in one Index
BOM = b"\xef\xbb\xbf"  # with which some editors begin a UTF-8 file
CONTENT = "it must hold a shard path or a JSON object a line"
MOST_PROCESSES = 32
SHARDS_A_PROCESS = 8  # so few are read faster than a process starts
AHEAD = 32  # shards a process that are read before those before them are written
MANY = 100  # shards: reading so many is shown
NOT_THERE = [-1, -1]  # the stamp of a remote shard whose index is not kept
CHUNK = 1 << 24  # bytes hashed together


class Part(NamedTuple):
    """The index of a shard on its way into the file."""

    shard: int
    block: Block | None  # None: no utterance
    hashes: np.ndarray  # of the keys, (n,) uint64
    faults: Faults
    state: str


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
    source = _Shards(path, paths) if paths is not None else _RawList(path)
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


def _load(path: str, source: _Shards | _RawList) -> ListFile:
    """Map the file of a list, made where there is none that is good."""
    target = file_of(path)
    found = _good(target, source)
    if found is None:
        # another process may be at it, and have made it when the lock is free
        with locked(target):
            found = _good(target, source) or _make(target, source)
    return found


def _good(target: Path, source: _Shards | _RawList) -> ListFile | None:
    """Map a file if it is there and still that of its list."""
    found = open_file(target)
    if found is None or found.meta["paths"] != source.paths:
        return None
    if not set(column_names()) <= set(found.columns):
        return None
    return found if source.is_unchanged(found, target) else None


def _make(target: Path, source: _Shards | _RawList) -> ListFile:
    """Write the file of a list and map it; where it cannot be kept, an unnamed one."""
    made = None
    with suppress(OSError), replaced(target) as temporary, open(temporary, "w+b") as out:
        made = _write(out, source)
    if made and target.exists():
        return made
    if made is None:
        with tempfile.TemporaryFile() as out:
            made = _write(out, source)
    advice = f"set {FOLDER} to a folder that can be written"
    _tell(f"the index of the list cannot be kept at {target}, so each process makes it; {advice}")
    return made


def _write(out: BinaryIO, source: _Shards | _RawList) -> ListFile:
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
    meta = {"paths": source.paths, "kind": source.kind, "faults": faults} | source.facts()

    # keys that stand twice are looked for when all are written
    nothing = np.zeros((0, 2))
    writer.finish(meta, source.stamps(), nothing)
    gone = _seen_before(ListFile(out), hashes)
    if len(gone):
        writer.finish(meta, source.stamps(), gone)
    source.tell(states)
    return ListFile(out)


def _seen_before(file: ListFile, hashes: list[np.ndarray]) -> np.ndarray:
    """Return block and row of the keys that stood before in the list, (m, 2)."""
    # 64-bit hashes find the candidates: they take 8 bytes a key, however long the list is
    every = np.concatenate([np.zeros(0, np.uint64), *hashes])
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


def _part(shard: int, index: Index, faults: Faults, state: str) -> Part:
    """Put an index into the form in which it travels to the process that writes."""
    if not len(index):
        return Part(shard, None, np.zeros(0, np.uint64), faults, state)
    hashes = np.fromiter(map(_hash, index.keys), dtype=np.uint64, count=len(index))
    block = make_block(index, column_names())
    return Part(shard, block, hashes, faults, state)


def _hash(key: str) -> int:
    """Hash a key to 64 bits, the same in every process."""
    raw = str(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def _tell(sentence: str) -> None:
    """Say a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)


class _Shards:
    """A list of shards."""

    kind = "tar"

    def __init__(self, path: str, paths: list[str]) -> None:
        """Look at all shards. Raises ValueError when some on disk do not exist."""
        self.path = path
        self.paths = paths
        self.keep = Path(path + REMOTE)
        with ThreadPoolExecutor(MOST_PROCESSES) as threads:
            self.looked_at = [*threads.map(self._stamp, paths)]
        self._check_there()

    def _stamp(self, path: str) -> list[int] | None:
        """Return bytes and time of a shard; of a remote one those of its index, kept here."""
        if is_remote(path):
            path = str(kept_at(path, self.keep))
            return indices.stamp_of(path) if Path(path).is_file() else NOT_THERE
        return indices.stamp_of(path) if Path(path).is_file() else None

    def _check_there(self) -> None:
        """Raise ValueError when shards on disk do not exist."""
        missing = []
        for path, stamp in zip(self.paths, self.looked_at, strict=True):
            if stamp is None:
                missing.append(path)
        if missing:
            counted = f"{len(missing)} of {len(self.paths)} shards do not exist"
            advice = "pack them again or take them out"
            raise ValueError(f"{self.path}: {counted}, first {missing[0]!r}; {advice}")

    def stamps(self) -> np.ndarray:
        """Return bytes and time of each shard before it was read, (S, 2)."""
        found = []
        for path, stamp in zip(self.paths, self.looked_at, strict=True):
            # the index of a remote shard comes to be kept when it is read
            found.append(self._stamp(path) if is_remote(path) else stamp)
        return np.array(found, dtype=np.int64)

    def is_unchanged(self, file: ListFile, _: Path) -> bool:
        """Tell whether the shards are those that a file was made of."""
        return np.array_equal(file.stamps, self.looked_at)

    def facts(self) -> dict[str, Any]:
        """Return what else the header says."""
        return {}

    def parts(self) -> Iterator[Part]:
        """Yield the indices of all shards in their order, read by several processes."""
        jobs = [*enumerate(self.paths)]
        read = partial(_read_shard, self.keep)
        bar = ProgressBar(len(jobs), "shards", title=self.path, quiet=len(jobs) < MANY)
        processes = min(len(jobs) // SHARDS_A_PROCESS, cores(), MOST_PROCESSES)
        return bar.over(in_processes(read, jobs, processes))

    def tell(self, states: Counter) -> None:
        """Say how many indices were stale or missing."""
        scanned = states[STALE] + states[MISSING]
        if not scanned:
            return
        of_all = f"of {len(self.paths)} indices {states[STALE]} were stale (of other shards, "
        why = f"damaged, or of another version) and {states[MISSING]} were missing"
        _tell(f"{self.path}: {of_all}{why}; {scanned} shards were scanned")


def _read_shard(keep: Path, job: tuple[int, str]) -> Part:
    """Return the index of a shard."""
    number, path = job
    return _part(number, *find_index(path, keep))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_processes(read: Any, jobs: list, processes: int) -> Iterator[Part]:
    """Yield ``read(job)`` in the order of the jobs, computed by so many processes.

    Raises ValueError when one of them was killed.
    """
    if processes < 2:
        yield from map(read, jobs)
        return
    # forked, for they must know the tasks and labels that this process was taught
    context = multiprocessing.get_context("fork")
    stretch = AHEAD * processes
    try:
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            for first in range(0, len(jobs), stretch):
                yield from pool.map(read, jobs[first : first + stretch], chunksize=4)
    except BrokenProcessPool:
        told = "a process that scanned shards was killed, most likely for memory"
        raise ValueError(f"{told}; finished indices are kept: run again") from None


class _RawList:
    """A raw list."""

    kind = "raw"

    def __init__(self, path: str) -> None:
        self.path = path
        self.paths = [path]
        self.stamp = indices.stamp_of(path)
        self.at_fault: list[tuple[int, int]] = []

    def stamps(self) -> np.ndarray:
        """Return bytes and time of the list before it was read, (1, 2)."""
        return np.array([self.stamp], dtype=np.int64)

    def is_unchanged(self, file: ListFile, target: Path) -> bool:
        """Tell whether the list is the one that a file was made of.

        A copy with another time is told by a hash of the whole list. A recording that was at fault
        can be put right without the list changing, so those lines are looked at again.
        """
        size, _ = stamp = file.stamps[0].tolist()
        if stamp != self.stamp:
            if size != self.stamp[0] or file.meta["hash"] != hash_of(self.path):
                return False
            with suppress(OSError):
                file.restamp(target, self.stamps())
        return not mended(self.path, file.meta["at_fault"])

    def facts(self) -> dict[str, Any]:
        """Return what else the header says."""
        return {"hash": hash_of(self.path), "at_fault": self.at_fault}

    def parts(self) -> Iterable[Part]:
        """Yield the index of the list in parts."""
        restored = indices.restore(self.path, self.stamp)
        if restored:
            index, faults, _ = restored
        else:
            index, faults, self.at_fault = scan_raw(self.path)
        yield Part(0, None, np.zeros(0, np.uint64), faults, KEPT)
        for first in range(0, len(index), RAW_ROWS):
            rows = slice(first, first + RAW_ROWS)
            yield _part(0, index.select(rows), [], KEPT)

    def tell(self, states: Counter) -> None:
        """Say nothing: a raw list has one index, which is not scanned twice."""


def hash_of(path: str) -> str:
    """Hash a file."""
    hashed = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            hashed.update(data)
    return hashed.hexdigest()
