"""CTC prefix scores: the probability that what CTC reads begins with a prefix.

After Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition".

Letters: S speech embeddings, H width of the LLM, V tokens that CTC has as classes, K candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

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
        rows = self.table[tokens]
        offsets = None
        if self.offsets is not None:
            offsets = self.offsets[tokens]
        logits = functional.linear(self.states, rows, offsets)
        totals = self.totals.unsqueeze(1)
        return logits.double() - totals

    def of_few(self) -> KnownEmissions:
        """Return the same with log P of all classes computed once, where they are few."""
        count = len(self.table)
        every = torch.arange(count, device=self.states.device)
        known = self.log_probs(every)
        return KnownEmissions(
            self.states,
            self.table,
            self.totals,
            self.blank,
            known=known,
        )

    def tensor(self, tokens: list[int]) -> Tensor:
        """Return token ids as a tensor on the device of the states."""
        return torch.tensor(tokens, device=self.states.device)


@dataclass(frozen=True)
class KnownEmissions(Emissions):
    """Emissions whose log P ``known`` (S, V) are there already."""

    known: Tensor = field(kw_only=True)

    def log_probs(self, tokens: Tensor) -> Tensor:
        """Return log P (S, K) of ``tokens`` (K,), float64."""
        return self.known[:, tokens]


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
        before = before.unsqueeze(1)
        totals = (before + logs).logsumexp(0)

        # The last token once more has fewer paths.
        if self.last is not None:
            same = tokens == self.last
            if bool(same.any()):
                before = self._before(same=True)
                before = before.unsqueeze(1)
                again = (before + logs).logsumexp(0)
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
        return log_of_rest(self.end_gain())

    def last_state(self) -> int:
        """Return the state in which the last token is most likely read."""
        best = self.log_p_nonblank.argmax()
        return int(best)

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


def log_of_rest(log: float) -> float:
    """Return log(1 - p) for the ``log`` of p, no less than FLOOR."""
    # Where p is 1, log(1 - 1) must not be asked for.
    rest = math.log(-math.expm1(log or -1e-300))
    return max(rest, FLOOR)
