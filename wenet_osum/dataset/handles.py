"""Stretches of shards, wherever these are: files, addresses, programs."""

from __future__ import annotations

import functools
import os
import sys
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from wenet_osum.config import StoreConfig
from wenet_osum.dataset import ranges, spool
from wenet_osum.dataset.address import NoRanges, host_of, is_url
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.ranges import JoinedRanges, Part
from wenet_osum.dataset.remote import is_pipe, read_remote, seeks, spooled
from wenet_osum.dataset.retry import DEFAULT_STORE, drive_fault, with_retries
from wenet_osum.dataset.shard_index import index_of

SMALL = 1 << 26  # bytes of a shard that is read whole where its server knows no ranges
# hosts of which a process has said that they know no ranges
_noticed: set[str] = set()


class Handles:
    """Open files, the least recently used closed first, and the joined ranges of a micro-batch.

    Reads carry their own position, so forked workers may share descriptors; a spawned worker starts
    with none.
    """

    def __init__(self, limit: int = 32, conf: StoreConfig = DEFAULT_STORE):
        self.limit = limit
        self.conf = conf
        self._open: OrderedDict[str, int] = OrderedDict()
        # the parts of a micro-batch and of the next one, with the ranges that hold them
        self._now: tuple[list[Part], JoinedRanges] = ([], JoinedRanges())
        self._ahead = self._now
        # addresses that are read whole, and those that are too large for that
        self._whole: set[str] = set()
        self._refused: dict[str, Drop] = {}

    def hold(self, paths: Iterable[str]) -> None:
        """Take part in the spool where a shard needs it, before data processes are forked."""
        whole = [path for path in paths if is_pipe(path) and not seeks(path)]
        if whole:
            spool.hold()

    def expect(self, parts: Iterable[Part], ahead: Iterable[Part] = ()) -> None:
        """Ask for the parts of a micro-batch, and then for those of the one ``ahead``.

        Parts that are near each other are read together, other threads do it. What was asked for
        before is forgotten, unless it is asked for again.
        """
        wanted = self._remote(parts)
        if wanted == self._now[0]:
            return
        if wanted == self._ahead[0]:
            self._now = self._ahead
        else:
            self._now = (wanted, self._started(wanted))
        later = self._remote(ahead)
        self._ahead = (later, self._started(later))

    def _remote(self, parts: Iterable[Part]) -> list[Part]:
        """Return the parts that are read as ranges."""
        found = []
        for part in parts:
            path = part[0]
            if seeks(path) and path not in self._whole and path not in self._refused:
                found.append(part)
        return found

    def _started(self, parts: list[Part]) -> JoinedRanges:
        """Let threads read the parts."""
        joined = ranges.join(parts, _gap)
        if parts:
            threads = _threads(os.getpid(), self.conf.connections)
            joined.start(partial(threads.submit, read_remote, conf=self.conf))
        return joined

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Read ``size`` bytes from ``offset``. Raises Drop when they are not there."""
        if seeks(path) and path not in self._whole:
            data = self._read_remote(path, offset, size)
        else:
            data = self._read_file(path, offset, size)
        if len(data) != size:
            got = f"{len(data)} of {size} bytes at {offset}"
            told = f"{path}: {got}; delete {index_of(path)}"
            raise Drop("shard: shorter than its index says", told)
        return data

    def _read_remote(self, path: str, offset: int, size: int) -> bytes:
        """Read a part of a shard that seeks, with its neighbors where they were announced."""
        if path in self._refused:
            raise self._refused[path]
        try:
            data = self._now[1].read(path, offset, size)
            if data is None:
                data = read_remote(path, offset, size, self.conf)
            return data
        except NoRanges as answer:
            _notice(path, answer)
            if answer.size is None or answer.size > SMALL:
                self._refused[path] = answer
                raise
            self._whole.add(path)
        return self._read_file(path, offset, size)

    def _read_file(self, path: str, offset: int, size: int) -> bytes:
        """Read a file, again where a network drive fails for a moment."""

        def read() -> bytes:
            try:
                return os.pread(self._descriptor(path), size, offset)
            except OSError:
                # whoever tries again needs another descriptor
                self._close(path)
                raise

        try:
            return with_retries(read, self.conf)
        except OSError as error:
            reason = drive_fault(path, error) or "shard: cannot be read"
            raise Drop(reason, f"{path}: {error.strerror}") from None

    def _descriptor(self, path: str) -> int:
        """Return the descriptor of a file, opened if need be."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if is_url(path) or is_pipe(path):
            self._close_removed()
            opened = spooled(path, self.conf)
        else:
            opened = os.open(path, os.O_RDONLY)
        self._open[path] = opened
        if len(self._open) > self.limit:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)
        return opened

    def _close(self, path: str) -> None:
        """Close a file, if it is open."""
        if path in self._open:
            os.close(self._open.pop(path))

    def _close_removed(self) -> None:
        """Close what the spool has removed: it takes disk as long as it is open."""
        for path, descriptor in [*self._open.items()]:
            from_spool = is_url(path) or is_pipe(path)
            if from_spool and spool.is_removed(descriptor):
                self._close(path)

    def close(self) -> None:
        """Close all files."""
        while self._open:
            _, descriptor = self._open.popitem()
            os.close(descriptor)

    def __reduce__(self) -> tuple:
        return Handles, (self.limit, self.conf)

    def __del__(self) -> None:
        self.close()


@functools.cache
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Return the threads of a process that ask: a forked one has none of its parent's."""
    return ThreadPoolExecutor(count, thread_name_prefix="store")


def _gap(path: str) -> int:
    """Return the bytes between two parts of a shard that are read along at most."""
    return ranges.GAP if is_url(path) else ranges.PROGRAM_GAP


def _notice(path: str, answer: NoRanges) -> None:
    """Say once that a server knows no ranges."""
    host = host_of(path)
    if host not in _noticed:
        _noticed.add(host)
        print(f"warning: {answer}", file=sys.stderr, flush=True)
