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
# In nats, for what CTC excludes: the LLM still chooses among such.
FLOOR = -1e4
# States whose scores of the whole vocabulary exist at once.
ROWS = 32


@dataclass(frozen=True)
class Emissions:
    """CTC's output for one utterance.

    The log P(token) of a state is ``states @ table.T + offsets - totals``. Shapes: ``states``
    (S, H) float32, scaled as the CTC loss scales them; ``table`` (V, H) float32, the classes;
    ``totals`` (S,) float64, log of the sum over the vocabulary; ``offsets`` (V,) float32, None for
    zeros.
    """

    states: Tensor
    table: Tensor
    totals: Tensor
    blank: int
    offsets: Tensor | None = None

    @classmethod
    def of(
        cls, states: Tensor, table: Tensor, blank: int, offsets: Tensor | None = None
    ) -> Emissions:
        """Compute the emissions of ``states`` (S, H) over ``table`` (V, H), on one device."""
        totals = []
        for part in states.split(ROWS):
            logits = functional.linear(part, table, offsets)
            total = logits.double().logsumexp(-1)
            totals.append(total)
        return cls(states, table, torch.cat(totals), blank, offsets)

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Return log P (S, K) of ``tokens`` (K,), float64."""
        offsets = None
        if self.offsets is not None:
            offsets = self.offsets[tokens]
        logits = functional.linear(self.states, self.table[tokens], offsets)
        return logits.double() - self.totals[:, None]

    def tensor(self, tokens: list[int]) -> Tensor:
        """Return token ids as a tensor on the device of the states."""
        return torch.tensor(tokens, device=self.states.device)


@dataclass(frozen=True)
class CTCPrefix:
    """A prefix g of the transcript, with the log-probabilities of all paths that read just it.

    Paths up to state s are summed apart by what they end with (Watanabe et al., 2017): n(g, s) with
    the last token, b(g, s) with blank. For the prefix g·c that is one token longer,

        φ(s)      = b(g, s - 1) + n(g, s - 1)       without n where c is the last token of g
        n(g·c, s) = (n(g·c, s - 1) + φ(s)) · P_s(c)
        b(g·c, s) = (b(g·c, s - 1) + n(g·c, s - 1)) · P_s(blank)
        Ψ(g·c)    = Σ_s φ(s) · P_s(c)

    Ψ is the probability that a transcript begins with the prefix. Here all are logarithms:
    ``log_p_nonblank`` (S,) and ``log_p_blank`` (S,) in float64, and ``log_p_prefix``. ``last`` is
    the last token, None for the empty prefix.
    """

    emissions: Emissions
    log_p_nonblank: Tensor
    log_p_blank: Tensor
    log_p_prefix: float = 0.0
    last: int | None = None

    @classmethod
    def empty(cls, emissions: Emissions) -> CTCPrefix:
        """Return the state before the first token: nothing but blanks."""
        blank = emissions.tensor([emissions.blank])
        blanks = emissions.log_probs(blank)
        blanks = blanks[:, 0]
        # No path ends with a token.
        nothing = torch.full_like(blanks, LOG_ZERO)
        return cls(emissions, nothing, blanks.cumsum(0))

    def _before(self, same: bool) -> Tensor:
        """Return log φ (S,): of paths that have read the prefix before each state.

        They may go on with another token there. ``same``: with the last token once more, which
        takes a blank between the two.
        """
        # Before the first state nothing but the empty prefix has been read.
        start = 0.0 if self.last is None else LOG_ZERO
        blank = _shifted(self.log_p_blank, start)
        if same:
            return blank
        nonblank = _shifted(self.log_p_nonblank, LOG_ZERO)
        return torch.logaddexp(blank, nonblank)

    def token_gains(self, tokens: Tensor) -> Tensor:
        """Return how much each next token would change the log-probability of the prefix.

        Takes ``tokens`` (K,) and returns (K,).
        """
        logs = self.emissions.log_probs(tokens)
        before = self._before(same=False)
        totals = (before[:, None] + logs).logsumexp(0)

        # The last token once more has fewer paths.
        if self.last is not None:
            same = tokens == self.last
            if bool(same.any()):
                before = self._before(same=True)
                again = (before[:, None] + logs).logsumexp(0)
                totals = torch.where(same, again, totals)
        return totals - self.log_p_prefix

    def end_gain(self) -> float:
        """Return the log-probability that the transcript is complete, given the prefix."""
        nonblank = self.log_p_nonblank[-1]
        blank = self.log_p_blank[-1]
        whole = float(torch.logaddexp(nonblank, blank))
        return min(whole - self.log_p_prefix, 0.0)

    def more_gain(self) -> float:
        """Return the log-probability that another token follows, given the prefix."""
        # Where the end is certain, its log is 0, and log(1 - 1) must not be asked for.
        end = self.end_gain() or -1e-300
        more = math.log(-math.expm1(end))
        return max(more, FLOOR)

    def next_start(self) -> int:
        """Return the state in which the next token most likely begins."""
        # Any token may follow but blank and the last one, which take their own way.
        known = [self.emissions.blank]
        if self.last is not None:
            known.append(self.last)
        tokens = self.emissions.tensor(known)
        probs = self.emissions.log_probs(tokens).exp()
        others = 1 - probs.sum(1)
        others = others.clamp(min=1e-12)
        begun = self._before(same=False) + others.log()

        # The last token may begin once more after a blank.
        if self.last is not None:
            again = self._before(same=True) + probs[:, 1].log()
            begun = torch.logaddexp(begun, again)
        return int(begun.argmax())

    def extended(self, token: int) -> CTCPrefix:
        """Return the prefix with ``token`` at its end."""
        pair = self.emissions.tensor([token, self.emissions.blank])
        logs, blanks = self.emissions.log_probs(pair).unbind(1)

        # The recursion over states, n(s) = n(s - 1) · P(s) + φ(s) · P(s), is solved at once in the
        # log domain: divided by the running product of P it is a cumulative sum.
        begun = self._before(same=token == self.last) + logs
        products = logs.cumsum(0)
        nonblank = products + (begun - products).logcumsumexp(0)

        # The same for b(s) = b(s - 1) · P(s) + n(s - 1) · P(s), which begins a state later.
        products = blanks.cumsum(0)
        ended = (nonblank - products).logcumsumexp(0)
        blank = products + _shifted(ended, LOG_ZERO)

        return replace(
            self,
            log_p_nonblank=nonblank,
            log_p_blank=blank,
            log_p_prefix=float(begun.logsumexp(0)),
            last=token,
        )


def _shifted(values: Tensor, first: float) -> Tensor:
    """Return (S,) values of the state before each one, and ``first`` for the first state."""
    start = torch.full_like(values[:1], first)
    return torch.cat([start, values[:-1]])


@dataclass(frozen=True)
class State:
    """The prefix of one answer.

    It has ``ended`` when the transcript has, or when it has left what CTC holds for possible.
    """

    prefix: CTCPrefix
    weight: float
    ended: bool = False

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
        excluded = prefix.log_p_prefix == LOG_ZERO
        return replace(self, prefix=prefix, ended=excluded)

    def change(
        self, answer_state: AnswerState, logs: Tensor, tokens: Tensor, states: dict[str, Any]
    ) -> Tensor:
        """Return what turns log P_LLM into the joint score, (1 - w) · log P_LLM + w · gain.

        It is (K,) for ``tokens`` (K,) with ``logs`` (K,).
        """
        position = TranscriptPosition(answer_state)
        listed = tokens.tolist()
        plain = [position.plain(token) for token in listed]
        gains = self.prefix.token_gains(torch.tensor(plain, device=logs.device))
        end = self.prefix.end_gain()
        more = self.prefix.more_gain()
        for i, token in enumerate(listed):
            kind = position.kind(token)
            if kind == "end":
                gains[i] = end
            elif kind == "time":
                gains[i] = self._time_gain(position, more)
            elif position.begins_word:
                # That there is another word was paid for by its start time already.
                gains[i] -= more
        return self.weight * (gains.clamp(min=FLOOR) - logs)

    @staticmethod
    def _time_gain(position: TranscriptPosition, more: float) -> float:
        """Return the gain of a time.

        Between words it stands for the next word; between two times there must be a word.
        """
        if position.between:
            return more
        return FLOOR if position.begins_word else 0.0


class Rescorer:
    """Scores the tokens of transcripts by the CTC that the adapter was trained with.

    Raises ValueError for a CTC with some of the LLM's tokens as classes. Such a CTC writes a word
    with other pieces than the LLM does, and half a word often with others than the whole, so that
    what the LLM has written so far is no beginning of what CTC reads. To take the tokens outside
    the classes for impossible would forbid most words.
    """

    losses = ("ctc",)
    needs = ()

    def __init__(self, model: OsumModel, template: Template, weights: dict[str, float]) -> None:
        # Once for all utterances: of weights in bfloat16 this is a copy.
        self.scores = model.speech_classes()
        self.table = self.scores.tokens.float()
        self.weight = weights.get("ctc_prefix", 0.0)
        if self.scores.ids is not None:
            classes = len(self.scores.ids) - 1
            raise ValueError(
                "rescore ctc_prefix: the LLM writes with all of its tokens, "
                f"and this model's CTC has {classes} of them as classes, which cut words into "
                "other pieces; leave it out, decode by CTC alone with --mode ctc_greedy_search, "
                "or train ctc with classes: null"
            )

    def begin(self, states: Tensor, front: Tensor | None = None) -> State:
        """Start with the empty prefix."""
        scores = self.scores
        compared = scores.states(states)
        emissions = Emissions.of(compared, self.table, scores.blank, scores.offsets)
        return State(CTCPrefix.empty(emissions), self.weight)
