"""The text that was said before each segment of a recording.

Segments are rows of a manifest with the same ``wav`` and with ``start`` and ``end``. The text
before a segment is that of the one which ends last of those that end before it begins.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from wenet_osum.context import PREVIOUS, end_of
from wenet_osum.records import Utterance

# Segments of one recording may overlap by so much rounding, s.
OVERLAP_S = 0.05
# Reasons for which a row gets no text before it.
NO_SEGMENT = "no segment with start and end"
FIRST = "nothing is said before it, or too long before"


def with_previous(
    rows: Sequence[Utterance], counts: Counter, longest_gap_s: float = 30.0
) -> list[Utterance]:
    """Return the rows, in their order, with what was said before each in ``extra``.

    A text that ended more than ``longest_gap_s`` before is none. Rows without one stay as they are,
    and are counted by reason.
    """
    texts = _texts_before(rows, longest_gap_s)
    found = []
    for number, row in enumerate(rows):
        text = texts.get(number)
        if text:
            extra = row.extra | {PREVIOUS: text}
            row = dataclasses.replace(row, extra=extra)
        else:
            counts[NO_SEGMENT if not _is_segment(row) else FIRST] += 1
        found.append(row)
    return found


def _is_segment(row: Utterance) -> bool:
    """Tell whether a row says where in its recording it lies."""
    return row.start is not None and row.end is not None


def _texts_before(rows: Sequence[Utterance], longest_gap_s: float) -> dict[int, str]:
    """Return the text before each row that has one, by the row's number."""
    recordings: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if _is_segment(row):
            recordings.setdefault(row.wav, []).append(number)

    texts = {}
    for numbers in recordings.values():
        by_end = sorted(numbers, key=lambda number: rows[number].end)
        by_start = sorted(numbers, key=lambda number: rows[number].start)
        ended = 0
        before: Utterance | None = None
        for number in by_start:
            start = rows[number].start
            # Of the segments that have ended, the last one; an empty text says nothing.
            while ended < len(by_end) and rows[by_end[ended]].end <= start + OVERLAP_S:
                candidate = rows[by_end[ended]]
                ended += 1
                if candidate.txt:
                    before = candidate
            if before is not None and start - before.end <= longest_gap_s:
                texts[number] = end_of(before.txt)
    return texts
