"""Joined ranges: neighboring utterances of a shard are asked for together.

An answer from a store takes tens of ms before its first byte, in which some MB could have come; a
program takes a second to start. So what lies between two utterances of a micro-batch is read along
when it is small.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

GAP = 1 << 20  # bytes between two utterances that are read along at most
PROGRAM_GAP = 1 << 24  # where a program is started for each range
LONGEST = 1 << 26  # bytes of a joined range, so that a micro-batch fits into memory

Part = tuple[str, int, int]  # path, first byte, bytes
Ask = Callable[[str, int, int], Future]


@dataclass
class Joined:
    """A range of a shard that holds several utterances, and what is asked for it."""

    first: int
    end: int  # byte after the last
    answer: Future | None = None


@dataclass
class JoinedRanges:
    """The ranges of a micro-batch, in the order of each shard."""

    by_path: dict[str, list[Joined]] = field(default_factory=dict)

    def start(self, ask: Ask) -> None:
        """Ask for all of them."""
        for path, ranges in self.by_path.items():
            for joined in ranges:
                size = joined.end - joined.first
                joined.answer = ask(path, joined.first, size)

    def read(self, path: str, offset: int, size: int) -> bytes | None:
        """Return ``size`` bytes from ``offset``, fewer where the shard ends before.

        Returns None for what was not asked. Raises Drop, the same for all of a joined range.
        """
        joined = self._holding(path, offset, size)
        if joined is None:
            return None
        data = joined.answer.result()
        begin = offset - joined.first
        return data[begin : begin + size]

    def _holding(self, path: str, offset: int, size: int) -> Joined | None:
        """Return the range that holds these bytes."""
        ranges = self.by_path.get(path, [])
        after = bisect_right(ranges, offset, key=lambda joined: joined.first)
        if not after:
            return None
        joined = ranges[after - 1]
        if offset + size > joined.end:
            return None
        return joined


def join(parts: Iterable[Part], gap: Callable[[str], int]) -> JoinedRanges:
    """Join the parts of each shard that lie at most ``gap(path)`` bytes apart."""
    found = JoinedRanges()
    for path, first, size in sorted(parts):
        end = first + size
        ranges = found.by_path.setdefault(path, [])
        if ranges:
            last = ranges[-1]
            near = first - last.end <= gap(path)
            length = end - last.first
            if near and length <= LONGEST:
                last.end = max(last.end, end)
                continue
        joined = Joined(first, end)
        ranges.append(joined)
    return found
