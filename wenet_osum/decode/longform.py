"""Audio over 30 s: cut at pauses into pieces of at most 28 s, whose answers are joined to one.

A piece ends in the middle of the longest pause of its second half. Without a pause it ends at 28 s,
the next one begins 1 s earlier, and what both heard of that second stands once. A model that was
trained on shorter utterances hears shorter pieces (``longest_s``). Recordings are read in blocks
(blocks.py), so hours of audio take no more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wenet_osum.dataset.audio import resample
from wenet_osum.decode.blocks import blocks_of, opened
from wenet_osum.decode.overlap import join_overlapping, join_times
from wenet_osum.decode.pauses import find_cut
from wenet_osum.records import SAMPLE_RATE, Hypothesis, Utterance, Word
from wenet_osum.tasks.base import Task, join_words

# Audio up to this length stays in one piece, s.
WHOLE_S = 30.0
# The longest piece of longer audio, s.
LONGEST_S = 28.0
# The least that ``longest_s`` may be, s, for a pause takes 0.2 s (pauses.py).
LEAST_S = 1.0
# What at least is left for the last piece, s; of short pieces a quarter of one.
SHORTEST_REST_S = 1.0
# What two pieces share where there is no pause, s; of short pieces a quarter of one.
OVERLAP_S = 1.0

# Flags of joined answers alone. Some border has no pause, and the words around it were aligned:
NO_PAUSE = "joined_without_pause"
# Each piece has a reply of its own:
REPLIES = "reply_in_pieces"
# Each piece has a translation of its own, or speakers that are numbered anew:
TEXTS = "text_in_pieces"
FLAGS = (NO_PAUSE, REPLIES, TEXTS)


@dataclass
class Piece:
    """A stretch of a recording.

    ``start`` and ``end`` are s in the recording, ``audio`` (samples,) is mono, and ``overlap`` the
    seconds at its beginning that the piece before has as well.
    """

    start: float
    end: float
    audio: np.ndarray
    overlap: float = 0.0

    @property
    def seconds(self) -> float:
        """Return how long the piece is, in s."""
        return self.end - self.start


def whole_s(longest_s: float = LONGEST_S) -> float:
    """Return up to how many seconds audio stays whole when pieces have at most ``longest_s``.

    Raises ValueError for a ``longest_s`` outside 1 to 28 s.
    """
    if not LEAST_S <= longest_s <= LONGEST_S:
        raise ValueError(
            f"pieces of {longest_s} s: "
            f"longest_s must be {LEAST_S:g} to {LONGEST_S:g}, "
            f"for the encoder hears up to {WHOLE_S:g} s"
        )
    return longest_s * WHOLE_S / LONGEST_S


def read_pieces(
    source: str | Path | bytes,
    start: float | None = None,
    end: float | None = None,
    longest_s: float = LONGEST_S,
) -> Iterator[Piece]:
    """Yield the pieces of a recording, or of its segment from ``start`` to ``end`` (s), at 16 kHz.

    ``source`` is a path or the bytes of a file. Raises Drop when it cannot be read.
    """
    with opened(source) as file:
        blocks = blocks_of(file, source, start, end)
        for piece in split(blocks, file.samplerate, longest_s):
            piece.audio = resample(piece.audio, file.samplerate)
            yield piece


def split(
    blocks: Iterable[np.ndarray], rate: int = SAMPLE_RATE, longest_s: float = LONGEST_S
) -> Iterator[Piece]:
    """Cut a stream of blocks (samples,) at ``rate`` Hz into pieces.

    Up to ``whole_s`` (30 s) stay whole; else each piece has at most ``longest_s``. Raises
    ValueError for a ``longest_s`` outside 1 to 28 s.
    """
    stream = _Stream(blocks)
    whole = round(whole_s(longest_s) * rate)
    longest = round(longest_s * rate)
    least = round(min(SHORTEST_REST_S, longest_s / 4) * rate)
    shared = round(min(OVERLAP_S, longest_s / 4) * rate)
    overlap = 0
    while True:
        # Somewhat more than fits into one piece tells whether all that is left does.
        audio = stream.fill(whole + rate)
        begin = stream.begin
        most = whole if begin == 0 else longest
        if stream.ended and len(audio) <= most:
            if len(audio):
                yield _piece(audio, begin, overlap, rate)
            return

        latest = len(audio) - least
        cut, paused = find_cut(audio, rate, latest, longest_s)
        yield _piece(audio[:cut], begin, overlap, rate)

        # Without a pause a word may have been cut: the next piece hears it again.
        overlap = 0 if paused else shared
        stream.drop(cut - overlap)


def _piece(audio: np.ndarray, begin: int, overlap: int, rate: int) -> Piece:
    """Return the piece that begins at a sample of the recording; ``overlap`` counts samples too."""
    end = begin + len(audio)
    return Piece(begin / rate, end / rate, audio, overlap / rate)


class _Stream:
    """Blocks of one recording, of which a part is held at a time."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self._held = np.zeros(0, np.float32)
        # The sample of the recording that is the first of what is held.
        self.begin = 0
        self.ended = False

    def fill(self, samples: int) -> np.ndarray:
        """Read until more than ``samples`` are held, or the blocks end; return what is held."""
        parts, size = [self._held], len(self._held)
        while not self.ended and size <= samples:
            block = next(self._blocks, None)
            if block is None:
                self.ended = True
            else:
                parts.append(block)
                size += len(block)
        self._held = np.concatenate(parts)
        return self._held

    def drop(self, samples: int) -> None:
        """Let go of the first ``samples`` that are held."""
        self._held = self._held[samples:]
        self.begin += samples


def join(pieces: list[Piece], answers: list[Hypothesis], task: Task, key: str) -> Hypothesis:
    """Make one answer for the whole recording of those to its pieces.

    Times are shifted, texts joined, labels found by the mean of their probabilities, weighted by
    duration.
    """
    last = max(piece.end for piece in pieces)
    joined = Hypothesis(key, task.tags, "", duration=round(last, 3))
    pairs = list(zip(pieces, answers, strict=True))
    for piece, answer in pairs:
        _add_text(joined, piece, answer)
        _add_reply(joined, answer)
        _add_texts(joined, answer)
        for flag in answer.flags:
            if flag not in joined.flags:
                joined.flags.append(flag)
    for field in task.label_fields:
        _add_label(joined, field.name, pairs)
    _add_unread(joined, pairs)
    joined.flags += _own_flags(joined, pieces)
    joined.pieces = [_piece_row(*pair) for pair in pairs]

    # In its written form; where something is missing, the pieces' raw texts have to do.
    untimed = any(answer.words == [] and answer.transcript for answer in answers)
    written = None if untimed else _written(joined, task)
    joined.text = written or " ".join(answer.text for answer in answers)
    return joined


def _add_reply(joined: Hypothesis, answer: Hypothesis) -> None:
    if joined.reply is None:
        joined.reply = answer.reply
    else:
        both = [joined.reply, answer.reply or ""]
        joined.reply = join_words(both).strip()


def _add_texts(joined: Hypothesis, answer: Hypothesis) -> None:
    """Add what a piece has of free texts, such as a translation."""
    for name, text in answer.texts.items():
        both = [joined.texts.get(name, ""), text]
        joined.texts[name] = join_words(both).strip()


def _add_unread(joined: Hypothesis, pairs: list[tuple[Piece, Hypothesis]]) -> None:
    """Note what was said in the place of a field that no piece gave."""
    for piece, answer in pairs:
        for name, found in answer.unread.items():
            if name in joined.labels:
                continue
            note = f"{piece.start:.2f} s: {found}"
            if name in joined.unread:
                note = f"{joined.unread[name]}; {note}"
            joined.unread[name] = note


def _own_flags(joined: Hypothesis, pieces: list[Piece]) -> list[str]:
    """Return what the reader of the joined answer should know of the joining."""
    flags = []
    if any(piece.overlap for piece in pieces):
        flags.append(NO_PAUSE)
    if joined.reply:
        flags.append(REPLIES)
    if joined.texts:
        flags.append(TEXTS)
    return flags


def _piece_row(piece: Piece, answer: Hypothesis) -> dict:
    """Return what is kept of a piece's own answer."""
    row: dict[str, Any] = {
        "start": round(piece.start, 3),
        "end": round(piece.end, 3),
    }
    whole = answer.to_dict()
    for name in ("text", "labels", "probs", "flags"):
        if name in whole:
            row[name] = whole[name]
    return row


def _add_text(joined: Hypothesis, piece: Piece, answer: Hypothesis) -> None:
    """Add a piece's transcript, by its words' times where it has them."""
    before = joined.transcript or ""
    if answer.words is not None:
        own = joined.words or []
        # Where a piece before had no times, its text is not among the words.
        is_whole = before == _spoken(own)
        shifted = _shifted(answer.words, piece.start)
        joined.words = join_times(own, shifted, piece.start, piece.overlap)
        if is_whole and (shifted or not answer.transcript):
            joined.transcript = _spoken(joined.words)
            return
    if answer.transcript is None:
        return
    if piece.overlap:
        joined.transcript = join_overlapping(before, answer.transcript)
    else:
        joined.transcript = join_words([before, answer.transcript]).strip()


def _shifted(words: list[Word], start_s: float) -> list[Word]:
    """Move words from a piece's time to that of the recording."""
    moved = []
    for text, start, end in words:
        times = (round(start + start_s, 3), round(end + start_s, 3))
        moved.append(Word(text, *times))
    return moved


def _spoken(words: list[Word]) -> str:
    """Return the text of words."""
    return join_words([word.text for word in words])


def _add_label(joined: Hypothesis, name: str, pairs: list[tuple[Piece, Hypothesis]]) -> None:
    """Choose a label by the mean of its probabilities over the pieces, weighted by duration.

    Free decoding has no probabilities: there each label that was read counts with its duration.
    """
    total, sums, measured = 0.0, {}, False
    for piece, answer in pairs:
        probs = answer.probs.get(name)
        measured = measured or name in answer.probs
        if not probs:
            if name not in answer.labels:
                continue
            probs = {answer.labels[name]: 1.0}
        total += piece.seconds
        for label, prob in probs.items():
            before = sums.get(label, 0.0)
            sums[label] = before + piece.seconds * prob
    if not sums:
        return

    mean = {label: value / total for label, value in sums.items()}
    joined.labels[name] = max(mean, key=mean.get)
    if measured:
        joined.probs[name] = mean


def _written(joined: Hypothesis, task: Task) -> str | None:
    """Return the whole answer in its written form; None unless every field is known."""
    known = {
        "txt": joined.transcript,
        "words": joined.words,
        "reply": joined.reply,
    }
    for field in task.fields:
        known |= field.entries(joined)
    whole = Utterance(joined.key, "joined").with_values(known)
    if not task.present(whole):
        return None
    return task.write(whole)
