"""When each token of a transcript is spoken, from the times of its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wenet_osum.records import Word
from wenet_osum.tasks.base import escape
from wenet_osum.text.tokenizer import encode, encode_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Start and end, s.
Span = tuple[float, float]
# Of what belongs to no word with known times.
ANY_TIME: Span = (-math.inf, math.inf)


def timed_tokens(
    tokenizer: PreTrainedTokenizerBase, text: str, words: Sequence[Word], spread: bool = False
) -> tuple[list[int], list[Span]]:
    """Encode ``text``, and say when each token is spoken: from the start of the first word it has a
    letter of to the end of the last.

    ``spread``: the letters of a word share its time evenly, so that a part of a word gets a part of
    it. Words are looked for in the order they come; one that is not there is passed over. A token
    that has no letter of a word could be said at ``ANY_TIME``.
    """
    if not words:
        ids = encode(tokenizer, text)
        return ids, [ANY_TIME] * len(ids)
    ids, offsets = encode_with_offsets(tokenizer, text)
    letters = _letter_spans(text, words, spread)
    spans = []
    for first, end in offsets:
        known = [span for span in letters[first:end] if span is not None]
        span = _around(known)
        spans.append(span)
    return ids, spans


def _around(spans: list[Span]) -> Span:
    """Return the time from the earliest start to the latest end."""
    if not spans:
        return ANY_TIME
    starts = [start for start, _ in spans]
    ends = [end for _, end in spans]
    return min(starts), max(ends)


def _letter_spans(text: str, words: Sequence[Word], spread: bool) -> list[Span | None]:
    """Return when each character of ``text`` is spoken; None: it belongs to no word."""
    spans: list[Span | None] = [None] * len(text)
    cursor = 0
    for word in words:
        letters = escape(word.text)
        begin = text.find(letters, cursor)
        if begin < 0:
            continue
        count = len(letters)
        cursor = begin + count
        for i in range(count):
            place = begin + i
            spans[place] = (word.start, word.end)
            if spread:
                spans[place] = _part(word, i, count)
    return spans


def _part(word: Word, number: int, count: int) -> Span:
    """Return the time of one of ``count`` letters that share a word's evenly."""
    seconds = word.end - word.start
    step = seconds / count
    start = word.start + number * step
    next_number = number + 1
    return start, word.start + next_number * step
