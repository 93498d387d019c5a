"""Find the position of the next token in a transcript, with or without times, and its kind."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from wenet_osum.decode.constrain import AnswerState, token_text
from wenet_osum.tasks.base import join_words

if TYPE_CHECKING:
    from wenet_osum.text.template import Template

TAG = re.compile(r"<[^<>]*>")
TIME_TAG = re.compile(r"<\s*\d[^<>]*>")
OPEN = re.compile(r"<[^<>]*$")
ESCAPED = re.compile(r"\\.", re.DOTALL)


def in_transcript(answer_state: AnswerState) -> bool:
    """Return whether the answer stands in a transcript that CTC hears all of."""
    if answer_state.done:
        return False
    field = answer_state.task.fields[answer_state.field_index]
    return field.kind == "transcript" and not field.marked


class TranscriptPosition:
    """The position after what ``answer_state`` holds.

    A timed word is written ``<1.20>word<1.55>``. In transcripts without times all but ``escaped``
    stays False or empty.
    """

    def __init__(self, answer_state: AnswerState) -> None:
        self.template = answer_state.template
        field = answer_state.task.fields[answer_state.field_index]
        self.timed = field.metric == "timestamps"
        self.escaped = answer_state.escaped
        # Between two timed words.
        self.between = False
        # Right after the start time of a word.
        self.begins_word = False
        # Inside a time that is begun.
        self.in_time = False
        # A time written now is a word's end.
        self.ends_word = False
        # The begun time as far as it is written.
        self.time = ""
        # The character that the last word ended with.
        self.before = ""
        if self.timed:
            text = self.template.decode(answer_state.ids)
            self._read(ESCAPED.sub("x", text))

    def _read(self, text: str) -> None:
        """Find the position after ``text``, in which nothing is escaped any more."""
        # Tags that begin with a digit are times; a label may stand before them.
        times = TIME_TAG.findall(text)
        begun = OPEN.search(text)
        if begun:
            self.in_time = True
            self.time = begun[0][1:]

        # After an odd number of times, a word has its start and lacks its end.
        within_word = len(times) % 2 == 1
        self.ends_word = within_word
        if not self.in_time:
            self.between = not within_word
            self.begins_word = within_word and text.endswith(">")

        words = TAG.sub("", text)
        self.before = words.rstrip()[-1:]

    def kind(self, token: int) -> str:
        """Return the kind that a token would have here.

        It is ``word`` for a piece of the transcript, ``time`` for one of a time, and ``end`` for
        what ends the transcript.
        """
        if token in self.template.end_ids:
            return "end"
        text = token_text(self.template, token)
        opens = text.lstrip().startswith("<") and not self.escaped
        if not self.timed:
            return "end" if opens else "word"

        # In a time everything belongs to it, and between words so does the space before the next.
        space = self.between and not text.strip()
        if self.in_time or space:
            return "time"
        if not opens:
            return "word"
        # A tag is a time if it begins with a digit, which may be the next token's.
        inner = text.lstrip()[1:2]
        if not inner or inner.isdigit():
            return "time"
        return "end"

    def plain(self, token: int) -> int:
        """Return the token as the plain transcript has it.

        There a word that follows another begins with its space.
        """
        if not self.begins_word or not self.before:
            return token
        text = token_text(self.template, token)
        joined = join_words([self.before, text])
        if " " not in joined:
            return token
        return _with_space(self.template, token)


@lru_cache(maxsize=1 << 14)
def _with_space(template: Template, token: int) -> int:
    """Return the token of the same text after a space; the same one where there is none."""
    ids = template.encode(" " + token_text(template, token))
    return ids[0] if len(ids) == 1 else token
