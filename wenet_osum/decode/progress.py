"""How far decoding is: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter

EVERY_S = {True: 0.2, False: 10.0}  # between two reports, on a terminal or not
BAR = 24  # characters


OWN_LINES = ("steps", "ties", "tie", "errors")  # counts that are told elsewhere


def counted(counts: Counter) -> str:
    """Return the flags and failures of a run with their numbers, or an empty text."""
    notes = {name: times for name, times in counts.items() if times and name not in OWN_LINES}
    return ", ".join(f"{name} {times}" for name, times in sorted(notes.items()))


class Progress:
    """Counts finished utterances and their seconds of audio. RTF is computing time over audio time, of this process."""

    def __init__(self, utterances: int, seconds: float, quiet: bool = False) -> None:
        self.utterances, self.seconds, self.quiet = utterances, seconds, quiet
        self.done, self.heard = 0, 0.0
        self.begin = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def add(self, utterances: int, seconds: float) -> None:
        """Count what is finished now."""
        self.done += utterances
        self.heard += seconds
        if time.monotonic() - self.shown >= EVERY_S[self.terminal]:
            self._show("\r" if self.terminal else "", "" if self.terminal else "\n")

    def close(self) -> None:
        """Report for the last time."""
        self._show("\r" if self.terminal else "", "\n")

    def line(self) -> str:
        """The state in one line."""
        spent = max(time.monotonic() - self.begin, 1e-9)
        share = self.heard / self.seconds if self.seconds else 1.0
        left = spent / share - spent if 0 < share <= 1 else 0.0
        full = round(BAR * min(share, 1.0))
        rate = f"{self.done / spent:.1f} utterances/s, RTF {spent / max(self.heard, 1e-9):.4f} ({self.heard / spent:.2g}x real time)"
        return f"[{'#' * full}{'.' * (BAR - full)}] {self.done}/{self.utterances} utterances, {rate}, {left:.0f} s left"

    def _show(self, begin: str, end: str) -> None:
        self.shown = time.monotonic()
        if not self.quiet:
            sys.stderr.write(begin + self.line() + end)
            sys.stderr.flush()
