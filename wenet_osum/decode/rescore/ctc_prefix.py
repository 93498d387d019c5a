"""CTC prefix scores of the adapter's output in the choice of a transcript's tokens.

Each token of a transcript gets (1 - w) · log P_LLM + w · log of the CTC prefix probability it adds
(Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition"), so
that words are neither invented nor left out. In a transcript with times, words are scored so, and
whether another word begins or the text ends follows from the probability that the transcript is
complete. Labels and replies are the LLM's alone.

Letters: S speech embeddings, H width of the LLM, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.decode.transcript_position import TranscriptPosition, in_transcript

if TYPE_CHECKING:
    from wenet_osum.decode.constrain import AnswerState
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template

LOG_ZERO = float("-inf")
FLOOR = -1e4  # nats, for what CTC excludes: the LLM still chooses among such
ROWS = 32  # states whose scores of the whole vocabulary exist at once


@dataclass(frozen=True)
class Emissions:
    """CTC's output for one utterance: log P(token) of a state is ``states @ table.T + offsets -
    totals``."""

    states: Tensor  # (S, H) float32, scaled as the CTC loss scales them
    table: Tensor  # (V, H) float32, the classes
    totals: Tensor  # (S,) float64, log of the sum over the vocabulary
    blank: int
    offsets: Tensor | None = None  # (V,) float32; None: zeros

    @classmethod
    def of(
        cls, states: Tensor, table: Tensor, blank: int, offsets: Tensor | None = None
    ) -> Emissions:
        """Compute the emissions of ``states`` (S, H) over ``table`` (V, H), on one device."""
        logits = (functional.linear(part, table, offsets) for part in states.split(ROWS))
        totals = torch.cat([part.double().logsumexp(-1) for part in logits])
        return cls(states, table, totals, blank, offsets)

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Return log P (S, K) of ``tokens`` (K,), float64."""
        offsets = None if self.offsets is None else self.offsets[tokens]
        logits = functional.linear(self.states, self.table[tokens], offsets)
        return logits.double() - self.totals[:, None]


@dataclass(frozen=True)
class CTCPrefix:
    """A prefix of the transcript, with the log-probability up to each state of all paths that read
    just that prefix."""

    emissions: Emissions
    log_p_nonblank: Tensor  # (S,) float64, of paths whose last state is the last token
    log_p_blank: Tensor  # (S,) float64, of paths whose last state is blank
    log_p_prefix: float = 0.0  # log P that a transcript begins with the prefix
    last: int | None = None  # the last token

    @classmethod
    def empty(cls, emissions: Emissions) -> CTCPrefix:
        """Return the state before the first token: nothing but blanks."""
        blank = torch.tensor([emissions.blank], device=emissions.states.device)
        blanks = emissions.log_probs(blank)[:, 0]
        return cls(emissions, torch.full_like(blanks, LOG_ZERO), blanks.cumsum(0))

    def _before(self, same: bool) -> Tensor:
        """Return log P (S,) of paths that have read the prefix before each state and may go on with
        another token there.

        ``same``: with the last token once more, which takes a blank between the two.
        """
        start = torch.full_like(self.log_p_nonblank[:1], LOG_ZERO if self.last is not None else 0.0)
        blank = torch.cat([start, self.log_p_blank[:-1]])
        if same:
            return blank
        return torch.logaddexp(blank, torch.cat([torch.full_like(start, LOG_ZERO), self.log_p_nonblank[:-1]]))

    def token_gains(self, tokens: Tensor) -> Tensor:
        """Return (K,) how much each of ``tokens`` (K,), as the next one, changes the
        log-probability of the prefix."""
        logs = self.emissions.log_probs(tokens)
        gains = (self._before(same=False)[:, None] + logs).logsumexp(0)
        if self.last is not None and bool((same := tokens == self.last).any()):
            gains = torch.where(same, (self._before(same=True)[:, None] + logs).logsumexp(0), gains)
        return gains - self.log_p_prefix

    def end_gain(self) -> float:
        """Return the log-probability that the transcript is complete, given the prefix."""
        whole = float(torch.logaddexp(self.log_p_nonblank[-1], self.log_p_blank[-1]))
        return min(whole - self.log_p_prefix, 0.0)

    def more_gain(self) -> float:
        """Return the log-probability that another token follows, given the prefix."""
        return max(math.log(-math.expm1(self.end_gain() or -1e-300)), FLOOR)

    def next_start(self) -> int:
        """Return the state in which the next token most likely begins."""
        known = [self.emissions.blank] if self.last is None else [self.emissions.blank, self.last]
        chances = self.emissions.log_probs(torch.tensor(known, device=self.log_p_blank.device)).exp()
        begun = self._before(same=False) + (1 - chances.sum(1)).clamp(min=1e-12).log()
        if self.last is not None:
            begun = torch.logaddexp(begun, self._before(same=True) + chances[:, 1].log())
        return int(begun.argmax())

    def extended(self, token: int) -> CTCPrefix:
        """Return the prefix with ``token`` at its end."""
        pair = torch.tensor([token, self.emissions.blank], device=self.log_p_blank.device)
        logs, blanks = self.emissions.log_probs(pair).unbind(1)
        # The recursion over states, p[s] = (p[s - 1] + begun[s]) · P(s), is solved at once in the log domain: divided by
        # the running product of P it is a cumulative sum.
        begun = self._before(same=token == self.last) + logs
        held = logs.cumsum(0)
        nonblank = held + (begun - held).logcumsumexp(0)
        pauses = blanks.cumsum(0)
        ended = (nonblank - pauses).logcumsumexp(0)[:-1]
        blank = pauses + torch.cat([torch.full_like(pauses[:1], LOG_ZERO), ended])
        total = float(begun.logsumexp(0))
        return replace(self, log_p_nonblank=nonblank, log_p_blank=blank, log_p_prefix=total, last=token)


@dataclass(frozen=True)
class State:
    """The prefix of one answer."""

    prefix: CTCPrefix
    weight: float
    ended: bool = False  # the transcript has ended, or left what CTC holds for possible

    def applies(self, answer_state: AnswerState, states: dict[str, Any]) -> bool:
        """Return whether the answer is in a transcript that has not ended."""
        return not self.ended and in_transcript(answer_state)

    def advance(self, answer_state: AnswerState, token: int) -> State:
        """Return the state after ``token``."""
        if self.ended or not in_transcript(answer_state):
            return self
        position = TranscriptPosition(answer_state)
        kind = position.kind(token)
        if kind == "end":
            return replace(self, ended=True)
        if kind == "time":
            return self
        prefix = self.prefix.extended(position.plain(token))
        # Where the LLM went on with what CTC excludes, CTC has nothing to say about the rest.
        return replace(self, prefix=prefix, ended=prefix.log_p_prefix == LOG_ZERO)

    def change(self, answer_state: AnswerState, logs: Tensor, tokens: Tensor, states: dict[str, Any]) -> Tensor:
        """Return what turns log P_LLM into the joint score, (1 - w) · log P_LLM + w · gain."""
        position = TranscriptPosition(answer_state)
        listed = tokens.tolist()
        plain = torch.tensor([position.plain(token) for token in listed], device=logs.device)
        gains = self.prefix.token_gains(plain)
        end, more = self.prefix.end_gain(), self.prefix.more_gain()
        for i, token in enumerate(listed):
            kind = position.kind(token)
            if kind == "end":
                gains[i] = end
            elif kind == "time":
                gains[i] = self._time_gain(position, more)
            elif position.begins_word:
                # That there is another word was paid for by its start time already.
                gains[i] = gains[i] - more
        return self.weight * (gains.clamp(min=FLOOR) - logs)

    @staticmethod
    def _time_gain(position: TranscriptPosition, more: float) -> float:
        """Return the gain of a time: between words it says that another follows; between its times
        a word has to stand."""
        if position.between:
            return more
        return FLOOR if position.begins_word else 0.0


class Rescorer:
    """Scores the tokens of transcripts by the CTC that the adapter was trained with."""

    losses = ("ctc",)
    needs = ()

    def __init__(self, model: OsumModel, template: Template, weights: dict[str, float]) -> None:
        # Once for all utterances: of weights in bfloat16 this is a copy.
        self.scores, self.weight = model.speech_classes(), weights.get("ctc_prefix", 0.0)
        if self.scores.ids is not None:
            raise ValueError(
                "rescore ctc_prefix: the LLM writes with all of its tokens, and this model's CTC has "
                f"{len(self.scores.ids) - 1} of them as classes; leave it out, or train ctc with "
                "classes: null"
            )

    def begin(self, states: Tensor) -> State:
        """Start with the empty prefix."""
        scores = self.scores
        compared = scores.states(states)
        emissions = Emissions.of(compared, scores.rows, scores.blank, scores.offsets)
        return State(CTCPrefix.empty(emissions), self.weight)
