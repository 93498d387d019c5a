"""The four kinds of field: transcript, transcript with word times, label, reply."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wenet_osum.records import Utterance, Word
from wenet_osum.tasks.base import CJK, TIME, Field, LabelSet, Reading, escape, find_tags, join_words, unescape

REPLY_MARK = "<开始回答>"
TIMED_WORD = re.compile(rf"<\s*({TIME.pattern})\s*>((?:[^<>\\]|\\.)+)<\s*({TIME.pattern})\s*>")


@dataclass(frozen=True)
class Transcript(Field):
    """The words that were said, as plain text."""

    kind: str = "transcript"

    def write(self, utterance: Utterance) -> str:
        return escape(" ".join(utterance.txt.split()))

    def take(self, text: str, reading: Reading) -> None:
        """Read the transcript from what the other fields left."""
        reading.transcript = unescape(text).strip()


@dataclass(frozen=True)
class TimedTranscript(Field):
    """Words with their times, ``<0.52>word<0.94>``, in seconds with two decimals."""

    kind: str = "transcript"

    def value(self, utterance: Utterance) -> object | None:
        return utterance.words or None

    def write(self, utterance: Utterance) -> str:
        pieces = [f"<{w.start:.2f}>{escape(w.text)}<{w.end:.2f}>" for w in utterance.words]
        glued = [_is_cjk(a.text) or _is_cjk(b.text) for a, b in zip(utterance.words, utterance.words[1:], strict=False)]
        return pieces[0] + "".join(("" if g else " ") + p for g, p in zip(glued, pieces[1:], strict=True))

    def take(self, text: str, reading: Reading) -> None:
        """Read words with times; anything between them goes to ``unread["words"]``."""
        found = list(TIMED_WORD.finditer(text))
        reading.words = [Word(unescape(m[2]).strip(), float(m[1]), float(m[3])) for m in found]
        reading.transcript = join_words([w.text for w in reading.words])
        if rest := TIMED_WORD.sub("", text).strip():
            reading.unread["words"] = rest
            reading.transcript = reading.transcript or unescape(re.sub(rf"<\s*{TIME.pattern}\s*>", " ", text)).strip()


def _is_cjk(text: str) -> bool:
    return bool(CJK.search(text))


@dataclass(frozen=True)
class Label(Field):
    """One label out of a set, written ``<label>``."""

    def value(self, utterance: Utterance) -> str | None:
        raw = utterance.get(self.attribute)
        return None if raw is None else self.labels.find(raw)

    def unknown(self, utterance: Utterance) -> str | None:
        raw = utterance.get(self.attribute)
        return None if raw is None or self.present(utterance) else str(raw)


@dataclass(frozen=True)
class Reply(Field):
    """A free answer after ``<开始回答>``; always the last field."""

    kind: str = "reply"

    def write(self, utterance: Utterance) -> str:
        return REPLY_MARK + escape(" ".join(utterance.reply.split()))

    def take(self, text: str, reading: Reading) -> str:
        """Read the reply and return what stands before it."""
        match = next((tag for tag in find_tags(text) if tag[1].strip() == REPLY_MARK[1:-1]), None)
        if match is None:
            reading.unread["reply"] = f"no {REPLY_MARK} in {text[-40:]!r}"
            return text
        reading.reply = unescape(text[match.end() :]).strip()
        return text[: match.start()]


def label(name: str, tag: str, labels: dict[str, list[str]], ask: dict[str, str], attribute: str | None = None) -> Label:
    """A label field from a table label → other spellings."""
    return Label(name=name, tag=tag, attribute=attribute or name, metric="accuracy", ask=ask, labels=LabelSet(list(labels), labels))
