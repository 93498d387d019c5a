"""When words are spoken, as the adapter's frames tell it.

Every frame tells faintly from when to when its word is spoken (models/tones.py); the frames of one word tell it together better than each alone.
A time that the LLM is about to write gets as probability that of all times which begin with the same characters.

Letters: S frames of 80 ms, H width of the LLM, T times of 10 ms.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.models.osum import EMBEDDING_S
from wenet_osum.models.tones import place_codes, place_logits

DECIMALS = 2
TICKS = 10**DECIMALS  # times a second
BEGINNING = re.compile(r"(\d+)(?:\.(\d*))?(>?)")


class Clock:
    """The times of one utterance, told by its ``states`` (S, H)."""

    def __init__(self, states: Tensor) -> None:
        self.frames = functional.normalize(states.float(), dim=-1)
        self.middles = (torch.arange(len(states)) + 0.5) * EMBEDDING_S
        self.times = torch.arange(round(len(states) * EMBEDDING_S * TICKS) + 1, device=states.device) / TICKS  # (T,) s
        self.codes = place_codes(self.times / EMBEDDING_S, states.shape[1])

    def logs(self, frame: int, end: bool) -> Tensor:
        """log P (T,), float64, of when the word starts, or with ``end`` ends, that is spoken in ``frame``."""
        start, stop = (float(self.times[int(logits.argmax())]) for logits in place_logits(self.frames[frame], self.codes))
        spoken = (start <= self.middles) & (self.middles < stop)
        spoken[frame] = True
        return place_logits(self.frames[spoken.to(self.frames.device)].mean(0), self.codes)[int(end)].double().log_softmax(-1)


def gains(logs: Tensor, before: str, texts: list[str]) -> list[float]:
    """What writing each of ``texts`` after the characters ``before`` of a time does to log P, given those of all times ``logs`` (T,)."""
    sums = torch.cat([logs.new_zeros(1), logs.exp().cumsum(0)])
    now = _share(before, sums)
    return [float((_share(before + text, sums) / now).log()) if now > 0 else float("-inf") for text in texts]


def _share(text: str, sums: Tensor) -> Tensor:
    """P of all times that begin with the characters ``text``; ``sums`` (T + 1,) are those of all earlier ones."""
    if not text:
        return sums[-1]
    found, count = BEGINNING.fullmatch(text), len(sums) - 1
    if not found:
        return sums.new_zeros(())
    whole, part, closed = found.groups()
    if part is None:  # 1 may become 1.5, 10.5, …
        wholes = [] if closed else [n for n in range(count // TICKS + 1) if str(n).startswith(whole)]
        ranges = [(n * TICKS, (n + 1) * TICKS) for n in wholes]
    elif len(part) > DECIMALS or (closed and len(part) < DECIMALS) or str(int(whole)) != whole:
        ranges = []
    else:
        first = int(whole) * TICKS + int(part.ljust(DECIMALS, "0"))
        ranges = [(first, first + 10 ** (DECIMALS - len(part)))]
    return sum((sums[min(last, count)] - sums[min(first, count)] for first, last in ranges), sums.new_zeros(()))
