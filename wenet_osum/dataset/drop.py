"""What is left out, why, and how often: no reader or filter skips anything in silence."""

from __future__ import annotations

from collections import Counter


class Drop(ValueError):
    """An utterance that cannot be used. ``reason`` is what gets counted, ``detail`` names the value and the rule it breaks."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple:  # Exception pickles its message only; drops cross process borders
        return Drop, (self.reason, self.detail)


class Dropped(Counter):
    """Counts by reason that also remember every key: ``pairs`` is [(key, reason), …] in the order they came."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pairs: list[tuple[str, str]] = []


def note(dropped: Counter, key: str, reason: str) -> None:
    """Count one dropped utterance; a ``Dropped`` keeps its key too."""
    dropped[reason] += 1
    if isinstance(dropped, Dropped):
        dropped.pairs.append((key, reason))


def table(dropped: Counter) -> str:
    """The counts as lines ``  12  reason``, most frequent first; empty when nothing was dropped."""
    return "\n".join(f"{count:8d}  {reason}" for reason, count in dropped.most_common())
