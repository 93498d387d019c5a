"""Rescorer ``word_times``: the times of words that the adapter's output encodes, in the choice of a
transcript's times.

Every frame encodes when its word starts and ends (small/losses/word_time.py); the mean of the
frames of one word does so more exactly than each alone. A time that the LLM is about to write gets
the probability of all times that begin with the same characters.

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
from wenet_osum.decode.ctc_prefix import FLOOR, CTCPrefix
from wenet_osum.decode.transcript_position import TranscriptPosition
from wenet_osum.models.ctc_scores import normed
from wenet_osum.small.losses.word_time import moment_codes, moment_logits

if TYPE_CHECKING:
    from wenet_osum.decode.constrain import AnswerState
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template

DECIMALS = 2
# Times per second; a time is counted in ticks of 10 ms.
TICKS = 10**DECIMALS
# The beginning of a time: whole seconds, decimals, and the bracket that closes it.
BEGINNING = re.compile(r"(\d+)(?:\.(\d*))?(>?)")


class BoundaryPosterior:
    """When the words of one utterance start and end, as its ``states`` (S, H) of ``state_s``
    seconds each encode it."""

    def __init__(self, states: Tensor, state_s: float) -> None:
        count, width = states.shape
        device = states.device
        self.frames = functional.normalize(states.float(), dim=-1)
        self.middles = (torch.arange(count) + 0.5) * state_s
        ticks = round(count * state_s * TICKS) + 1
        self.times = torch.arange(ticks, device=device) / TICKS  # (T,) s
        self.codes = moment_codes(self.times / state_s, width)

    def log_probs(self, frame: int, end: bool) -> Tensor:
        """Return log P (T,), float64, of when the word starts, or with ``end`` ends, that is spoken
        in ``frame``."""
        # The frame itself says which frames belong to its word.
        starts, ends = moment_logits(self.frames[frame], self.codes)
        start = self._best_time(starts)
        stop = self._best_time(ends)
        spoken = (start <= self.middles) & (self.middles < stop)
        spoken[frame] = True

        # Their mean then says more exactly when it starts and ends.
        of_word = self.frames[spoken.to(self.frames.device)]
        logits = moment_logits(of_word.mean(0), self.codes)
        logits = logits[int(end)]
        return logits.double().log_softmax(-1)

    def _best_time(self, logits: Tensor) -> float:
        """Return the most likely time, s."""
        best = int(logits.argmax())
        return float(self.times[best])


def text_gains(logs: Tensor, before: str, texts: list[str]) -> list[float]:
    """Return how much writing each of ``texts`` after the characters ``before`` of a time changes
    its log-probability.

    ``logs`` (T,) are those of all times.
    """
    probabilities = logs.exp()
    zero = logs.new_zeros(1)
    sums = torch.cat([zero, probabilities.cumsum(0)])
    now = _share(before, sums)
    if now <= 0:
        return [float("-inf")] * len(texts)
    gains = []
    for text in texts:
        then = _share(before + text, sums)
        ratio = then / now
        gains.append(float(ratio.log()))
    return gains


def _share(text: str, sums: Tensor) -> Tensor:
    """Return P of all times that begin with the characters ``text``; ``sums`` (T + 1,) are those of
    all earlier ones."""
    if not text:
        return sums[-1]
    share = sums.new_zeros(())
    found = BEGINNING.fullmatch(text)
    if not found:
        return share
    whole, part, closed = found.groups()
    count = len(sums) - 1
    for first, last in _ranges(whole, part, closed, count):
        # Times that the utterance does not reach have no probability.
        first = min(first, count)
        last = min(last, count)
        share = share + (sums[last] - sums[first])
    return share


def _ranges(whole: str, part: str | None, closed: str, count: int) -> list[tuple[int, int]]:
    """Return the ranges of ticks, first and one past the last, whose times begin so.

    ``whole`` are the seconds, ``part`` the decimals, None before the point, ``closed`` the closing
    bracket if there is one; ``count`` is T.
    """
    if part is None:
        if closed:
            return []
        return _ranges_of_seconds(whole, count)

    # A time is written with all of its decimals and without zeros before it.
    too_long = len(part) > DECIMALS
    too_short = bool(closed) and len(part) < DECIMALS
    if too_long or too_short or str(int(whole)) != whole:
        return []
    filled = part.ljust(DECIMALS, "0")
    first = int(whole) * TICKS + int(filled)
    length = 10 ** (DECIMALS - len(part))
    return [(first, first + length)]


def _ranges_of_seconds(whole: str, count: int) -> list[tuple[int, int]]:
    """Return the ranges of ticks whose seconds begin with ``whole``: 1 may become 1.5, 10.5, …"""
    found = []
    for second in range(count // TICKS + 1):
        if str(second).startswith(whole):
            first = second * TICKS
            found.append((first, first + TICKS))
    return found


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

    def change(
        self, answer_state: AnswerState, logs: Tensor, tokens: Tensor, states: dict[str, Any]
    ) -> Tensor:
        """Return weight · (log P of the frames - log P_LLM) for times, given that a time is
        written, and 0 for all else.

        CTC takes its share of log P_LLM and knows nothing of which time it is; among times the LLM
        gets it back.
        """
        changes = torch.zeros_like(logs)
        position = TranscriptPosition(answer_state)
        places, candidates = [], []
        for place, token in enumerate(tokens.tolist()):
            if position.kind(token) == "time":
                places.append(place)
                candidates.append(token)
        if not places:
            return changes

        # What the LLM says among the times alone.
        of_times = logs[places]
        llm = of_times - of_times.logsumexp(-1)

        prefix = states["ctc_prefix"].prefix
        gains = time_gains(
            self.posterior,
            prefix,
            position,
            candidates,
        )
        frames = logs.new_tensor(gains)
        frames = frames.clamp(min=FLOOR)
        changes[places] = self.weight * (frames - llm) + self.ctc_weight * llm
        return changes


def time_gains(
    posterior: BoundaryPosterior, prefix: CTCPrefix, position: TranscriptPosition, tokens: list[int]
) -> list[float]:
    """Return how much each of ``tokens``, all pieces of times, changes the log-probability of the
    time being written.

    The time of an end is read at the frame where CTC has the last token, that of a start at the
    frame where the next one most likely begins.
    """
    ends_word = position.ends_word
    if ends_word:
        frame = prefix.last_state()
    else:
        frame = prefix.next_start()
    logs = posterior.log_probs(frame, ends_word)

    # The characters of the time alone, with the bracket that closes it.
    texts = []
    for token in tokens:
        text = token_text(position.template, token)
        if not position.in_time:
            text = text.lstrip()
            text = text.removeprefix("<")
        end = text.find(">") + 1
        texts.append(text[:end] or text)
    return text_gains(logs, position.time, texts)


class Rescorer:
    """Scores the times of words by what the adapter's frames encode."""

    losses = ("ctc", "word_time")
    needs = ("ctc_prefix",)

    def __init__(self, model: OsumModel, template: Template, weights: dict[str, float]) -> None:
        self.weight = weights.get("word_times", 0.0)
        self.ctc_weight = weights.get("ctc_prefix", 0.0)
        self.state_s = model.embedding_s

    def begin(self, states: Tensor, front: Tensor | None = None) -> State:
        """Prepare the posterior of an utterance."""
        posterior = BoundaryPosterior(normed(states), self.state_s)
        return State(posterior, self.weight, self.ctc_weight)
