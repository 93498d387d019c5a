"""Stop a run whose store or drive loses too much of the data."""

from __future__ import annotations

from collections import Counter, deque

from wenet_osum.dataset.drop import STORE
from wenet_osum.records import Batch

WINDOW = 1000  # utterances, the last ones that were asked for
AT_LEAST = 200  # utterances of which the share is taken while fewer were asked for


class StoreError(ValueError):
    """Too many utterances that a store did not give."""


class FaultLimit:
    """The share of the last utterances that stores, programs and drives did not give."""

    def __init__(self, share: float) -> None:
        self.share = share
        # of each micro-batch: utterances asked for, and those lost, by reason
        self._rows: deque[tuple[int, Counter]] = deque()
        self._asked = 0
        self._lost: Counter = Counter()

    def count(self, batch: Batch) -> None:
        """Count a micro-batch. Raises StoreError when more is lost than may be."""
        lost = Counter()
        for reason, count in batch.dropped.items():
            if reason.startswith(STORE):
                lost[reason] = count
        asked = sum(batch.dropped.values())
        if not batch.filler:
            asked += len(batch.keys)
        self._add(asked, lost)
        of = max(self._asked, AT_LEAST)
        if self._lost.total() > self.share * of:
            raise StoreError(self._told())

    def _add(self, asked: int, lost: Counter) -> None:
        """Move the window on."""
        self._rows.append((asked, lost))
        self._asked += asked
        self._lost += lost
        while self._asked - self._rows[0][0] >= WINDOW:
            asked, lost = self._rows.popleft()
            self._asked -= asked
            self._lost -= lost

    def _told(self) -> str:
        """Say which store failed, and how."""
        reasons = []
        for reason, count in self._lost.most_common(3):
            reasons.append(f"{count} × {reason}")
        told = "; ".join(reasons)
        lost = self._lost.total()
        return (
            f"{lost} of the last {self._asked} utterances could not be read: {told}. "
            f"This is more than store.max_faults, {self.share:.1%}; "
            "put the store right and start again, "
            "a training goes on from its last checkpoint"
        )
