"""SOT: the transcript of several speakers, with a mark where another one speaks.

It is the serialized output of Kanda et al. (2020, arXiv 2003.12687), with the speaker's number in
each mark: ``[speaker 1] hello there [speaker 2] hi``. Speakers are numbered by their first word.
No task of OSUM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.tasks.base import SHOWN, Field, Reading, Task, escape, join_words, unescape

MARK = re.compile(r"\[\s*speaker\s+(\d+)\s*\]", re.IGNORECASE)


class Turn(NamedTuple):
    """What one speaker says at a stretch."""

    # None before the first mark
    speaker: int | None
    text: str


@dataclass(frozen=True)
class SpeakerTurns(Field):
    """A transcript whose turns begin with a mark."""

    kind: str = "transcript"
    marked: bool = True

    def value(self, utterance: Utterance) -> str | None:
        """Return the turns with their speakers numbered from 1; None where the text does not begin
        with a mark."""
        raw = utterance.get(self.attribute)
        text = str(raw or "")
        turns = self.turns(text)
        if not _begins_with_mark(turns):
            return None

        numbers: dict[int | None, int] = {}
        pieces = []
        for speaker, said in turns:
            following = len(numbers) + 1
            number = numbers.setdefault(speaker, following)
            pieces.append(f"[speaker {number}]")
            pieces.append(said)
        return " ".join(pieces)

    def write(self, utterance: Utterance) -> str:
        """Write the turns with their marks."""
        text = self.value(utterance)
        return escape(text)

    def take(self, text: str, reading: Reading) -> None:
        """Read the turns, and the transcript without their marks."""
        free = unescape(text).strip()
        turns = self.turns(free)
        reading.transcript = _words(turns)
        if _begins_with_mark(turns):
            reading.texts[self.name] = free
        elif free:
            begin = free[:SHOWN]
            reading.unread[self.name] = f"no [speaker n] before {begin!r}"

    def entries(self, answer: Reading | Hypothesis) -> dict[str, Any]:
        """Return the transcript and the turns that were read."""
        turns = answer.texts.get(self.name)
        return {
            "txt": answer.transcript,
            self.attribute: turns,
        }

    def spoken(self, utterance: Utterance) -> str:
        """Return the words without the marks."""
        marked = self.value(utterance)
        turns = self.turns(marked)
        return _words(turns)

    def turns(self, text: str) -> list[Turn]:
        """Cut a text at its marks; what a speaker says in a row is one turn, and none is empty."""
        before, *rest = MARK.split(text)
        speakers: list[int | None] = [None]
        speakers += map(int, rest[0::2])
        pieces = [before, *rest[1::2]]

        turns: list[Turn] = []
        last = None
        for speaker, piece in zip(speakers, pieces, strict=True):
            words = piece.split()
            if not words:
                continue
            said = " ".join(words)
            if turns and speaker == last:
                _, earlier = turns.pop()
                said = join_words([earlier, said])
            turn = Turn(speaker, said)
            turns.append(turn)
            last = speaker
        return turns


def _begins_with_mark(turns: list[Turn]) -> bool:
    """Tell whether there are turns, the first of them with a speaker."""
    if not turns:
        return False
    first = turns[0]
    return first.speaker is not None


def _words(turns: list[Turn]) -> str:
    """Return what is said, without the marks."""
    texts = [turn.text for turn in turns]
    return join_words(texts)


SPEAKER_TURNS = SpeakerTurns(
    name="speaker_turns",
    tag="<TRANSCRIBE> <SPEAKERS>",
    attribute="speaker_turns",
    metric="wder",
    more_metrics=("error_rate",),
    ask={"zh": "每个人说的话", "en": "what each speaker says"},
)
TASK = Task(
    name="sot",
    fields=(SPEAKER_TURNS,),
    by_default=False,
    written_prompts={
        "zh": [
            "写出每个人说的话，换人时标出说话人。",
            "听写，并标明是谁在说。",
            "谁说了什么？",
            "按说话人写下这段对话。",
            "转写录音，每次换人都写上说话人编号。",
        ],
        "en": [
            "Write what each speaker says, with a mark where the speaker changes.",
            "Transcribe and tell the speakers apart.",
            "Who says what?",
            "Write this conversation turn by turn.",
            "Transcribe, with the speaker's number at every change.",
        ],
    },
)
