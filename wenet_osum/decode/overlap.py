"""Words that two pieces of a recording both heard, where there was no pause to cut at.

The second piece begins some time before the end of the first. What is in both texts at their border
stands once in the text of the whole.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from wenet_osum.records import Word
from wenet_osum.tasks.base import CJK, join_words

# The words (characters) at either side of a border that may have been said twice: about 1 s.
ALIGNED_WORDS = 8
# A word heard twice starts at the same time within this, s; a word said twice does not.
SAME_TIME_S = 0.25
# The words that may be thrown away, after a run on the left side and before it on the right one.
LOSSES = ((0, 0), (1, 0), (0, 1), (1, 1))
LETTER = re.compile(r"\w")
TOKEN = re.compile(rf"{CJK.pattern}|(?:(?!{CJK.pattern})\S)+")


def join_overlapping(left: str, right: str) -> str:
    """Join two transcripts that may share words at the border; those shared stand once.

    Nothing else is taken away but a word at the border that was cut there (``find_shared``).
    """
    ends = _words(left)[-ALIGNED_WORDS:]
    starts = _words(right)[:ALIGNED_WORDS]
    left_words = [match[0] for match in ends]
    right_words = [match[0] for match in starts]
    shared = find_shared(left_words, right_words)
    if shared is None:
        return join_words([left, right]).strip()

    # The left side keeps the run, and the right side goes on after it.
    last_kept = ends[-1 - shared.after]
    last_shared = starts[shared.right_end - 1]
    kept_end = last_kept.end()
    shared_end = last_shared.end()
    kept, rest = left[:kept_end], right[shared_end:]
    parts = [kept, rest.strip()]
    return join_words(parts).strip()


def _words(text: str) -> list[re.Match]:
    """Return the words of a text. Punctuation that stands alone, as after Chinese characters, is
    none: it depends on what follows."""
    return [match for match in TOKEN.finditer(text) if LETTER.search(match[0])]


def join_times(left: list[Word], right: list[Word], start: float, overlap: float) -> list[Word]:
    """Join words with times: the run both have in the overlap at the same time stands once.

    The overlap begins at ``start`` and lasts ``overlap``, in s. Without such a run its middle
    divides the words.
    """
    if not overlap or not left:
        return left + right

    # The words that the other side may have heard too are those in the overlap: on the left all
    # from the first that ends in it, on the right all before the first that starts behind it.
    first = 0
    while first < len(left) and left[first].end <= start:
        first += 1
    last = 0
    while last < len(right) and right[last].start < start + overlap:
        last += 1
    ends = left[first:][-ALIGNED_WORDS:]
    starts = right[:last][:ALIGNED_WORDS]

    # A run of words stands once, if both sides heard it at the same time.
    left_texts = [word.text for word in ends]
    right_texts = [word.text for word in starts]
    shared = find_shared(left_texts, right_texts)
    if shared and _at_the_same_time(ends, starts, shared):
        kept = len(left) - shared.after
        return left[:kept] + right[shared.right_end :]

    middle = start + overlap / 2
    before = [word for word in left if _middle(word) < middle]
    after = [word for word in right if _middle(word) >= middle]
    return before + after


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2


class Shared(NamedTuple):
    """A run of ``size`` words that both sides of a border heard.

    ``after`` counts the words after it on the left side: 0, or the one that was cut; ``before``
    those before it on the right side, likewise.
    """

    size: int
    after: int
    before: int

    @property
    def lost(self) -> int:
        """Return how many words are thrown away for the run."""
        return self.after + self.before

    @property
    def right_end(self) -> int:
        """Return the index of the first word after the run on the right side."""
        return self.before + self.size

    def left_begin(self, words: int) -> int:
        """Return the index of the run's first word on a left side of so many ``words``."""
        return words - self.after - self.size


def find_shared(left: list[str], right: list[str]) -> Shared | None:
    """Find the run that ends ``left`` and begins ``right``; None when they share nothing.

    The border may cut a word. The side that has only part of it may hear any word there, so one
    word may stand between the run and the border. Two strangers often have a word in common, and
    a run must be the longer, the more would be thrown away for it: ``_least_size``.
    """
    left = _bare(left)
    right = _bare(right)
    best = None
    for after, before in LOSSES:
        kept = max(0, len(left) - after)
        size = _run_at(left[:kept], right[before:])
        if size == 0:
            continue
        shared = Shared(size, after, before)
        if size < _least_size(left, right, shared):
            continue

        # Of runs equally long after the loss, the first stays: less is thrown away for it.
        gain = size - shared.lost
        if best is None or gain > best.size - best.lost:
            best = shared
    return best


def _bare(words: list[str]) -> list[str]:
    """Return the words without case and punctuation, which depend on what follows them."""
    bare = []
    for word in words:
        letters = re.sub(r"\W", "", word)
        bare.append(letters.lower() or word)
    return bare


def _run_at(left: list[str], right: list[str]) -> int:
    """Return how many of the last words of ``left`` are the first of ``right``, at most."""
    longest = min(len(left), len(right))
    for size in range(longest, 0, -1):
        last = left[-size:]
        first = right[:size]
        if last == first:
            return size
    return 0


def _least_size(left: list[str], right: list[str], shared: Shared) -> int:
    """Return how many words a run needs to be believed.

    1 when nothing is thrown away. 2 when what is thrown away resembles the word the other side
    heard in its place, as "ma" does "mat". Else 3: two words in a row fit by chance once in a
    thousand borders, three hardly ever.
    """
    if not shared.lost:
        return 1
    if shared.after:
        # The left side lost the end of a word, and the whole one begins in the same way.
        following = right[shared.right_end :]
        if not following or following[0][0] != left[-1][0]:
            return 3
    if shared.before:
        # The right side lost the beginning of a word, and the whole one ends in the same way.
        begin = shared.left_begin(len(left))
        preceding = left[:begin]
        if not preceding or preceding[-1][-1] != right[0][-1]:
            return 3
    return 2


def _at_the_same_time(left: list[Word], right: list[Word], shared: Shared) -> bool:
    """Return whether both sides heard the run's first word at the same time."""
    begin = shared.left_begin(len(left))
    one = left[begin]
    other = right[shared.before]
    difference = abs(one.start - other.start)
    return difference <= SAME_TIME_S
