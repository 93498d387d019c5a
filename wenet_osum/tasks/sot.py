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
        turns = self.turns(str(raw or ""))
        if not turns or turns[0].speaker is None:
            return None

        numbers: dict[int | None, int] = {}
        pieces = []
        for turn in turns:
            number = numbers.setdefault(turn.speaker, len(numbers) + 1)
            pieces.append(f"[speaker {number}] {turn.text}")
        return " ".join(pieces)

    def write(self, utterance: Utterance) -> str:
        """Write the turns with their marks."""
        return escape(self.value(utterance))

    def take(self, text: str, reading: Reading) -> None:
        """Read the turns, and the transcript without their marks."""
        free = unescape(text).strip()
        turns = self.turns(free)
        texts = [turn.text for turn in turns]
        reading.transcript = join_words(texts)
        if turns and turns[0].speaker is not None:
            reading.texts[self.name] = free
        elif free:
            reading.unread[self.name] = f"no [speaker n] before {free[:SHOWN]!r}"

    def entries(self, answer: Reading | Hypothesis) -> dict[str, Any]:
        """Return the transcript and the turns that were read."""
        turns = answer.texts.get(self.name)
        return {"txt": answer.transcript, self.attribute: turns}

    def spoken(self, utterance: Utterance) -> str:
        """Return the words without the marks."""
        texts = [turn.text for turn in self.turns(self.value(utterance))]
        return join_words(texts)

    def turns(self, text: str) -> list[Turn]:
        """Cut a text at its marks; what a speaker says in a row is one turn, and none is empty."""
        before, *rest = MARK.split(text)
        pairs = [(None, before)]
        for number, said in zip(rest[0::2], rest[1::2], strict=True):
            pairs.append((int(number), said))

        turns: list[Turn] = []
        for speaker, said in pairs:
            words = said.split()
            if not words:
                continue
            text = " ".join(words)
            if turns and turns[-1].speaker == speaker:
                last = turns.pop()
                text = join_words([last.text, text])
            turns.append(Turn(speaker, text))
        return turns


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
