"""What a list consists of, read part by part: shards, or the lines of a manifest.

Each tells whether a file made of it earlier is still good, and yields the indices that go into a
new one (list_index.py).

Letters: n utterances of a part, S shards of the list.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.index import Index, column_names
from wenet_osum.dataset.list_file import Block, ListFile, make_block
from wenet_osum.dataset.scan import Faults, mended, scan_raw
from wenet_osum.dataset.shard_index import (
    KEPT,
    MISSING,
    REMOTE,
    STALE,
    find_index,
    is_remote,
    kept_at,
)
from wenet_osum.progress import ProgressBar

RAW_ROWS = 1000  # lines of a raw list in one Index
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


def _part(shard: int, index: Index, faults: Faults, state: str) -> Part:
    """Put an index into the form in which it travels to the process that writes."""
    if not len(index):
        return Part(
            shard,
            None,
            np.zeros(0, np.uint64),
            faults,
            state,
        )
    hashes = np.fromiter(
        map(_hash, index.keys),
        dtype=np.uint64,
        count=len(index),
    )
    block = make_block(index, column_names())
    return Part(shard, block, hashes, faults, state)


def _hash(key: str) -> int:
    """Hash a key to 64 bits, the same in every process."""
    raw = str(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


class Shards:
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
        bar = ProgressBar(
            len(jobs),
            "shards",
            title=self.path,
            quiet=len(jobs) < MANY,
        )
        processes = min(len(jobs) // SHARDS_A_PROCESS, cores(), MOST_PROCESSES)
        return bar.over(in_processes(read, jobs, processes))

    def told(self, states: Counter) -> str:
        """Return a sentence on how many indices were stale or missing; empty where none was."""
        scanned = states[STALE] + states[MISSING]
        if not scanned:
            return ""
        of_all = f"of {len(self.paths)} indices {states[STALE]} were stale (of other shards, "
        why = f"damaged, or of another version) and {states[MISSING]} were missing"
        return f"{self.path}: {of_all}{why}; {scanned} shards were scanned"


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
                yield from pool.map(
                    read,
                    jobs[first : first + stretch],
                    chunksize=4,
                )
    except BrokenProcessPool:
        told = "a process that scanned shards was killed, most likely for memory"
        raise ValueError(f"{told}; finished indices are kept: run again") from None


class RawList:
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
        yield Part(
            0,
            None,
            np.zeros(0, np.uint64),
            faults,
            KEPT,
        )
        for first in range(0, len(index), RAW_ROWS):
            rows = slice(first, first + RAW_ROWS)
            yield _part(0, index.select(rows), [], KEPT)

    def told(self, _: Counter) -> str:
        """Return nothing: a raw list has one index, which is not scanned twice."""
        return ""


def hash_of(path: str) -> str:
    """Hash a file."""
    hashed = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            hashed.update(data)
    return hashed.hexdigest()
