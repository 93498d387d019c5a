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

Span = tuple[float, float]  # start and end, s
ANY_TIME: Span = (-math.inf, math.inf)  # of what belongs to no word with known times


def timed_tokens(tokenizer: PreTrainedTokenizerBase, text: str, words: Sequence[Word], spread: bool = False) -> tuple[list[int], list[Span]]:
    """Token ids of ``text``, and when each is spoken: from the start of the first word it has a letter of to the end of the last.

    ``spread``: the letters of a word share its time evenly, so that a part of a word gets a part of it. Words are looked for in the
    order they come; one that is not there is passed over. A token that has no letter of a word could be said at ``ANY_TIME``.
    """
    if not words:
        ids = encode(tokenizer, text)
        return ids, [ANY_TIME] * len(ids)
    ids, offsets = encode_with_offsets(tokenizer, text)
    letters = _letter_spans(text, words, spread)
    spans = []
    for start, end in offsets:
        known = [span for span in letters[start:end] if span is not None]
        spans.append((min(s for s, _ in known), max(e for _, e in known)) if known else ANY_TIME)
    return ids, spans


def _letter_spans(text: str, words: Sequence[Word], spread: bool) -> list[Span | None]:
    spans: list[Span | None] = [None] * len(text)
    cursor = 0
    for word in words:
        letters = escape(word.text)
        begin = text.find(letters, cursor)
        if begin < 0:
            continue
        cursor = begin + len(letters)
        step = (word.end - word.start) / max(1, len(letters))
        for i in range(len(letters)):
            spans[begin + i] = (word.start + i * step, word.start + (i + 1) * step) if spread else (word.start, word.end)
    return spans
