"""Joint decoding: what the LLM would say is weighed with what the adapter's CTC heard, so that words are neither invented nor left out.

Each token of a transcript gets (1 - w) · log P_LLM + w · log of the CTC prefix probability it adds (Watanabe et al., 2017, "Hybrid CTC/attention
architecture for end-to-end speech recognition", one-pass decoding); as there, only the LLM's likeliest candidates are looked at. In a transcript with
times, words are weighed so, and whether another word begins or the text ends follows from the probability that all has been said; times are weighed
with what the frames tell where CTC hears the word (decode/clock.py). Labels and replies are the LLM's alone. It takes a model that was trained with
``model.ctc_weight``, and for times with ``model.tone_weight``.

Letters: S speech embeddings, H width of the LLM, V vocabulary, K candidates.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenet_osum.decode import clock
from wenet_osum.decode.constrain import Walk, token_text
from wenet_osum.tasks.base import join_words

if TYPE_CHECKING:
    from wenet_osum.text.template import Template

CANDIDATES = 64  # of the LLM that are looked at
NEVER = float("-inf")
UNHEARD = -1e4  # nats, for what cannot have been said: the LLM still chooses among such
TAG = re.compile(r"<[^<>]*>")
TIME_TAG = re.compile(r"<\s*\d[^<>]*>")
OPEN = re.compile(r"<[^<>]*$")
ESCAPED = re.compile(r"\\.", re.DOTALL)


@dataclass(frozen=True)
class Sounds:
    """What CTC hears in one utterance: log P(token) of any state is ``states @ table.T - shares``."""

    states: Tensor  # (S, H)
    table: Tensor  # (V, H)
    shares: Tensor  # (S,) log of the sum over the vocabulary
    blank: int

    @cached_property
    def clock(self) -> clock.Clock:
        """When words are spoken."""
        return clock.Clock(self.states)

    def logs(self, tokens: Tensor) -> Tensor:
        """log P (S, K) of ``tokens`` (K,), float64."""
        return (self.states @ self.table[tokens].T).double() - self.shares[:, None]


def listen(states: Tensor, table: Tensor, blank: int) -> Sounds:
    """The sounds of ``states`` (S, H), scaled as the CTC loss scales them, beside ``table`` (V, H), both float32 and on one device."""
    shares = torch.cat([(part @ table.T).double().logsumexp(-1) for part in states.split(32)])
    return Sounds(states, table, shares, blank)


@dataclass(frozen=True)
class Heard:
    """A transcript so far, and log probabilities, float64, of all paths that have said just that up to each state."""

    sounds: Sounds
    said: Tensor  # (S,) whose last state says its last token
    silent: Tensor  # (S,) whose last state is blank
    total: float = 0.0  # log P that a transcript begins so
    last: int | None = None  # the last token
    ended: bool = False

    @classmethod
    def nothing(cls, sounds: Sounds) -> Heard:
        """Before the first token."""
        blanks = sounds.logs(torch.tensor([sounds.blank], device=sounds.states.device))[:, 0]
        return cls(sounds, torch.full_like(blanks, NEVER), blanks.cumsum(0))

    def _before(self, same: bool) -> Tensor:
        """(S,) paths that have said the transcript before each state, and may say a token there; ``same``: the last one once more."""
        start = torch.full_like(self.said[:1], NEVER if self.last is not None else 0.0)
        silent = torch.cat([start, self.silent[:-1]])
        return silent if same else torch.logaddexp(silent, torch.cat([torch.full_like(start, NEVER), self.said[:-1]]))

    def gains(self, tokens: Tensor) -> Tensor:
        """(K,) what saying each of ``tokens`` (K,) next does to log P."""
        logs = self.sounds.logs(tokens)
        gains = (self._before(same=False)[:, None] + logs).logsumexp(0)
        if self.last is not None and bool((same := tokens == self.last).any()):
            gains = torch.where(same, (self._before(same=True)[:, None] + logs).logsumexp(0), gains)
        return gains - self.total

    def ending(self) -> float:
        """What ending the transcript here does to log P."""
        return min(float(torch.logaddexp(self.said[-1], self.silent[-1])) - self.total, 0.0)

    def more(self) -> float:
        """What it does that another token follows."""
        return max(math.log(-math.expm1(self.ending() or -1e-300)), UNHEARD)

    def starting(self) -> int:
        """The state where the next token most likely begins."""
        known = [self.sounds.blank] if self.last is None else [self.sounds.blank, self.last]
        chances = self.sounds.logs(torch.tensor(known, device=self.said.device)).exp()
        begun = self._before(same=False) + (1 - chances.sum(1)).clamp(min=1e-12).log()
        if self.last is not None:
            begun = torch.logaddexp(begun, self._before(same=True) + chances[:, 1].log())
        return int(begun.argmax())

    def after(self, token: int) -> Heard:
        """The transcript with ``token``."""
        logs, blanks = self.sounds.logs(torch.tensor([token, self.sounds.blank], device=self.said.device)).unbind(1)
        begun = self._before(same=token == self.last) + logs  # paths that begin to say it at a state
        ways = logs.cumsum(0)
        said = ways + (begun - ways).logcumsumexp(0)
        pauses = blanks.cumsum(0)
        silent = pauses + torch.cat([torch.full_like(pauses[:1], NEVER), (said - pauses).logcumsumexp(0)[:-1]])
        return replace(self, said=said, silent=silent, total=float(begun.logsumexp(0)), last=token)


def listens(walk: Walk, heard: Heard) -> bool:
    """Whether the answer is in a transcript that has not ended."""
    return not heard.ended and not walk.done and walk.task.fields[walk.place].kind == "transcript"


def follow(walk: Walk, heard: Heard, token: int) -> Heard:
    """What was heard after ``token`` has been proposed to ``walk``, which still stands before it."""
    if not listens(walk, heard):
        return heard
    place = _Place(walk)
    part = place.part(token)
    if part == "end":
        return replace(heard, ended=True)
    if part == "time":
        return heard
    after = heard.after(place.spoken(token))
    return replace(after, ended=after.total == NEVER)  # the LLM knew better: what is heard says nothing about the rest


def weigh(walk: Walk, heard: Heard, logits: Tensor, weight: float, tone_weight: float = 0.0) -> Tensor:
    """Joint scores (V,) float64 of what may follow, -inf for what is no candidate; ``logits`` (V,) are the LLM's.

    ``weight`` is the share of what is heard in whether and which word follows, ``tone_weight`` in when it starts and ends.
    """
    logs = logits.double().log_softmax(-1)
    if not listens(walk, heard):
        return logs
    best, tokens = logs.topk(min(CANDIDATES, len(logs)))
    place = _Place(walk)
    parts = [place.part(token) for token in tokens.tolist()]
    spoken = torch.tensor([place.spoken(token) for token in tokens.tolist()], device=logs.device)
    gains = heard.gains(spoken)
    ending, more = heard.ending(), heard.more()
    for i, part in enumerate(parts):
        if part == "end":
            gains[i] = ending
        elif part == "time":
            gains[i] = more if place.between else UNHEARD if place.begins else 0.0  # between its times a word has to stand
        elif place.begins:  # that there is a word was told by its time already
            gains[i] = gains[i] - more
    scores = (1 - weight) * best + weight * gains.clamp(min=UNHEARD)
    times = [i for i, part in enumerate(parts) if part == "time"]
    if tone_weight and times:
        told = best.new_tensor(place.when(heard, tokens[times].tolist())).clamp(min=UNHEARD)
        which = best[times] - best[times].logsumexp(-1)  # given that it is a time
        scores[times] += tone_weight * told + (weight - tone_weight) * which
    joint = torch.full_like(logs, NEVER)
    joint[tokens] = scores
    return joint


class _Place:
    """Where in a transcript, with or without times, the next token stands."""

    def __init__(self, walk: Walk) -> None:
        self.template, self.end_id = walk.template, walk.template.end_id
        self.timed = walk.task.fields[walk.place].metric == "timestamps"
        self.between = self.begins = self.inside = self.ends = False
        self.before = self.time = ""
        if self.timed:
            text = ESCAPED.sub("x", self.template.decode(walk.ids))
            tags = TIME_TAG.findall(text)  # of words; a label may stand before
            begun = OPEN.search(text)
            self.inside = begun is not None
            self.time = begun[0][1:] if begun else ""  # as far as it is written
            self.ends = len(tags) % 2 == 1  # a time written now is a word's end
            self.between = not self.inside and len(tags) % 2 == 0
            self.begins = not self.inside and len(tags) % 2 == 1 and text.endswith(">")
            self.before = TAG.sub("", text).rstrip()[-1:]  # the character the last word ended with
        self.escaped = walk.escaped

    def part(self, token: int) -> str:
        """``word`` for a piece of the transcript, ``time`` for one of a time, ``end`` for whatever ends the transcript."""
        if token == self.end_id:
            return "end"
        text = token_text(self.template, token)
        opens = text.lstrip().startswith("<") and not self.escaped
        if not self.timed:
            return "end" if opens else "word"
        if self.inside or (self.between and not text.strip()):
            return "time"
        if opens:
            inner = text.lstrip()[1:2]
            return "time" if not inner or inner.isdigit() else "end"
        return "word"

    def when(self, heard: Heard, tokens: list[int]) -> list[float]:
        """What writing each of ``tokens``, all parts of times, does to log P of the time, as the frames tell it that say the word."""
        state = int(heard.said.argmax()) if self.ends else heard.starting()
        texts = [token_text(self.template, token) for token in tokens]
        texts = [text if self.inside else text.lstrip().removeprefix("<") for text in texts]
        return clock.gains(heard.sounds.clock.logs(state, self.ends), self.time, [text[: text.find(">") + 1] or text for text in texts])

    def spoken(self, token: int) -> int:
        """The token as the plain transcript has it: there, a word that follows another begins with its space."""
        if not self.begins or not self.before:
            return token
        text = token_text(self.template, token)
        return _joined(self.template, token) if " " in join_words([self.before, text]) else token


@lru_cache(maxsize=1 << 14)
def _joined(template: Template, token: int) -> int:
    ids = template.encode(" " + token_text(template, token))
    return ids[0] if len(ids) == 1 else token
