"""Words with their times."""

from __future__ import annotations

from typing import Any, NamedTuple


class Word(NamedTuple):
    """A word (English) or character (Chinese) with its place in the recording."""

    text: str
    start: float  # s
    end: float  # s


def read_words(key: str, rows: Any) -> list[Word]:
    """Read the words of a JSON row. Raises ValueError when they are malformed."""
    words = []
    try:
        for text, start, end in rows:
            word = Word(
                str(text),
                float(start),
                float(end),
            )
            words.append(word)
    except (TypeError, ValueError) as error:
        rule = f"words of {key!r} must be [[word, start_s, end_s], …]"
        got = str(rows)[:80]
        raise ValueError(f"{rule}, got {got}: {error}") from None
    return words
