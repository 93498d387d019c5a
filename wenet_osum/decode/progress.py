"""How far decoding is: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter

# Seconds between two reports, by whether stderr is a terminal.
EVERY_S = {True: 0.2, False: 10.0}
# Characters of the bar.
BAR = 24
# Counts of what the LLM was given: positions that speech took, and seconds of it.
SPEECH_TOKENS, SPEECH_S = "speech tokens", "speech seconds"
# Counts that are reported elsewhere.
OWN_LINES = ("steps", "ties", "tie", "errors", SPEECH_TOKENS, SPEECH_S)


def counted(counts: Counter) -> str:
    """Return the flags and failures of a run with their numbers, or an empty text."""
    notes = []
    for name, times in sorted(counts.items()):
        if times and name not in OWN_LINES:
            notes.append(f"{name} {times}")
    return ", ".join(notes)


def speech_rate(counts: Counter) -> str:
    """Say how many positions of the LLM a second of speech took, or return an empty text."""
    seconds = counts[SPEECH_S]
    if not seconds:
        return ""
    tokens = counts[SPEECH_TOKENS]
    return f"speech: {tokens} LLM tokens for {seconds:.0f} s, {tokens / seconds:.2f} per second"


class Progress:
    """Counts finished utterances and their seconds of audio.

    RTF, the real-time factor, is computing time over audio time, of this process alone.
    """

    def __init__(self, utterances: int, seconds: float, quiet: bool = False) -> None:
        """Begin with what is to be done: ``utterances`` with ``seconds`` of audio in all."""
        self.utterances, self.seconds = utterances, seconds
        self.quiet = quiet
        self.done, self.heard = 0, 0.0
        self.begin = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def add(self, utterances: int, seconds: float) -> None:
        """Count what has been finished since the last call, and report if it is time to."""
        self.done += utterances
        self.heard += seconds
        since = time.monotonic() - self.shown
        if since < EVERY_S[self.terminal]:
            return

        # On a terminal each report is written over the one before.
        if self.terminal:
            self._show("\r", "")
        else:
            self._show("", "\n")

    def close(self) -> None:
        """Report for the last time."""
        begin = "\r" if self.terminal else ""
        self._show(begin, "\n")

    def line(self) -> str:
        """Return the state in one line."""
        spent = time.monotonic() - self.begin
        spent = max(spent, 1e-9)
        share = 1.0
        if self.seconds:
            share = self.heard / self.seconds

        # Time left, if the rest takes as long per second of audio as what is done.
        left = 0.0
        if 0 < share <= 1:
            left = spent / share - spent

        full = round(BAR * min(share, 1.0))
        bar = "#" * full + "." * (BAR - full)
        per_s = self.done / spent
        rtf = spent / max(self.heard, 1e-9)
        speed = self.heard / spent
        notes = (
            f"{self.done}/{self.utterances} utterances",
            f"{per_s:.1f} utterances/s",
            f"RTF {rtf:.4f} ({speed:.2g}x real time)",
            f"{left:.0f} s left",
        )
        return f"[{bar}] " + ", ".join(notes)

    def _show(self, begin: str, end: str) -> None:
        self.shown = time.monotonic()
        if self.quiet:
            return
        sys.stderr.write(begin + self.line() + end)
        sys.stderr.flush()
