"""The kinds of field: transcript, transcript with word times, label, free text, reply."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wenet_osum.records import Hypothesis, Utterance, Word
from wenet_osum.tasks.base import (
    CJK,
    SHOWN,
    TIME,
    Field,
    LabelSet,
    Reading,
    escape,
    find_tags,
    join_words,
    unescape,
)

REPLY_MARK = "<开始回答>"
TIME_TAG = rf"<\s*{TIME.pattern}\s*>"
TIMED_WORD = re.compile(rf"<\s*({TIME.pattern})\s*>((?:[^<>\\]|\\.)+)<\s*({TIME.pattern})\s*>")


@dataclass(frozen=True)
class Transcript(Field):
    """The words that were said, as plain text."""

    kind: str = "transcript"

    def write(self, utterance: Utterance) -> str:
        """Write the transcript with single spaces."""
        words = utterance.txt.split()
        text = " ".join(words)
        return escape(text)

    def take(self, text: str, reading: Reading) -> None:
        """Read the transcript from what the other fields left."""
        free = unescape(text)
        reading.transcript = free.strip()

    def entries(self, answer: Reading | Hypothesis) -> dict[str, Any]:
        """Return the transcript that was read."""
        return {"txt": answer.transcript}

    def spoken(self, utterance: Utterance) -> str:
        """Return the words of the transcript, which error rates are counted over."""
        return str(utterance.txt)


@dataclass(frozen=True)
class TimedTranscript(Field):
    """Words with their times, ``<0.52>word<0.94>``, in seconds with two decimals."""

    kind: str = "transcript"

    def value(self, utterance: Utterance) -> object | None:
        """Return the words of the utterance; None when it has none."""
        return utterance.words or None

    def write(self, utterance: Utterance) -> str:
        """Write the words with their times: spaces between words, none beside a Chinese one."""
        pieces = [_timed(utterance.words[0])]
        for before, word in pairwise(utterance.words):
            glued = _is_cjk(before.text) or _is_cjk(word.text)
            pieces.append("" if glued else " ")
            pieces.append(_timed(word))
        return "".join(pieces)

    def take(self, text: str, reading: Reading) -> None:
        """Read words with times; anything between them goes to ``unread["words"]``."""
        reading.words = []
        for match in TIMED_WORD.finditer(text):
            start, word, end = match.groups()
            word = unescape(word).strip()
            reading.words.append(Word(word, float(start), float(end)))
        words = [word.text for word in reading.words]
        reading.transcript = join_words(words)

        rest = TIMED_WORD.sub("", text).strip()
        if not rest:
            return
        reading.unread["words"] = rest
        # An answer without any timed word still has a transcript: its text without the times.
        if not reading.transcript:
            untimed = re.sub(TIME_TAG, " ", text)
            reading.transcript = unescape(untimed).strip()

    def entries(self, answer: Reading | Hypothesis) -> dict[str, Any]:
        """Return the transcript and the words that were read."""
        return {"txt": answer.transcript, "words": answer.words}

    def spoken(self, utterance: Utterance) -> str:
        """Return the words without their times."""
        texts = [word.text for word in utterance.words]
        return join_words(texts)


def _timed(word: Word) -> str:
    """Write a word between its times in seconds."""
    start = f"<{word.start:.2f}>"
    end = f"<{word.end:.2f}>"
    return start + escape(word.text) + end


def _is_cjk(text: str) -> bool:
    return bool(CJK.search(text))


@dataclass(frozen=True)
class Label(Field):
    """One label out of a set, written ``<label>``."""

    def value(self, utterance: Utterance) -> str | None:
        """Return the canonical label; None when there is none or the set does not know it."""
        raw = utterance.get(self.attribute)
        if raw is None:
            return None
        return self.labels.find(raw)

    def unknown(self, utterance: Utterance) -> str | None:
        """Return the label that the set does not know; None when there is none."""
        raw = utterance.get(self.attribute)
        if raw is None or self.present(utterance):
            return None
        return str(raw)


@dataclass(frozen=True)
class FreeText(Field):
    """A free text after a mark of its own; always the last field."""

    kind: str = "reply"
    # a tag that stands before the text
    mark: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"<[^<>\\]+>", self.mark):
            raise ValueError(
                f"field {self.name!r}: mark {self.mark!r} must be a tag such as {REPLY_MARK}"
            )

    def value(self, utterance: Utterance) -> str | None:
        """Return the text with single spaces; None when there is none."""
        raw = utterance.get(self.attribute)
        if raw is None:
            return None
        words = str(raw).split()
        return " ".join(words)

    def write(self, utterance: Utterance) -> str:
        """Write the mark and the text with single spaces."""
        return self.mark + escape(self.value(utterance))

    def take(self, text: str, reading: Reading) -> str:
        """Read the text and return what stands before its mark."""
        mark = self.mark.strip("<>")
        for tag in find_tags(text):
            if tag[1].strip() != mark:
                continue
            free = unescape(text[tag.end() :])
            self.keep(free.strip(), reading)
            return text[: tag.start()]

        reading.unread[self.name] = f"no {self.mark} in {text[-SHOWN:]!r}"
        return text

    def keep(self, text: str, reading: Reading) -> None:
        """Note the text that was read."""
        reading.texts[self.name] = text

    def entries(self, answer: Reading | Hypothesis) -> dict[str, Any]:
        """Return the text that was read."""
        return {self.attribute: answer.texts.get(self.name)}


@dataclass(frozen=True)
class Reply(FreeText):
    """A free answer after ``<开始回答>``."""

    mark: str = REPLY_MARK

    def keep(self, text: str, reading: Reading) -> None:
        """Note the reply that was read."""
        reading.reply = text

    def entries(self, answer: Reading | Hypothesis) -> dict[str, Any]:
        """Return the reply that was read."""
        return {self.attribute: answer.reply}


def label(
    name: str,
    tag: str,
    labels: dict[str, list[str]] | list[str],
    ask: dict[str, str],
    attribute: str | None = None,
) -> Label:
    """Make a label field from a table label → other spellings, or a list of labels.

    ``ask`` maps languages to the phrase of composed prompts. ``attribute`` is the name of the label
    in manifests where it is not that of the field.
    """
    aliases = labels if isinstance(labels, dict) else None
    return Label(
        name=name,
        tag=tag,
        attribute=attribute or name,
        metric="accuracy",
        ask=ask,
        labels=LabelSet(list(labels), aliases),
    )
