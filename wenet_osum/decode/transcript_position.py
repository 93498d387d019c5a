"""Where in a transcript, with or without times, the next token stands, and what kind of token it
would be."""

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
    """Return whether the answer stands in a transcript."""
    return not answer_state.done and answer_state.task.fields[answer_state.field_index].kind == "transcript"


class TranscriptPosition:
    """The position after what ``answer_state`` holds. In transcripts without times all but ``escaped``
    stays False or empty."""

    def __init__(self, answer_state: AnswerState) -> None:
        self.template = answer_state.template
        self.timed = answer_state.task.fields[answer_state.field_index].metric == "timestamps"
        self.escaped = answer_state.escaped
        self.between = False  # between two timed words
        self.begins_word = False  # right after the start time of a word
        self.in_time = False  # inside a time that is begun
        self.ends_word = False  # a time written now is a word's end
        self.time = ""  # the begun time as far as it is written
        self.before = ""  # the character the last word ended with
        if self.timed:
            self._read(ESCAPED.sub("x", self.template.decode(answer_state.ids)))

    def _read(self, text: str) -> None:
        # Tags that begin with a digit are times; a label may stand before them.
        times = TIME_TAG.findall(text)
        begun = OPEN.search(text)
        odd = len(times) % 2 == 1
        self.in_time = begun is not None
        self.time = begun[0][1:] if begun else ""
        self.ends_word = odd
        self.between = not self.in_time and not odd
        self.begins_word = not self.in_time and odd and text.endswith(">")
        self.before = TAG.sub("", text).rstrip()[-1:]

    def kind(self, token: int) -> str:
        """Return ``word`` for a piece of the transcript, ``time`` for one of a time, ``end`` for
        what ends the transcript."""
        if token in self.template.end_ids:
            return "end"
        text = token_text(self.template, token)
        opens = text.lstrip().startswith("<") and not self.escaped
        if not self.timed:
            return "end" if opens else "word"
        if self.in_time or (self.between and not text.strip()):
            return "time"
        if opens:
            inner = text.lstrip()[1:2]
            return "time" if not inner or inner.isdigit() else "end"
        return "word"

    def plain(self, token: int) -> int:
        """Return the token as the plain transcript has it: there, a word that follows another
        begins with its space."""
        if not self.begins_word or not self.before:
            return token
        text = token_text(self.template, token)
        return _with_space(self.template, token) if " " in join_words([self.before, text]) else token


@lru_cache(maxsize=1 << 14)
def _with_space(template: Template, token: int) -> int:
    ids = template.encode(" " + token_text(template, token))
    return ids[0] if len(ids) == 1 else token
