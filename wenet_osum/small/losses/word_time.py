"""Every speech embedding has to tell when the word that is spoken in it starts and ends.

In pseudo-speech (small/pseudo_speech.py) each frame carries, as sinusoids, the span of its word, or
in silence its own span. This loss brings the same into the adapter's output: half of the channels
tell the start, the other half the end.

Letters: B utterances, S frames (80 ms) of the longest, H width of the LLM, C tokens of all
transcripts, P moments. ``frames`` (B, S, H) have length 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.objective import Speech, UtteranceLosses
from wenet_osum.small.sinusoids import time_waves

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template

SCALE = 15.0  # logits per unit of cosine: SPREAD is met when a start, or an end, makes up about a third of a frame
SPREAD = 0.7  # frames: standard deviation of the moments that count as right


class Loss:
    """Cross-entropy of the start and the end of each frame's word among all moments of its
    utterance."""

    kinds = ("osum",)
    needs_logits = False

    def __init__(self, template: Template) -> None:
        self.template = template

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``transcript_times`` (C, 2): when each token is spoken, s, infinite where it is
        not known."""
        _, times = self.template.transcript(utterance)
        return {"transcript_times": torch.tensor(times, dtype=torch.float32).view(-1, 2)}

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses of a batch."""
        times, lengths = targets["transcript_times"], targets["transcript_times_lengths"]
        spans = word_spans(times, lengths, speech.states.shape[1], speech.fixed_state_s())
        with torch.autocast(speech.states.device.type, enabled=False):
            frames = functional.normalize(speech.states.float(), dim=-1)
            return UtteranceLosses(time_losses(frames, speech.lengths, spans))


def word_spans(times: Tensor, lengths: Tensor, longest: int, frame_s: float) -> Tensor:
    """Return the span of the word of each frame (B, S, 2), in frames: where none is known, the
    frame's own.

    ``times`` (C, 2), s, and ``lengths`` (B,) are those of the transcripts' tokens. A frame belongs
    to the token that is spoken in its middle.
    """
    rows, own = len(lengths), torch.arange(longest, dtype=torch.float32)
    spans = torch.stack([own, own + 1], dim=-1).repeat(rows, 1, 1)
    times, lengths = times.cpu() / frame_s, lengths.cpu()
    row = torch.repeat_interleave(torch.arange(rows), lengths)
    middles = own + 0.5
    spoken = (times[:, :1] <= middles) & (middles < times[:, 1:]) & times.isfinite().all(1, keepdim=True)
    token, frame = spoken.nonzero(as_tuple=True)
    spans[row[token], frame] = times[token]
    return spans


def moment_codes(moments: Tensor, width: int) -> Tensor:
    """Encode ``moments`` (P,), in frames, as half of the channels of a frame would: (P, width / 2),
    of length 1."""
    return functional.normalize(time_waves(moments, width // 2), dim=-1)


def moment_logits(frames: Tensor, codes: Tensor) -> Tensor:
    """Return how well each moment of ``codes`` (P, H / 2) fits start and end that ``frames`` (…, H)
    tell: (2, …, P)."""
    return SCALE * torch.stack(frames.chunk(2, dim=-1)) @ codes.T


def time_losses(frames: Tensor, lengths: Tensor, spans: Tensor) -> Tensor:
    """Compute the mean cross-entropy (B,) over frames of the starts and ends ``spans`` (B, S,
    2)."""
    longest = frames.shape[1]
    moments = torch.arange(longest + 1, device=frames.device)
    # An end may lie behind the last frame: (B, S + 1).
    exists = moments <= lengths.to(frames.device)[:, None]
    logits = moment_logits(frames, moment_codes(moments, frames.shape[2]))
    starts, ends = spans.to(frames.device).unbind(-1)
    found = _cross_entropy(logits[0], starts, moments, exists) + _cross_entropy(logits[1], ends, moments, exists)
    mask = valid_mask(lengths, longest, frames.device)
    found = found if mask is None else found * mask
    return found.sum(1) / lengths.to(frames)


def _cross_entropy(logits: Tensor, wanted: Tensor, moments: Tensor, exists: Tensor) -> Tensor:
    """Compute the cross-entropy (B, S) of ``wanted`` (B, S) among the moments that exist (B, S +
    1).

    Moments nearby are nearly as right.
    """
    logits = logits.masked_fill(~exists[:, None, :], torch.finfo(logits.dtype).min)
    near = torch.exp(-((wanted[..., None] - moments) ** 2) / (2 * SPREAD**2)) * exists[:, None, :]
    # A frame of the padding may have no moment nearby.
    near = near / near.sum(-1, keepdim=True).clamp(min=1e-9)
    return -(near * logits.log_softmax(-1)).sum(-1)
