"""Count the utterances that readers and filters leave out, by reason."""

from __future__ import annotations

from collections import Counter

# How the reasons begin for which a store, a program or a drive is to blame, not the data; they go
# on with its name and what it answered (store_faults.py stops a run that has too many of them).
STORE = "store "


class Drop(ValueError):
    """An utterance that cannot be used.

    ``reason`` is what gets counted, ``detail`` names the value and the rule it breaks.
    """

    def __init__(self, reason: str, detail: str = ""):
        told = reason
        if detail:
            told = f"{reason}: {detail}"
        super().__init__(told)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple:
        # Exception pickles its message only, and drops cross process borders
        arguments = (self.reason, self.detail)
        return Drop, arguments


class Dropped(Counter):
    """Counts by reason that also remember every key.

    ``pairs`` is [(key, reason), …] in the order they came.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pairs: list[tuple[str, str]] = []

    def add(self, others: Dropped) -> None:
        """Count others, too, keys included."""
        self.update(others)
        self.pairs += others.pairs


def note(dropped: Counter, key: str, reason: str) -> None:
    """Count one dropped utterance; a ``Dropped`` keeps its key too."""
    dropped[reason] += 1
    if isinstance(dropped, Dropped):
        pair = (key, reason)
        dropped.pairs.append(pair)


def table(dropped: Counter) -> str:
    """Write the counts as lines ``  12  reason``, most frequent first.

    Returns an empty text when nothing was dropped.
    """
    lines = []
    for reason, count in dropped.most_common():
        line = f"{count:8d}  {reason}"
        lines.append(line)
    return "\n".join(lines)
