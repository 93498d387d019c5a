"""What ends a stretch of free text when the model does not: its length, and repetition."""

from __future__ import annotations

import copy

from wenet_osum.tasks.base import Field

TOKENS_PER_S = 30  # spoken characters at twice the usual rate: the most a character tokenizer needs
TIMED_TOKENS_PER_S = 110  # fast Mandarin, 8 characters/s, each with two times of up to 6 tokens
SPARE_TOKENS = 32  # for the shortest clips
REPLY_TOKENS = 400
LONGEST_UNIT = 64  # tokens: the longest unit whose repetition is watched
LOOP_TOKENS = 32  # tokens that repetitions of a unit must fill to count as a loop …
LOOP_TIMES = 4  # … and how often the unit must stand there


def limit(stretch: tuple[Field, ...], audio_s: float) -> int:
    """The most tokens a stretch of free text may take: 32, plus 30 (with word times 110) per second of audio, plus 400 for a reply.

    Labels do not count; in free decoding they fit into the spare tokens.
    """
    rate = TIMED_TOKENS_PER_S if any(f.metric == "timestamps" for f in stretch) else TOKENS_PER_S
    return SPARE_TOKENS + int(rate * audio_s) + REPLY_TOKENS * any(f.kind == "reply" for f in stretch)


class LoopGuard:
    """Notices when the last tokens are one unit of up to 64 tokens over and over.

    A loop is a unit that stands at least 4 times in a row and fills at least 32 tokens: "no no no no" is not one yet.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._same = [0] * (LONGEST_UNIT + 1)  # by unit length: how many last tokens equal the one a unit before

    def clone(self) -> LoopGuard:
        """An independent copy, for beams."""
        other = copy.copy(self)
        other.ids, other._same = list(self.ids), list(self._same)
        return other

    def add(self, token: int) -> bool:
        """Take the next token; True when the text is in a loop now."""
        self.ids.append(token)
        looped = False
        for unit in range(1, min(len(self.ids), LONGEST_UNIT + 1)):
            self._same[unit] = self._same[unit] + 1 if self.ids[-1 - unit] == token else 0
            looped |= self._same[unit] + unit >= max(LOOP_TOKENS, LOOP_TIMES * unit)
        return looped
