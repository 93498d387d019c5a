"""Estimate the tokens of utterances from their sizes, before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from wenet_osum.tasks.base import Task

BOUNDARIES = 2  # speech start and speech end
UNKNOWN = (0.0, 1.0)  # shares of the estimate where none was measured
NO_TEXTS: Mapping[str, np.ndarray] = MappingProxyType({})
TokenCounter = Callable[[np.ndarray], np.ndarray]  # frames (n,) → speech tokens (n,), at most


def published_rate(frames: np.ndarray) -> np.ndarray:
    """Count speech tokens as OSUM's published adapter makes them: 12.5 per second.

    A run asks its own model.
    """
    return -(-frames // 8)


@dataclass(frozen=True)
class TokenEstimate:
    """Tokens per byte of text; the defaults are upper bounds for byte-level vocabularies."""

    prompt: int = 32  # longest prompt and what stands behind the speech, tokens
    per_byte: float = 1.0  # tokens a byte of free text, UTF-8
    per_word: int = 16  # tokens of both times of a word
    label: int = 16  # tokens of the longest label, or of the mark before a free text
    # task tags → what a target really takes of ``answer``: the least share that was met, and the
    # mean one; not measured: unknown, all
    measured: dict[str, tuple[float, float]] = field(default_factory=dict)

    def surely_longer(self, task: Task, answer: np.ndarray, limit: int) -> np.ndarray:
        """Tell which targets of ``answer`` tokens exceed ``limit`` however well their text merges.

        Returns (n,) bool.
        """
        least, _ = self.measured.get(task.tags, UNKNOWN)
        return answer * least > limit

    def likely_longer(self, task: Task, answer: np.ndarray, limit: int) -> np.ndarray:
        """Tell which targets of ``answer`` tokens exceed ``limit`` if their text merges as most.

        Returns (n,) bool.
        """
        _, mean = self.measured.get(
            task.tags,
            UNKNOWN,
        )
        return answer * mean > limit

    def answer(
        self, task: Task, lengths: np.ndarray, texts: Mapping[str, np.ndarray] = NO_TEXTS
    ) -> np.ndarray:
        """Count the tokens of the target with its end, at most.

        ``lengths`` (n, 3) are those of an Index, ``texts`` the UTF-8 bytes (n,) of further free
        texts by their names in a manifest. Returns (n,) int64.
        """
        txt, words, reply = lengths.astype(np.int64).T
        total = np.ones(len(lengths))
        for part in task.fields:
            if part.attribute in texts:
                size = texts[part.attribute]
                total += np.ceil(size * self.per_byte)
                total += self.label
            elif part.attribute == "words":
                # pieces between times merge less than running text: count every byte
                total += txt + words * (self.per_word + 1)
            elif part.kind == "transcript":
                total += np.ceil(txt * self.per_byte)
            else:
                total += self.label
            if part.attribute == "reply":
                total += np.ceil(reply * self.per_byte)
        return total.astype(np.int64)

    def earlier(
        self, turns: np.ndarray, recordings: np.ndarray, spoken_bytes: np.ndarray
    ) -> np.ndarray:
        """Count the tokens that earlier turns of a conversation add at most, (n,) int64.

        Beside the frames, each recording costs its boundaries and the rounding of its length;
        ``spoken_bytes`` are those of the user's own words and the answers.
        """
        of_turn = self.prompt + self.label + 1
        of_recording = BOUNDARIES + 1
        texts = np.ceil(spoken_bytes * self.per_byte)
        total = texts.astype(np.int64)
        total += turns * of_turn
        total += recordings * of_recording
        return total

    def beside_answer(self, speech_tokens: np.ndarray) -> np.ndarray:
        """Count the tokens of prompt and speech with its boundaries, (n,)."""
        return speech_tokens + BOUNDARIES + self.prompt


@dataclass
class TooLong:
    """Targets of one task of a source against their limit, as estimated."""

    limit: int  # tokens
    asked: int = 0  # utterances that could be asked the task
    over: int = 0  # those whose target is likely longer than the limit

    @property
    def share(self) -> float:
        """0 to 1"""
        return self.over / max(1, self.asked)
