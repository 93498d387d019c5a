"""Joined ranges: neighboring utterances of a shard are asked for together.

An answer from a store takes tens of ms before its first byte, in which some MB could have come; a
program takes a second to start. So what lies between two utterances of a micro-batch is read along
when it is small.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wenet_osum.dataset.drop import Drop

GAP = 1 << 20  # bytes between two utterances that are read along at most
PROGRAM_GAP = 1 << 24  # where a program is started for each range
LONGEST = 1 << 26  # bytes of a joined range, so that a micro-batch fits into memory

Part = tuple[str, int, int]  # path, first byte, bytes
Reader = Callable[[str, int, int], bytes]


@dataclass
class Joined:
    """A range of a shard that holds several utterances, and what came of reading it."""

    first: int
    end: int  # byte after the last
    data: bytes | None = None
    fault: Drop | None = None


@dataclass
class JoinedRanges:
    """The ranges of a micro-batch, each read when the first of its utterances is."""

    by_path: dict[str, list[Joined]] = field(default_factory=dict)  # in the order of the shard

    def read(self, path: str, offset: int, size: int, reader: Reader) -> bytes | None:
        """Return ``size`` bytes from ``offset``, fewer where the shard ends before.

        Returns None for what was not announced. Raises Drop, the same for all of a joined range.
        """
        joined = self._holding(path, offset, size)
        if joined is None:
            return None
        if joined.fault:
            raise joined.fault
        if joined.data is None:
            try:
                joined.data = reader(path, joined.first, joined.end - joined.first)
            except Drop as fault:
                joined.fault = fault
                raise
        begin = offset - joined.first
        return joined.data[begin : begin + size]

    def _holding(self, path: str, offset: int, size: int) -> Joined | None:
        """Return the range that holds these bytes."""
        ranges = self.by_path.get(path, [])
        after = bisect_right(ranges, offset, key=lambda joined: joined.first)
        if not after:
            return None
        joined = ranges[after - 1]
        return joined if offset + size <= joined.end else None


def join(parts: Iterable[Part], gap: Callable[[str], int]) -> JoinedRanges:
    """Join the parts of each shard that lie at most ``gap(path)`` bytes apart."""
    found = JoinedRanges()
    for path, first, size in sorted(parts):
        end = first + size
        ranges = found.by_path.setdefault(path, [])
        last = ranges[-1] if ranges else None
        if last and first - last.end <= gap(path) and end - last.first <= LONGEST:
            last.end = max(last.end, end)
        else:
            ranges.append(Joined(first, end))
    return found
