"""One answer in the making, as every kind of search knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch

from wenet_osum.decode.constrain import AnswerState, Choice, token_text
from wenet_osum.decode.draft import Draft
from wenet_osum.decode.joint import Joint
from wenet_osum.decode.stops import LoopGuard, guard_for, limit

# Logits closer than this may swap between batch sizes: steps that they decide are counted.
TIE = 1e-4


@dataclass
class Row:
    """One answer in the making."""

    key: str
    answer_state: AnswerState
    audio_s: float
    max_tokens: int | None = None
    guard: LoopGuard = field(default_factory=LoopGuard)
    # Tokens already in the answer that the model has yet to be fed.
    queue: list[int] = field(default_factory=list)
    # A label to be chosen now.
    choice: Choice | None = None
    # By field, the probability of each label.
    probs: dict[str, dict[str, float]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    # The random numbers of sampling.
    draws: torch.Generator | None = None
    # What CTC proposes for the transcript (ctc_draft.py), and whether it was taken as it is.
    draft: Draft | None = None
    trusted: bool = False
    # The transcripts that CTC hears with their log-probabilities, to choose from
    # (attention_rescoring.py).
    candidates: dict[str, float] = field(default_factory=dict)
    # What rescorers know of the answer, in joint decoding.
    joint: Joint | None = None
    # The most tokens that the model has positions for, labels yet to come left out.
    room: int | None = None
    # The tokens that the answer was made to begin with (prefix_text.py).
    given: list[int] = field(default_factory=list)
    # The most tokens of the present stretch, kept with the field at which it begins.
    _most: tuple[int, int] = (-1, 0)

    def flag(self, name: str) -> None:
        """Note a flag once."""
        if name not in self.flags:
            self.flags.append(name)

    @property
    def finished(self) -> bool:
        """Return whether nothing is left to say or to choose."""
        return self.answer_state.done and self.choice is None

    def take(self, token: int) -> None:
        """Take the model's next token.

        It leaves a token in the queue or a label to choose, or ends the row.
        """
        if self.joint:
            self.joint = self.joint.advance(self.answer_state, token)
        self.choice = self.answer_state.step(token)
        if self.choice is None and not self.answer_state.done:
            self.queue.append(token)
            self._stop_if_needed(token)
        if self.draft:
            self.draft.follow(token)

    def watch(self) -> None:
        """Begin to watch the stretch of free text that comes now."""
        state = self.answer_state
        text_of = partial(token_text, state.template)
        self.guard = guard_for(state.stretch, self.audio_s, text_of)

    def begin_with(self, tokens: list[int]) -> None:
        """Let the answer begin with tokens that nobody had to choose, which stay free text.

        They are fed with the prompt, so that they do not wait in the queue.
        """
        for token in tokens:
            if self.joint:
                self.joint = self.joint.advance(self.answer_state, token)
            choice = self.answer_state.step(token)
            assert choice is None and not self.answer_state.done, "prefix_text.refusal comes first"
            self.guard.check(token)
            if self.draft:
                self.draft.follow(token)
        self.given = list(tokens)

    def guesses(self) -> list[int]:
        """Return the tokens that it may say after those in the queue."""
        if self.draft is None or self.choice or self.answer_state.done:
            return []
        return self.draft.rest()

    def _stop_if_needed(self, token: int) -> None:
        """End the stretch of free text in a loop, at a time that cannot be, and where it is too
        long.

        The token in the queue is fed first; a label that follows waits for it.
        """
        wrong = self.guard.check(token)
        if not wrong and not self._full():
            return
        self.flag(wrong or "length_limit")
        self.choice = self.answer_state.end()
        if self.choice:
            self.choice.forced = True

    def _full(self) -> bool:
        """Return whether the stretch has all the tokens that it may have."""
        if len(self.guard.ids) >= self._limit():
            return True
        if self.room is None:
            return False
        return len(self.answer_state.ids) >= self.room

    def _limit(self) -> int:
        """Return the most tokens that the present stretch may have."""
        if self.max_tokens:
            return self.max_tokens
        begin, most = self._most
        now = self.answer_state.field_index
        if begin != now:
            most = limit(self.answer_state.stretch, self.audio_s)
            self._most = (now, most)
        return most

    def decide(self, scores: list[float]) -> bool:
        """Write the likeliest label of the choice, by the LLM's log-probabilities of its labels,
        and in joint decoding by what rescorers add to them.

        Returns True when the best two lie within 1e-4.
        """
        choice = self.choice
        labels = list(choice.continuations)
        if self.joint:
            alone = dict(zip(labels, scores, strict=True))
            scores = list(self.joint.label_scores(choice.field, alone).values())
        if choice.forced:
            self.flag("label_forced")

        # Among the labels alone: their probabilities add up to 1.
        logs = torch.tensor(scores, dtype=torch.float64)
        probs = logs.softmax(0).tolist()
        by_label = zip(labels, probs, strict=True)
        self.probs[choice.field.name] = dict(by_label)

        # Of equals the first in the set is taken.
        best = scores.index(max(scores))
        ids = self.answer_state.take_label(choice, labels[best])
        self.queue += ids
        self.choice = None
        self.watch()

        if len(scores) < 2:
            return False
        second, first = sorted(scores)[-2:]
        return first - second <= TIE
