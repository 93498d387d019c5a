"""Match words with times, from an aligner or a recognizer, with the transcript they belong to.

The transcript stays as it is written. It is cut into units, a word (English) or a character
(Chinese) with the punctuation after it, and each unit gets the time of the timed words that say it:
the same word, several that are written as one (well-known), a part of one (characters of a Chinese
word share its time evenly), a number read out, a word the aligner did not know.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from wenet_osum.records import Word
from wenet_osum.score.align import align
from wenet_osum.score.normalize import MIXED, fold

SILENCE = frozenset(
    (
        *("", "sil", "<sil>", "!sil", "[sil]", "sp", "<p:>", "#", "eps", "<eps>"),
        # Bare it is a word that people say.
        *("<silence>", "[silence]", "<s>", "</s>"),
    )
)
# Sounds like a word that the aligner had no entry for.
UNKNOWN = frozenset(("unk", "<unk>", "[unk]", "spn", "<spn>", "[spn]"))
# A word is at least this long; aligners and Whisper give some no length at all.
SHORTEST_S = 0.01
# Share of units that may be another word in the alignment: spelling, a slip of the recognizer.
MOST_DIFFERENT = 0.2

Span = tuple[float, float]  # start and end, s
Pair = tuple[int | None, int | None]  # index of a unit and of a timed word that are aligned


class Unmatched(ValueError):
    """Words that do not fit an utterance; ``reason`` is what gets counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        message = f"{reason}: {detail}" if detail else reason
        super().__init__(message)
        self.reason = reason


def units(text: str) -> list[str]:
    """Cut a transcript into words and Chinese characters, in order.

    Punctuation belongs to the unit before, at the very beginning to the first. Joined by
    ``tasks.base.join_words`` they are the transcript again, runs of spaces aside.
    """
    found = []
    for start, end in spans(text):
        parts = text[start:end].split()
        found.append(" ".join(parts))
    return found


def spans(text: str) -> list[tuple[int, int]]:
    """Return where each unit lies in the text, (start, end) in characters."""
    found: list[tuple[int, int]] = []
    begin = None
    for match in MIXED.finditer(text):
        start = match.start()
        end = match.end()
        if begin is None:
            begin = start
        if _spoken(match[0]):
            # The first unit takes the punctuation before it along.
            if not found:
                start = begin
            found.append((start, end))
        elif found:
            last_start, _ = found[-1]
            found[-1] = (last_start, end)
    return found


def _spoken(text: str) -> bool:
    """Tell whether there is a letter, a mark or a number in the text."""
    return any(unicodedata.category(sign)[0] in "LMN" for sign in text)


def tidy(words: list[Word]) -> list[Word]:
    """Return timed words without silences, in order.

    Each is at least 10 ms long and none begins before the end of the one before. Where two overlap
    the border is the middle of the overlap. Raises Unmatched when one lies within another: two
    voices at once.
    """
    kept = []
    for word in words:
        text = word.text.strip()
        if text.lower() not in SILENCE:
            kept.append(word._replace(text=text))
    kept.sort(key=lambda word: (word.start, word.end))

    out: list[Word] = []
    for word in kept:
        start = max(word.start, 0.0)
        end = max(word.end, word.start + SHORTEST_S)
        word = Word(word.text, start, end)
        if out and word.start < out[-1].end:
            border = _border(out[-1], word)
            out[-1] = out[-1]._replace(end=border)
            word = word._replace(start=border)
        out.append(word)
    return out


def _border(last: Word, word: Word) -> float:
    """Return where ``last`` ends and ``word`` begins, when they overlap. Raises Unmatched."""
    border = last.start
    if word.start > last.start:
        end = min(last.end, word.end)
        border = (word.start + end) / 2

    # Neither may lie within the other, nor lose all of its length.
    is_inside = word.end < last.end - 1e-6
    left = border - last.start
    right = word.end - border
    if is_inside or min(left, right) < SHORTEST_S / 2:
        both = f"{_with_times(last)} and {_with_times(word)}"
        raise Unmatched("words overlap", both)
    return border


def _with_times(word: Word) -> str:
    start = f"{word.start:.2f}"
    end = f"{word.end:.2f}"
    return f"{word.text!r} {start}–{end} s"


@dataclass
class _Matched:
    """Collects what was found out about the units of a transcript."""

    times: dict[int, Span] = field(default_factory=dict)  # index of a unit → its time
    different: int = 0  # units whose timed word is another word
    extra: int = 0  # timed words that say nothing of the transcript


def match(text: str, timed: list[Word]) -> tuple[list[Word], int]:
    """Return the transcript's units with times, and how many timed words say nothing of it.

    Raises Unmatched when the two do not fit.
    """
    wanted = units(text)
    heard = _cut_to_units(timed)
    if not wanted:
        raise Unmatched("no words in the transcript", repr(text[:40]))
    if not heard:
        raise Unmatched("no words in the alignment")

    # Stretches where both say the same word by word take turns with stretches where they differ.
    left = [fold(unit) for unit in wanted]
    right = [fold(word.text) for word in heard]
    aligned = align(left, right)
    matched = _Matched()
    for same, block in groupby(aligned, lambda pair: _is_same(pair, left, right)):
        pairs = list(block)
        if same:
            for i, j in pairs:
                matched.times[i] = _span(heard[j])
        else:
            _match_block(pairs, left, heard, matched)

    _check(wanted, matched)
    words = [Word(unit, *matched.times[i]) for i, unit in enumerate(wanted)]
    return words, matched.extra


def _cut_to_units(timed: list[Word]) -> list[Word]:
    """Return timed words, tidied, as the units they hold."""
    heard: list[Word] = []
    for word in tidy(timed):
        heard += _pieces(word)
    return heard


def _is_same(pair: Pair, left: list[str], right: list[str]) -> bool:
    i, j = pair
    if i is None or j is None:
        return False
    return left[i] == right[j]


def _span(word: Word) -> Span:
    return word.start, word.end


def _check(wanted: list[str], matched: _Matched) -> None:
    """Raise Unmatched when units have no time, or too many have that of another word."""
    missing = []
    for i, unit in enumerate(wanted):
        if i not in matched.times:
            missing.append(unit)
    if missing:
        examples = ", ".join(missing[:5])
        raise Unmatched("words of the transcript are not in the alignment", examples)

    if matched.different > MOST_DIFFERENT * len(wanted):
        share = f"{matched.different} of {len(wanted)} words differ"
        raise Unmatched("transcript and alignment say different things", share)


def _match_block(pairs: list[Pair], left: list[str], heard: list[Word], matched: _Matched) -> None:
    """Match a stretch where transcript and alignment differ."""
    mine = []
    span = []
    for i, j in pairs:
        if i is not None:
            mine.append(i)
        if j is not None:
            span.append(heard[j])

    # The same letters cut in another way, or numbers read out, are the same words.
    texts = [left[i] for i in mine]
    if mine and span and _says_the_same(texts, span):
        matched.times |= _share(mine, left, span)
        return

    # Elsewhere a unit takes the time of the timed word it is aligned with.
    for i, j in pairs:
        if j is None:
            continue
        if i is None:
            matched.extra += 1
            continue
        word = heard[j]
        matched.times[i] = _span(word)
        is_known = word.text.lower() not in UNKNOWN
        if is_known and not _has_digit(left[i] + word.text):
            matched.different += 1


def _says_the_same(texts: list[str], span: list[Word]) -> bool:
    """Tell whether timed words are the units' letters, or may be the units' numbers read out."""
    spoken = [fold(word.text) for word in span]
    if "".join(texts) == "".join(spoken):
        return True
    are_numbers = all(_has_digit(text) for text in texts)
    return are_numbers and len(texts) <= len(span)


def _has_digit(text: str) -> bool:
    return any(sign.isdigit() for sign in text)


def _share(mine: list[int], left: list[str], span: list[Word]) -> dict[int, Span]:
    """Lay timed words end to end by their letters, and cut them where the units end."""
    marks = []
    for word in span:
        marks += _letter_spans(word)

    # A unit takes as large a share of the letters that were spoken as it has of those written.
    sizes = [max(len(left[i]), 1) for i in mine]
    total = sum(sizes)
    times = {}
    done = 0
    for i, size in zip(mine, sizes, strict=True):
        first = done * len(marks) // total
        done += size
        last = done * len(marks) // total - 1
        start, _ = marks[first]
        _, end = marks[max(last, first)]
        times[i] = (start, end)
    return times


def _letter_spans(word: Word) -> list[Span]:
    """Cut a word's time into equal parts, one per letter."""
    count = max(len(fold(word.text)), 1)
    length = word.end - word.start
    found = []
    for k in range(count):
        start = word.start + length * k / count
        end = word.start + length * (k + 1) / count
        span = (start, end)
        found.append(span)
    return found


def _pieces(word: Word) -> Iterator[Word]:
    """Cut a timed word into units that share its time by their letters.

    今天 is two, so is iPhone手机 three.
    """
    if word.text.lower() in UNKNOWN:
        yield word
        return
    parts = units(word.text)
    sizes = [max(len(fold(part)), 1) for part in parts]
    total = sum(sizes)

    start = word.start
    length = word.end - word.start
    for part, size in zip(parts, sizes, strict=True):
        end = start + length * size / total
        yield Word(part, start, end)
        start = end
