"""End free text that the model does not end: by its length, when it repeats itself, and when it
says times that the recording cannot have.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from wenet_osum.tasks.base import TIME, Field, find_tags

# Spoken characters at twice the usual rate: the most that a character tokenizer needs.
TOKENS_PER_S = 30
# Fast Mandarin has 8 characters per second, each with two times of up to 6 tokens.
TIMED_TOKENS_PER_S = 110
# Added to every stretch, for the sake of the shortest clips.
SPARE_TOKENS = 32
# Added where the stretch holds a reply.
REPLY_TOKENS = 400
# The longest unit whose repetition is watched, in tokens.
LONGEST_UNIT = 64
# Repetitions are a loop when they fill this many tokens …
LOOP_TOKENS = 32
# … and the unit stands this many times in a row.
LOOP_TIMES = 4
# Seconds that a word time may lie beyond the recording's end, or before the time before it.
TIME_SLACK_S = 1.0
# A stretch with wrong times ends when there are this many, and more than this share of its times.
WRONG_TIMES = 3
WRONG_SHARE = 0.05


def limit(stretch: tuple[Field, ...], audio_s: float) -> int:
    """Return the most tokens that a stretch of free text may take.

    These are 32, plus 30 per second of audio (110 with word times), plus 400 for a reply. Labels do
    not count; in free decoding they fit into the spare tokens.
    """
    rate, reply = TOKENS_PER_S, 0
    for field in stretch:
        if field.metric == "timestamps":
            rate = TIMED_TOKENS_PER_S
        if field.kind == "reply":
            reply = REPLY_TOKENS
    return SPARE_TOKENS + int(rate * audio_s) + reply


def guard_for(
    stretch: tuple[Field, ...], audio_s: float, text_of: Callable[[int], str]
) -> LoopGuard:
    """Return the guard of a stretch; ``text_of`` gives the text of a token."""
    timed = any(field.metric == "timestamps" for field in stretch)
    return LoopGuard(TimeGuard(audio_s, text_of) if timed else None)


class TimeGuard:
    """Notices a text with many word times that cannot be: more than 1 s beyond the end of the
    recording, or more than 1 s before the time before it.

    A model that is lost in a long recording says its words again with other times, in which no loop
    is seen. A slip of a digit is one or two wrong times, which do not end an answer: there have to
    be 3, and more than one in 20.
    """

    def __init__(self, audio_s: float, text_of: Callable[[int], str]) -> None:
        self.text_of = text_of
        self.longest_s = audio_s + TIME_SLACK_S
        self.last_s = 0.0
        # Times said so far, and the wrong ones of them.
        self.times = self.wrong = 0
        # What has been said since the last tag.
        self.open = ""
        # A reply has begun, in which nothing is a time.
        self.over = False

    def add(self, token: int) -> bool:
        """Take the next token; return whether it ends one wrong time too many."""
        if self.over:
            return False
        self.open += self.text_of(token)
        if ">" not in self.open:
            return False

        before = self.wrong
        tags = find_tags(self.open)
        for tag in tags:
            self._note(tag[1].strip())
        if tags:
            end = tags[-1].end()
            self.open = self.open[end:]
        is_many = self.wrong >= WRONG_TIMES and self.wrong > WRONG_SHARE * self.times
        return is_many and self.wrong > before

    def _note(self, name: str) -> None:
        """Note a tag, which is a time or begins a reply."""
        if not TIME.fullmatch(name):
            self.over = True
            return
        time_s = float(name)
        self.times += 1
        if time_s > self.longest_s:
            self.wrong += 1
            return
        if time_s < self.last_s - TIME_SLACK_S:
            self.wrong += 1
        self.last_s = time_s


class LoopGuard:
    """Notices when the last tokens are one unit of up to 64 tokens over and over.

    A loop is a unit that stands at least 4 times in a row and fills at least 32 tokens: "no no no
    no" is not one yet. ``times`` watches the word times of a stretch that has some.
    """

    def __init__(self, times: TimeGuard | None = None) -> None:
        self.ids: list[int] = []
        self.times = times
        # By the length of the unit: how many of the last tokens equal the token one unit before.
        # Units that the last token does not repeat are left out.
        self._same: dict[int, int] = {}

    def clone(self) -> LoopGuard:
        """Return an independent copy, for beams."""
        other = copy.copy(self)
        other.ids = list(self.ids)
        other.times = copy.copy(self.times)
        return other

    def check(self, token: int) -> str:
        """Take the next token; return the flag of what is wrong now, empty for nothing."""
        if self.add(token):
            return "loop"
        if self.times and self.times.add(token):
            return "times"
        return ""

    def add(self, token: int) -> bool:
        """Take the next token; return whether the text is in a loop now."""
        recent = self.ids[-LONGEST_UNIT:]
        self.ids.append(token)
        if token not in recent:
            self._same = {}
            return False

        # Each place where the token stood before is one unit back.
        looped = False
        before, self._same = self._same, {}
        for unit, earlier in enumerate(reversed(recent), start=1):
            if earlier != token:
                continue
            same = before.get(unit, 0) + 1
            self._same[unit] = same
            # The first unit has none before it that it could equal, and stands there too.
            filled = same + unit
            needed = max(LOOP_TOKENS, LOOP_TIMES * unit)
            if filled >= needed:
                looped = True
        return looped
