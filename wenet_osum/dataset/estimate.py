"""Estimate the tokens of utterances from their sizes, before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wenet_osum.tasks.base import Task

BOUNDARIES = 2  # speech start and speech end
UNKNOWN = (0.0, 1.0)  # shares of the estimate where none was measured
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
    label: int = 16  # tokens of the longest label, or of the mark before a reply
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

    def answer(self, task: Task, lengths: np.ndarray) -> np.ndarray:
        """Count the tokens of the target with its end, at most.

        ``lengths`` (n, 3) are those of an Index. Returns (n,) int64.
        """
        txt, words, reply = lengths.astype(np.int64).T
        total = np.ones(len(lengths))
        for part in task.fields:
            if part.attribute == "words":
                # pieces between times merge less than running text: count every byte
                total += txt + words * (self.per_word + 1)
            elif part.kind == "transcript":
                total += np.ceil(txt * self.per_byte)
            else:
                total += self.label
            if part.kind == "reply":
                total += np.ceil(reply * self.per_byte)
        return total.astype(np.int64)

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
