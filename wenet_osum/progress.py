"""Show how far long work is: a bar on a terminal, plain lines elsewhere.

Every command shows its progress with this class, on stderr, so that stdout holds results alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

# Seconds between two reports, by whether the bar is on a terminal.
EVERY_S = {True: 0.2, False: 10.0}
# Characters of the bar.
WIDTH = 24
# Return to the start of the line, and erase what stands there.
CLEAR = "\r\x1b[K"

Item = TypeVar("Item")


def on_terminal() -> bool:
    """Tell whether stderr is a terminal, where a bar can be drawn."""
    return sys.stderr.isatty()


class ProgressBar:
    """Count finished items, and report their number, their rate and the time left.

    Where the items have audio, the report has its real-time factor (RTF) too: computing time over
    audio time, of this process alone.
    """

    def __init__(
        self,
        total: int | None,
        unit: str = "utterances",
        *,
        title: str = "",
        audio_s: float = 0.0,
        done: int = 0,
        every_s: float = EVERY_S[False],
        log: Callable[[str], Any] | None = None,
        quiet: bool = False,
    ) -> None:
        """Begin to count.

        ``total`` is the number of items, None if it is not known, and ``audio_s`` their audio in
        all, in seconds. ``done`` items were finished by an earlier run. ``log`` takes the lines in
        place of stderr, one every ``every_s`` seconds. A ``quiet`` bar counts and shows nothing.
        """
        self.total = total
        self.unit = unit
        self.title = title
        self.audio_s = audio_s
        self.done = done
        self.done_before = done
        self.done_audio_s = 0.0
        self.note = ""
        self.log = log
        self.quiet = quiet
        self.terminal = log is None and on_terminal()
        self.every_s = EVERY_S[True] if self.terminal else every_s
        self.start = time.monotonic()
        self.shown = self.start

    def add(self, items: int = 1, audio_s: float = 0.0, note: str = "") -> None:
        """Count items that are finished, and report if it is time to.

        ``note`` stands at the end of the report, for example the loss.
        """
        self.done += items
        self.done_audio_s += audio_s
        self.note = note
        if time.monotonic() - self.shown >= self.every_s:
            self._show("" if self.terminal else "\n")

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and count each when the next one is asked for."""
        for item in items:
            yield item
            self.add()
        self.close()

    def write(self, text: str) -> None:
        """Print a line of text on stdout, above the bar."""
        if self.terminal and not self.quiet:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
        print(text, flush=True)
        if self.terminal:
            self._show("")

    def close(self) -> None:
        """Report for the last time."""
        self._show("\n")

    def line(self) -> str:
        """Return the report in one line."""
        spent = time.monotonic() - self.start
        spent = max(spent, 1e-9)
        rate = (self.done - self.done_before) / spent
        counted = str(self.done)
        if self.total is not None:
            counted += f"/{self.total}"
        parts = [f"{counted} {self.unit}", f"{rate:.3g} {self.unit}/s"]
        if self.done_audio_s:
            rtf = spent / self.done_audio_s
            speed = self.done_audio_s / spent
            parts.append(f"RTF {rtf:.4f} ({speed:.2g}x real time)")
        left_s = self._left_s(spent)
        if left_s is not None:
            parts.append(f"{left_s:.0f} s left")
        if self.note:
            parts.append(self.note)

        line = self._bar() + ", ".join(parts)
        if self.title:
            line = f"{self.title}: {line}"
        return line

    def _share(self) -> float | None:
        """Return the share of the work that is done; by the audio where it is known."""
        if self.audio_s:
            share = self.done_audio_s / self.audio_s
        elif self.total is None:
            return None
        elif self.total == 0:
            share = 1.0
        else:
            share = self.done / self.total
        return min(share, 1.0)

    def _left_s(self, spent: float) -> float | None:
        """Estimate the time left, if the rest takes as long as what this run has done."""
        if self.audio_s:
            done = self.done_audio_s
            left = self.audio_s - done
        elif self.total is not None:
            done = self.done - self.done_before
            left = self.total - self.done
        else:
            return None
        if not done:
            return None
        left = max(left, 0)
        return spent * left / done

    def _bar(self) -> str:
        share = self._share()
        if share is None:
            return ""
        full = round(WIDTH * share)
        empty = WIDTH - full
        drawn = "#" * full + "." * empty
        return f"[{drawn}] "

    def _show(self, end: str) -> None:
        self.shown = time.monotonic()
        if self.quiet:
            return
        line = self.line()
        if self.log:
            self.log(line)
            return
        if self.terminal:
            line = CLEAR + line
        sys.stderr.write(line + end)
        sys.stderr.flush()
