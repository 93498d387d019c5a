"""Words with times, from an aligner or a recognizer, brought together with the transcript they belong to.

The transcript stays as it is written. It is cut into units, a word (English) or a character (Chinese) with the punctuation after it, and each unit
gets the time of the timed words that say it: the same word, several that are written as one (well-known), a part of one (characters of a Chinese
word share its time evenly), a number read out, a word the aligner did not know.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby

from wenet_osum.records import Utterance, Word
from wenet_osum.score.align import align
from wenet_osum.score.normalize import MIXED, fold

SILENCE = frozenset("sil sp <eps> eps <sil> !sil [sil] <p:> silence <silence> [silence] <s> </s> #".split()) | {""}
UNKNOWN = frozenset("<unk> [unk] unk spn <spn> [spn]".split())  # sounds like a word the aligner had no entry for
SHORTEST_S = 0.01  # a word is at least this long; aligners and Whisper give some no length at all
SLACK_S = 0.05  # so far a word may reach beyond the recording; it is cut off there
MOST_DIFFERENT = 0.2  # share of units that may be another word in the alignment: spelling, a slip of the recognizer


class Unmatched(ValueError):
    """Words that do not fit an utterance; ``reason`` is what gets counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def units(text: str) -> list[str]:
    """Words and Chinese characters of a transcript in order; punctuation belongs to the unit before, at the very beginning to the first.

    Joined by ``tasks.base.join_words`` they are the transcript again, runs of spaces aside.
    """
    return [" ".join(text[start:end].split()) for start, end in spans(text)]


def spans(text: str) -> list[tuple[int, int]]:
    """Where each unit lies in the text, (start, end) in characters."""
    found: list[tuple[int, int]] = []
    begin = None
    for match in MIXED.finditer(text):
        begin = match.start() if begin is None else begin
        if _spoken(match[0]):
            found.append((match.start() if found else begin, match.end()))
        elif found:
            found[-1] = (found[-1][0], match.end())
    return found


def _spoken(text: str) -> bool:
    return any(unicodedata.category(c)[0] in "LMN" for c in text)


def tidy(words: list[Word]) -> list[Word]:
    """Timed words without silences, in order, each at least 10 ms long and none begun before the end of the one before.

    Where two overlap the border is the middle of the overlap. Raises Unmatched when one lies within another: two voices at once.
    """
    kept = sorted((w for w in words if w.text.strip().lower() not in SILENCE), key=lambda w: (w.start, w.end))
    out: list[Word] = []
    for word in kept:
        word = Word(word.text.strip(), max(word.start, 0.0), max(word.end, word.start + SHORTEST_S))
        if out and word.start < out[-1].end:
            last = out[-1]
            border = (word.start + min(last.end, word.end)) / 2 if word.start > last.start else last.start
            if word.end < last.end - 1e-6 or border - last.start < SHORTEST_S / 2 or word.end - border < SHORTEST_S / 2:
                raise Unmatched("words overlap", f"{last.text!r} {last.start:.2f}–{last.end:.2f} s and {word.text!r} {word.start:.2f}–{word.end:.2f} s")
            out[-1], word = Word(last.text, last.start, border), Word(word.text, border, word.end)
        out.append(word)
    return out


def match(text: str, timed: list[Word]) -> tuple[list[Word], int]:
    """The transcript's units with times, and how many timed words say nothing of it. Raises Unmatched."""
    wanted, heard = units(text), [piece for word in tidy(timed) for piece in _pieces(word)]
    if not wanted:
        raise Unmatched("no words in the transcript", repr(text[:40]))
    if not heard:
        raise Unmatched("no words in the alignment")
    left, right = [fold(u) for u in wanted], [fold(w.text) for w in heard]
    times: dict[int, tuple[float, float]] = {}
    different = extra = 0
    for same, block in groupby(align(left, right), lambda ij: None not in ij and left[ij[0]] == right[ij[1]]):
        pairs = list(block)
        if same:
            times |= {i: (heard[j].start, heard[j].end) for i, j in pairs}
            continue
        paired, changed, unused = _block(pairs, left, [heard[j] for _, j in pairs if j is not None], heard)
        times |= paired
        different, extra = different + changed, extra + unused
    if missing := [wanted[i] for i in range(len(wanted)) if i not in times]:
        raise Unmatched("words of the transcript are not in the alignment", ", ".join(missing[:5]))
    if different > MOST_DIFFERENT * len(wanted):
        raise Unmatched("transcript and alignment say different things", f"{different} of {len(wanted)} words differ")
    return [Word(unit, *times[i]) for i, unit in enumerate(wanted)], extra


def _block(pairs: list, left: list[str], span: list[Word], heard: list[Word]) -> tuple[dict[int, tuple[float, float]], int, int]:
    """A stretch where the two differ: times of its units, units said differently, timed words left over."""
    mine = [i for i, _ in pairs if i is not None]
    same_letters = "".join(left[i] for i in mine) == "".join(fold(w.text) for w in span)
    numbers = all(any(c.isdigit() for c in left[i]) for i in mine)
    if mine and span and (same_letters or (numbers and len(mine) <= len(span))):
        return _share(mine, left, span), 0, 0
    both = [(i, j) for i, j in pairs if i is not None and j is not None]
    known = [1 for i, j in both if heard[j].text.lower() not in UNKNOWN and not any(c.isdigit() for c in left[i] + heard[j].text)]
    return {i: (heard[j].start, heard[j].end) for i, j in both}, len(known), len(span) - len(both)


def _share(mine: list[int], left: list[str], span: list[Word]) -> dict[int, tuple[float, float]]:
    """Timed words laid end to end by their letters, and cut where the units end."""
    marks = [(w.start + (w.end - w.start) * k / n, w.start + (w.end - w.start) * (k + 1) / n) for w in span for n in [max(len(fold(w.text)), 1)] for k in range(n)]
    total, done, times = sum(max(len(left[i]), 1) for i in mine), 0, {}
    for i in mine:
        first = done * len(marks) // total
        done += max(len(left[i]), 1)
        times[i] = (marks[first][0], marks[max(done * len(marks) // total - 1, first)][1])
    return times


def _pieces(word: Word) -> Iterator[Word]:
    """A timed word cut into units that share its time by their letters: 今天 is two, so is iPhone手机 three."""
    if word.text.lower() in UNKNOWN:
        yield word
        return
    parts = units(word.text)
    sizes = [max(len(fold(part)), 1) for part in parts]
    at = word.start
    for part, size in zip(parts, sizes, strict=True):
        end = at + (word.end - word.start) * size / sum(sizes)
        yield Word(part, at, end)
        at = end


def add_words(utterance: Utterance, alignments: dict[str, list[Word]]) -> tuple[list[Word], int]:
    """Words for an utterance: from the alignment called like its key, or like its recording's file, of which its segment is taken.

    Times come in the segment's own time. Also gives how many timed words say nothing of the transcript. Raises Unmatched.
    """
    if not utterance.txt:
        raise Unmatched("no transcript")
    timed = alignments.get(utterance.key)
    if timed is None:
        name = utterance.wav.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        timed = _cut(alignments.get(name), utterance.start or 0.0, utterance.end)
    if timed is None:
        raise Unmatched("no alignment of this name", utterance.key)
    words, extra = match(utterance.txt, timed)
    return _within(words, utterance), extra


def _cut(timed: list[Word] | None, start: float, end: float | None) -> list[Word] | None:
    """The words whose middle lies in a segment, in its own time."""
    if timed is None:
        return None
    inside = [w for w in timed if start <= (w.start + w.end) / 2 < (end if end is not None else float("inf"))]
    return [Word(w.text, max(w.start - start, 0.0), w.end - start) for w in inside]


def _within(words: list[Word], utterance: Utterance) -> list[Word]:
    length = utterance.duration
    if utterance.end is not None:
        length = utterance.end - (utterance.start or 0.0)
    if length is None:
        return words
    if words[-1].end > length + SLACK_S or words[-1].start >= length:
        raise Unmatched("times beyond the recording", f"{words[-1]} of {length:.2f} s")
    return [Word(w.text, w.start, min(w.end, length)) for w in words]
