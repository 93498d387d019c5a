"""Decode a recording while it comes in: words are said as soon as they are settled, and stay.

Sound arrives in chunks. Whenever ``step_s`` of it are new, all that has come of the utterance (the
window) is decoded again, for the encoder is not causal. Words that two hypotheses in a row begin
with are committed (agreement.py), and from then on every hypothesis of the window is made to begin
with them (prefix_text.py): nothing is taken back.

A pause of ``pause_s`` ends an utterance, whose answer has labels too. Where nobody pauses, a window
ends as a piece of a long recording does (longform.py): in its second half in any pause of 0.2 s, at
the latest when it is full; then the next one begins a second earlier, and what both heard stands
once. A recording that comes as one chunk is cut and answered as a file is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wenet_osum.dataset.audio import resample
from wenet_osum.decode import longform
from wenet_osum.decode.agreement import Border, agreed, kept_to, without_last_word, word_ends
from wenet_osum.decode.blocks import BLOCK_S
from wenet_osum.decode.longform import Piece
from wenet_osum.decode.overlap import ALIGNED_WORDS, join_overlapping
from wenet_osum.decode.pauses import find_cut
from wenet_osum.decode.quiet import Quiet
from wenet_osum.records import SAMPLE_RATE, Hypothesis
from wenet_osum.tasks.base import Task, join_words

if TYPE_CHECKING:
    from wenet_osum.decode.options import DecodeOptions

# (samples at 16 kHz, the transcript that the answer begins with) → the answer
DecodeWindow = Callable[[np.ndarray, str], Hypothesis]
# The shortest pause there is, s (pauses.py).
LEAST_PAUSE_S = 0.2
# What is kept of a silence before the next utterance, s.
KEPT_SILENCE_S = 0.5
KEY = "stream"


@dataclass
class StreamOptions:
    """When a stream is heard anew, and when an utterance is over."""

    # new sound before what has come is decoded again, s; infinity: each piece is decoded once
    step_s: float = 1.0
    # a pause that ends an utterance, s; infinity: all is one utterance
    pause_s: float = 0.8

    def __post_init__(self) -> None:
        if not self.step_s > 0:
            raise ValueError(f"step_s {self.step_s} must be above 0")
        if not self.pause_s >= LEAST_PAUSE_S:
            rule = f"must be {LEAST_PAUSE_S:g} or more, the shortest pause there is"
            raise ValueError(f"pause_s {self.pause_s} {rule}")


@dataclass
class StreamEvent:
    """What has changed.

    ``committed`` is new text, which joined to that of all events before it as it stands is what was
    said; ``held`` are the words behind it that may still change. ``heard_s`` counts the seconds of
    the stream that have come. At the end of an utterance ``answer`` has its transcript, labels and
    probabilities, and the utterance lies from ``start`` to ``end``, s.
    """

    heard_s: float
    committed: str = ""
    held: str = ""
    answer: Hypothesis | None = None
    start: float = 0.0
    end: float = 0.0


def refusal(task: Task, options: DecodeOptions) -> str | None:
    """Return why a task cannot be answered while it is heard; None if it can."""
    first = task.fields[0]
    told = f"a stream of task {task.tags}"
    if first.kind != "transcript" or first.metric == "timestamps":
        return f"{told}: its answers must begin with a transcript without times; try <TRANSCRIBE>"
    if any(field.kind == "reply" for field in task.fields):
        return f"{told}: a reply to what is not yet said is none; leave the reply out"
    if options.mode != "attention" or options.trust_ctc or options.prefix_text:
        advice = "leave mode, trust_ctc and prefix_text out"
        return f"{told}: its hypotheses begin with the text that was said before; {advice}"
    return None


class StreamDecoder:
    """A stream of sound at ``rate`` Hz in the course of being decoded by ``decode_window``.

    ``longest_s`` is that of a piece of long audio; ``border`` tells where tokens end.
    """

    def __init__(
        self,
        decode_window: DecodeWindow,
        task: Task,
        options: StreamOptions | None = None,
        rate: int = SAMPLE_RATE,
        longest_s: float = longform.LONGEST_S,
        border: Border | None = None,
    ) -> None:
        self.decode_window, self.task, self.rate = decode_window, task, rate
        self.options = options or StreamOptions()
        self.longest_s, self.border = longest_s, border
        self.quiet = Quiet(rate)
        # What is heard now, and the sample of the stream that it begins with.
        self.window = np.zeros(0, np.float32)
        self.begin = 0
        # The seconds at its beginning that the window before has as well.
        self.overlap = 0.0
        # The newest hypothesis, how many samples of the window it heard, and its transcript.
        self.answer: Hypothesis | None = None
        self.decoded = 0
        self.text = ""
        # The beginning of the window's transcript that is settled.
        self.fixed = ""
        # The windows of the utterance that are over, and their transcripts as one.
        self.pieces: list[Piece] = []
        self.answers: list[Hypothesis] = []
        self.before = ""
        # What was said of the utterance, and the last character said before it.
        self.said = ""
        self.last_character = ""
        # Nothing of the stream was passed over or answered yet.
        self.untouched = True
        # The window began in a pause, so that silence alone is no part of the utterance.
        self.after_pause = False

    # -- what comes in ------------------------------------------------------------------------

    def feed(self, samples: np.ndarray) -> Iterator[StreamEvent]:
        """Take the next chunk, float32 (samples,), and yield what changes.

        What ``decode_window`` raises ends the stream.
        """
        if not len(samples):
            return
        if math.isfinite(self.options.pause_s):
            self._forget_silence()
        # Long chunks are cut as files are, which are read in blocks.
        block = round(BLOCK_S * self.rate)
        for first in range(0, len(samples), block):
            end = first + block
            self._append(samples[first:end])
            yield from self._end_full_windows()

        if self._passes_over():
            if self.pieces and self._seconds() >= self.options.pause_s:
                yield self._end_utterance()
            return
        _, paused_s = self.quiet.look(self.window)
        if paused_s >= self.options.pause_s:
            yield from self._end_pieces()
            yield self._end_utterance()
        elif paused_s >= LEAST_PAUSE_S and self._is_long():
            # In the middle of the pause: a word may begin softly at its end.
            half = round(LEAST_PAUSE_S / 2 * self.rate)
            yield self._end_window(len(self.window) - half, overlap_s=0.0)
        elif self._new_s() >= self.options.step_s:
            yield from self._listen()

    def finish(self) -> Iterator[StreamEvent]:
        """Answer what is left when no more sound comes."""
        nothing = not len(self.window)
        if not self.untouched:
            nothing = nothing or self._passes_over()
        if nothing and not self.pieces:
            return
        yield from self._end_pieces()
        yield self._end_utterance()

    def _append(self, samples: np.ndarray) -> None:
        self.window = np.concatenate([self.window, samples])

    def _seconds(self) -> float:
        return len(self.window) / self.rate

    def _new_s(self) -> float:
        """Return how many seconds of the window no hypothesis has heard."""
        new = len(self.window) - self.decoded
        return new / self.rate

    def _is_long(self) -> bool:
        """Return whether a short pause ends the window, as in the second half of pieces."""
        return bool(self.fixed) and self._seconds() > self.longest_s / 2

    def _passes_over(self) -> bool:
        """Return whether the window is a silence that is no part of an utterance."""
        silent, _ = self.quiet.look(self.window)
        return silent and (self.after_pause or not self.pieces)

    def _forget_silence(self) -> None:
        """Let go of a silent window but for its end, in which a word may begin."""
        kept = round(KEPT_SILENCE_S * self.rate)
        passed = len(self.window) - kept
        if passed <= 0 or self.pieces or not self._passes_over():
            return
        self._drop(passed)
        self.untouched = False

    def _drop(self, samples: int) -> None:
        """Let go of the first samples of the window."""
        self.quiet.remember(self.window[:samples])
        self.window = self.window[samples:]
        self.begin += samples

    # -- hypotheses ---------------------------------------------------------------------------

    def _listen(self) -> Iterator[StreamEvent]:
        """Decode what has come, and commit what it agrees upon with the hypothesis before."""
        if self._seconds() > self._most_s():
            return
        before = self.text
        self._decode(self.window)
        # A first hypothesis, or an empty one before it, agrees with nothing.
        settled = agreed(before, self.text, self.border)
        if len(settled) > len(self.fixed):
            self.fixed = settled
        sayable = self._sayable()
        yield self._event(sayable)

    def _decode(self, samples: np.ndarray) -> None:
        """Decode samples of the window from its beginning on, unless that was done just now."""
        size = len(samples)
        if self.answer is not None and self.decoded == size:
            return
        sound = resample(samples, self.rate)
        self.answer = self.decode_window(sound, self.fixed)
        self.decoded = size
        heard = self.answer.transcript or ""
        self.text = kept_to(self.fixed, heard)

    def _sayable(self) -> str:
        """Return the utterance's text as far as it is settled."""
        if not self.overlap:
            return self._joined(self.fixed)
        # How two windows join shows in their first words.
        if len(word_ends(self.fixed)) < ALIGNED_WORDS:
            return self.said
        return self._joined(self.fixed)

    def _joined(self, text: str) -> str:
        """Return the utterance's text with ``text`` of the window."""
        if self.overlap:
            return join_overlapping(self.before, text)
        return join_words([self.before, text]).strip()

    # -- ends of windows and utterances -------------------------------------------------------

    def _most_s(self) -> float:
        """Return up to how many seconds the window is one piece."""
        if self.pieces:
            return self.longest_s
        return longform.whole_s(self.longest_s)

    def _end_full_windows(self) -> Iterator[StreamEvent]:
        """End windows that are longer than a piece may be."""
        full_s = longform.whole_s(self.longest_s) + 1.0
        while True:
            # What is committed must stay in the window whose hypotheses said it.
            if self.fixed and self._seconds() > self.longest_s:
                longest = round(self.longest_s * self.rate)
                yield self._end_window(max(longest, self.decoded), self._shared_s())
            elif self._seconds() > full_s:
                yield self._end_piece()
            else:
                return

    def _shared_s(self) -> float:
        """Return the seconds that two windows share where there is no pause."""
        return min(longform.OVERLAP_S, self.longest_s / 4)

    def _end_pieces(self) -> Iterator[StreamEvent]:
        """End windows until what is left is one piece, all of the utterance being there."""
        while not self.fixed and self._seconds() > self._most_s():
            yield self._end_piece()

    def _end_piece(self) -> StreamEvent:
        """End a window as long recordings are cut."""
        least_s = min(longform.SHORTEST_REST_S, self.longest_s / 4)
        least = round(least_s * self.rate)
        latest = len(self.window) - least
        cut, paused = find_cut(self.window, self.rate, latest, self.longest_s)
        shared_s = 0.0 if paused else self._shared_s()
        event = self._end_window(cut, shared_s)
        self.after_pause = False
        return event

    def _end_window(self, cut: int, overlap_s: float) -> StreamEvent:
        """Answer the first ``cut`` samples; the next window begins ``overlap_s`` before them."""
        self._close(cut)
        # Without a pause the last word may have been cut, and the next window corrects it.
        sayable = self.before
        if overlap_s:
            sayable = without_last_word(sayable)
        event = self._event(sayable)

        shared = round(overlap_s * self.rate)
        self._drop(cut - shared)
        self.overlap = overlap_s
        self.after_pause = not overlap_s
        return event

    def _close(self, cut: int) -> None:
        """Decode the first ``cut`` samples of the window as a piece of the utterance."""
        self._decode(self.window[:cut])
        self._say_in(self.answer, self.text)
        start = self.begin / self.rate
        end = start + cut / self.rate
        nothing = np.zeros(0, np.float32)
        piece = Piece(start, end, nothing, self.overlap)
        self.before = self._joined(self.text)
        self.pieces.append(piece)
        self.answers.append(self.answer)

        # The next window has no hypothesis yet.
        self.untouched = False
        self.answer = None
        self.decoded = 0
        self.text = ""
        self.fixed = ""

    def _end_utterance(self) -> StreamEvent:
        """Answer what is left of the window, and with the windows before it the utterance."""
        shared = round(self.overlap * self.rate)
        size = len(self.window)
        if size > shared and not (self.pieces and self._passes_over()):
            self._close(size)
        answer = self._whole_answer()
        event = self._event(self.before)
        # What was said stays, also where a window heard its last word otherwise.
        self._say_in(answer, self.said)
        event.answer = answer
        event.start = self.pieces[0].start
        event.end = self.pieces[-1].end
        self._begin_utterance()
        return event

    def _begin_utterance(self) -> None:
        """Begin with the end of the pause, in which a word may begin softly."""
        half = round(LEAST_PAUSE_S / 2 * self.rate)
        over = len(self.window) - half
        self._drop(max(0, over))
        last = self.said[-1:]
        self.last_character = last or self.last_character
        self.pieces = []
        self.answers = []
        self.before = ""
        self.said = ""
        self.overlap = 0.0
        self.after_pause = False

    @staticmethod
    def _say_in(answer: Hypothesis, text: str) -> None:
        """Write the text that stays into an answer that has another."""
        if (answer.transcript or "") != text:
            answer.transcript = text

    def _whole_answer(self) -> Hypothesis:
        """Return the answer of the utterance."""
        if len(self.answers) == 1:
            [answer] = self.answers
            answer.key = KEY
            return answer
        return longform.join(self.pieces, self.answers, self.task, KEY)

    # -- what is told -------------------------------------------------------------------------

    def _event(self, sayable: str) -> StreamEvent:
        """Say what is new in ``sayable``, the utterance's settled text, and show what follows."""
        before = self.said
        self.said = kept_to(before, sayable)
        whole = self.before
        if self.text:
            whole = self._joined(self.text)
        shown = kept_to(self.said, whole)

        committed = self.said[len(before) :]
        held = shown[len(self.said) :]
        # The first text of an utterance stands apart from the utterance before.
        if committed and not before:
            committed = self._space(committed) + committed
        if held and not self.said:
            held = self._space(held) + held
        heard = self.begin + len(self.window)
        return StreamEvent(heard / self.rate, committed, held)

    def _space(self, text: str) -> str:
        """Return what stands between the utterance before and the first text of this one."""
        last = self.last_character
        joined = join_words([last, text])
        return joined.removeprefix(last).removesuffix(text)
