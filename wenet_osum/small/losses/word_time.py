"""Loss ``word_time``: every speech embedding has to encode when the word that is spoken in it
starts and ends.

In pseudo-speech (small/pseudo_speech.py) each frame carries, as sinusoids, the span of its word, or
in silence its own span. This loss brings the same into the adapter's output: half of the channels
encode the start, the other half the end.

Letters: B utterances, S frames (80 ms) of the longest, H width of the LLM, C tokens of all
transcripts, P moments. ``frames`` (B, S, H) have length 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.devices import to_device
from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.objective import Speech, UtteranceLosses
from wenet_osum.small.sinusoids import time_waves

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template

# Logits per unit of cosine: SPREAD is met when a start, or an end, makes up about a third of a
# frame.
SCALE = 15.0
# Standard deviation of the moments that count as right, in frames.
SPREAD = 0.7


class Loss:
    """Cross-entropy of the start and the end of each frame's word among all moments of its
    utterance."""

    kinds = ("osum",)
    needs_logits = False

    def __init__(self, template: Template) -> None:
        self.template = template

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``word_times`` (C, 2): when each token is spoken, s, infinite where it is
        not known."""
        _, times = self.template.transcript(utterance)
        pairs = torch.tensor(times, dtype=torch.float32)
        return {"word_times": pairs.view(-1, 2)}

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses of a batch."""
        times = targets["word_times"]
        counts = targets["word_times_lengths"]
        states = speech.states
        state_s = speech.fixed_state_s()
        longest = states.shape[1]
        spans = word_spans(times, counts, longest, state_s)
        with torch.autocast(states.device.type, enabled=False):
            frames = functional.normalize(states.float(), dim=-1)
            losses = time_losses(frames, speech.lengths, spans)
            return UtteranceLosses(losses)


def word_spans(times: Tensor, lengths: Tensor, longest: int, frame_s: float) -> Tensor:
    """Return the span of the word of each frame (B, S, 2), in frames: where none is known, the
    frame's own.

    ``times`` (C, 2), s, and ``lengths`` (B,) are those of the transcripts' tokens; ``longest`` is
    S. A frame belongs to the token that is spoken in its middle.
    """
    rows = len(lengths)
    starts = torch.arange(longest, dtype=torch.float32)
    ends = starts + 1
    own = torch.stack([starts, ends], dim=-1)
    spans = own.repeat(rows, 1, 1)

    # Which tokens are spoken in the middle of which frames, (C, S).
    times = times.cpu()
    times = times / frame_s
    middles = starts + 0.5
    begun = times[:, :1] <= middles
    going_on = middles < times[:, 1:]
    finite = times.isfinite()
    known = finite.all(1, keepdim=True)
    spoken = begun & going_on & known
    token, frame = spoken.nonzero(as_tuple=True)

    # The utterance of each token, (C,).
    numbers = torch.arange(rows)
    row = torch.repeat_interleave(numbers, lengths.cpu())
    spans[row[token], frame] = times[token]
    return spans


def moment_codes(moments: Tensor, width: int) -> Tensor:
    """Encode ``moments`` (P,), in frames, as half of the channels of a frame would: (P, width / 2),
    of length 1."""
    half = width // 2
    waves = time_waves(moments, half)  # (P, width / 2)
    return functional.normalize(waves, dim=-1)


def moment_logits(frames: Tensor, codes: Tensor) -> Tensor:
    """Return how well each moment of ``codes`` (P, H / 2) fits the start and the end that
    ``frames`` (…, H) encode: (2, …, P)."""
    start, end = frames.chunk(2, dim=-1)
    halves = torch.stack([start, end])
    return SCALE * halves @ codes.T


def time_losses(frames: Tensor, lengths: Tensor, spans: Tensor) -> Tensor:
    """Compute the mean cross-entropy (B,) over frames of the starts and ends ``spans`` (B, S,
    2)."""
    _, longest, width = frames.shape
    device = frames.device
    counts = to_device(lengths, device)
    moments = torch.arange(longest + 1, device=device)
    # An end may lie behind the last frame: (B, S + 1).
    exists = moments <= counts[:, None]

    # The starts and the ends are two choices of their own.
    codes = moment_codes(moments, width)
    start_logits, end_logits = moment_logits(frames, codes)
    spans = to_device(spans, device)
    starts = spans[..., 0]
    ends = spans[..., 1]
    start_losses = _cross_entropy(start_logits, starts, moments, exists)
    end_losses = _cross_entropy(end_logits, ends, moments, exists)
    losses = start_losses + end_losses

    # Frames of the padding teach nothing.
    mask = valid_mask(lengths, longest, device)
    if mask is not None:
        losses = losses * mask
    total = losses.sum(1)
    return total / counts.to(frames.dtype)


def _cross_entropy(logits: Tensor, wanted: Tensor, moments: Tensor, exists: Tensor) -> Tensor:
    """Compute the cross-entropy (B, S) of ``wanted`` (B, S) among the moments that exist (B, S +
    1).

    Moments nearby are nearly as right.
    """
    least = torch.finfo(logits.dtype).min
    possible = exists[:, None, :]
    logits = logits.masked_fill(~possible, least)
    logs = logits.log_softmax(-1)

    # A Gaussian around the wanted moment, over the moments that exist.
    distance = wanted[..., None] - moments
    squares = distance**2
    variance = SPREAD**2
    near = torch.exp(-squares / (2 * variance))
    near = near * possible

    # A frame of the padding may have no moment nearby.
    total = near.sum(-1, keepdim=True)
    near = near / total.clamp(min=1e-9)
    expected = near * logs
    return -expected.sum(-1)
