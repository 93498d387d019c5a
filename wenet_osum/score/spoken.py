"""Whether, and how often, a word of a context is spoken in a text.

Case and punctuation do not matter. A word of a script with spaces counts as a whole, so that "art"
is not in "start"; Chinese characters count wherever they follow one another. A word may be several:
"Baker Street".
"""

from __future__ import annotations

from collections.abc import Sequence

from wenet_osum.score.normalize import answer_tokens


def occurrences(word: Sequence[str], text: Sequence[str]) -> int:
    """Count the places of a word in a text that do not overlap; both as ``answer_tokens``."""
    size = len(word)
    wanted = list(word)
    found = place = 0
    while size and place + size <= len(text):
        if list(text[place : place + size]) == wanted:
            found += 1
            place += size
        else:
            place += 1
    return found


def is_spoken(word: str, text: str) -> bool:
    """Tell whether a word stands in a text."""
    return occurrences(answer_tokens(word), answer_tokens(text)) > 0
