"""TextGrids as the Montreal Forced Aligner writes them.

They have a tier ``words``, or a tier ``<speaker> - words`` for each of several speakers.
"""

from __future__ import annotations

from wenet_osum.corpus.word_times import textgrid
from wenet_osum.records import Word

SUFFIXES = textgrid.SUFFIXES


def read(data: bytes) -> dict[str | None, list[Word]]:
    """Read the words of all speakers in the order they begin.

    Raises ValueError when there is no tier of words.
    """
    found = textgrid.tiers(data)
    words: list[Word] = []
    is_there = False
    for name, tier in found:
        kind = name.strip().lower().split(" - ")[-1]
        if kind == "words":
            is_there = True
            words += tier
    if not is_there:
        names = [name for name, _ in found]
        rule = "no tier 'words' or '<speaker> - words'"
        raise ValueError(f"{rule}; there are {names}; is it the aligner's output?")

    words.sort(key=lambda word: word.start)
    return {None: words}
