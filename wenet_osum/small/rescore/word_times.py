"""The times of words as the adapter's output tells them, in the choice of a transcript's times.

Every frame tells when its word starts and ends (small/losses/word_time.py); the frames of one word
tell it together better than each alone. A time that the LLM is about to write gets the probability
of all times that begin with the same characters.

Letters: S frames of 80 ms, H width of the LLM, T times of 10 ms, K candidates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.decode.constrain import token_text
from wenet_osum.decode.rescore.ctc_prefix import FLOOR, CTCPrefix
from wenet_osum.decode.transcript_position import TranscriptPosition
from wenet_osum.models.ctc_scores import normed
from wenet_osum.small.losses.word_time import moment_codes, moment_logits

if TYPE_CHECKING:
    from wenet_osum.decode.constrain import AnswerState
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template

DECIMALS = 2
TICKS = 10**DECIMALS  # times per second
BEGINNING = re.compile(r"(\d+)(?:\.(\d*))?(>?)")


class BoundaryPosterior:
    """When the words of one utterance start and end, told by its ``states`` (S, H) of ``state_s`` seconds each."""

    def __init__(self, states: Tensor, state_s: float) -> None:
        self.frames = functional.normalize(states.float(), dim=-1)
        self.middles = (torch.arange(len(states)) + 0.5) * state_s
        count = round(len(states) * state_s * TICKS) + 1
        self.times = torch.arange(count, device=states.device) / TICKS  # (T,) s
        self.codes = moment_codes(self.times / state_s, states.shape[1])

    def log_probs(self, frame: int, end: bool) -> Tensor:
        """Return log P (T,), float64, of when the word starts, or with ``end`` ends, that is spoken
        in ``frame``."""
        # The frame itself says which frames belong to its word; their mean then says it more exactly.
        starts, ends = moment_logits(self.frames[frame], self.codes)
        start, stop = float(self.times[int(starts.argmax())]), float(self.times[int(ends.argmax())])
        spoken = (start <= self.middles) & (self.middles < stop)
        spoken[frame] = True
        mean = self.frames[spoken.to(self.frames.device)].mean(0)
        return moment_logits(mean, self.codes)[int(end)].double().log_softmax(-1)


def text_gains(logs: Tensor, before: str, texts: list[str]) -> list[float]:
    """Return how much writing each of ``texts`` after the characters ``before`` of a time changes
    its log-probability.

    ``logs`` (T,) are those of all times.
    """
    sums = torch.cat([logs.new_zeros(1), logs.exp().cumsum(0)])
    now = _share(before, sums)
    if now <= 0:
        return [float("-inf")] * len(texts)
    return [float((_share(before + text, sums) / now).log()) for text in texts]


def _share(text: str, sums: Tensor) -> Tensor:
    """Return P of all times that begin with the characters ``text``; ``sums`` (T + 1,) are those of
    all earlier ones."""
    if not text:
        return sums[-1]
    found, count = BEGINNING.fullmatch(text), len(sums) - 1
    if not found:
        return sums.new_zeros(())
    share = sums.new_zeros(())
    for first, last in _ranges(*found.groups(), count):
        share = share + (sums[min(last, count)] - sums[min(first, count)])
    return share


def _ranges(whole: str, part: str | None, closed: str, count: int) -> list[tuple[int, int]]:
    """Return the ranges of ticks, first and one past the last, whose times begin so."""
    if part is None:
        # 1 may become 1.5, 10.5, …
        wholes = [] if closed else [n for n in range(count // TICKS + 1) if str(n).startswith(whole)]
        return [(n * TICKS, (n + 1) * TICKS) for n in wholes]
    if len(part) > DECIMALS or (closed and len(part) < DECIMALS) or str(int(whole)) != whole:
        return []
    first = int(whole) * TICKS + int(part.ljust(DECIMALS, "0"))
    return [(first, first + 10 ** (DECIMALS - len(part)))]


@dataclass(frozen=True)
class State:
    """The posterior of one utterance; where the answer stands is known by the state of
    ctc_prefix."""

    posterior: BoundaryPosterior
    weight: float
    ctc_weight: float

    def applies(self, answer_state: AnswerState, states: dict[str, Any]) -> bool:
        """Return whether CTC still follows the transcript."""
        return states["ctc_prefix"].applies(answer_state, states)

    def advance(self, answer_state: AnswerState, token: int) -> State:
        """Return the same state: nothing here depends on the answer so far."""
        return self

    def change(self, answer_state: AnswerState, logs: Tensor, tokens: Tensor, states: dict[str, Any]) -> Tensor:
        """Return weight · (log P of the frames - log P_LLM) for times, given that a time is
        written, and 0 for all else.

        CTC takes its share of log P_LLM and knows nothing of which time it is; among times the LLM
        gets it back.
        """
        changes = torch.zeros_like(logs)
        position, listed = TranscriptPosition(answer_state), tokens.tolist()
        times = [i for i, token in enumerate(listed) if position.kind(token) == "time"]
        if times:
            told = time_gains(self.posterior, states["ctc_prefix"].prefix, position, [listed[i] for i in times])
            which = logs[times] - logs[times].logsumexp(-1)
            told = logs.new_tensor(told).clamp(min=FLOOR)
            changes[times] = self.weight * (told - which) + self.ctc_weight * which
        return changes


def time_gains(
    posterior: BoundaryPosterior, prefix: CTCPrefix, position: TranscriptPosition, tokens: list[int]
) -> list[float]:
    """Return how much each of ``tokens``, all pieces of times, changes the log-probability of the
    time being written.

    An end is told by the frame where CTC has the last token, a start by that where the next one
    most likely begins.
    """
    frame = int(prefix.log_p_nonblank.argmax()) if position.ends_word else prefix.next_start()
    texts = [token_text(position.template, token) for token in tokens]
    if not position.in_time:
        texts = [text.lstrip().removeprefix("<") for text in texts]
    texts = [text[: text.find(">") + 1] or text for text in texts]
    return text_gains(posterior.log_probs(frame, position.ends_word), position.time, texts)


class Rescorer:
    """Scores the times of words by what the adapter's frames tell."""

    losses = ("ctc", "word_time")
    needs = ("ctc_prefix",)

    def __init__(self, model: OsumModel, template: Template, weights: dict[str, float]) -> None:
        self.weight, self.ctc_weight = weights.get("word_times", 0.0), weights.get("ctc_prefix", 0.0)
        self.state_s = model.embedding_s

    def begin(self, states: Tensor) -> State:
        """Prepare the posterior of an utterance."""
        return State(BoundaryPosterior(normed(states), self.state_s), self.weight, self.ctc_weight)
